"""What was found of each tensor, as one HTML page with plots that needs no other file.

Names come from models, so they are data: everything is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

from edgec.debugquant.report import DebugReport, TensorReport, db, share

_OPEN = 3
"""Tensors whose plots are shown at once: those whose layers lose most."""
_MOST_CHANNELS = 128
_SERIES = (("the model", "#b44d12"), ("its layer alone", "#0b7a75"), ("its weights", "#616e7c"))
_FLOAT, _QUANTIZED, _BEYOND = "#9aa5b1", "#0b7a75", "#b00020"
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2933; max-width: 72rem; margin: 2rem auto;
  padding: 0 1rem }
h1 { font-size: 1.5rem; overflow-wrap: anywhere }
table { border-collapse: collapse; margin: 1rem 0 }
th, td { text-align: right; padding: .2rem .7rem; border-bottom: 1px solid #e4e7eb }
th:first-child, td:first-child, .text { text-align: left; overflow-wrap: anywhere }
summary { cursor: pointer; overflow-wrap: anywhere }
svg { max-width: 100%; height: auto } svg text { font: 11px system-ui, sans-serif; fill: #616e7c }
"""


def page(report: DebugReport) -> str:
    """The page."""
    title = escape(f"{report.quantized_model} beside {report.float_model}")
    worst = {each.name for each in report.worst(_OPEN)}
    return "\n".join(
        [
            "<!DOCTYPE html>",
            f'<html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
            f"<style>{_STYLE}</style></head><body>",
            f"<h1>{title}</h1>",
            *(f"<p>{escape(line)}</p>" for line in report.summary().splitlines()),
            *(f"<p>{escape(note)}</p>" for note in report.notes),
            "<h2>Signal to quantization noise, dB</h2>",
            _course(report.tensors),
            _table(report.tensors),
            "<h2>Tensors</h2>",
            *(_details(each, each.name in worst) for each in report.tensors),
            "</body></html>\n",
        ]
    )


def _table(tensors: Iterable[TensorReport]) -> str:
    heads = ("tensor", "layer", "grid", "SQNR", "local", "weights", "largest error", "cut off")
    rows = [
        (
            escape(each.name),
            escape(each.op or "input"),
            escape(each.grid or "float"),
            db(each.sqnr_db),
            db(each.local_db),
            db(each.weight_db),
            f"{each.largest_error:.4g}",
            share(each.saturated),
        )
        for each in tensors
    ]
    return _rows(heads, rows)


def _details(each: TensorReport, is_open: bool) -> str:
    """Ranges and plots of a tensor, under a line to click on."""
    ranges = [
        (name, *(f"{end:.5g}" for end in ends), escape(cut))
        for name, ends, cut in (
            ("float", each.float_range, f"{share(each.below)} below, {share(each.above)} above"),
            ("quantized", each.quantized_range, ""),
        )
    ]
    parts = [_rows(("", "least", "largest", "cut off"), ranges)]
    if each.histogram is not None:
        parts.append(_histogram(*each.histogram))
    if len(each.channels_db) > 1:
        parts.append(_channels(each.channels_db))
    name = escape(f"{each.name} ({each.op or 'input'}): {db(each.local_db)} dB")
    opened = " open" if is_open else ""
    return "\n".join([f"<details{opened}><summary>{name}</summary>", *parts, "</details>"])


def _rows(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """An HTML table of cells that are escaped already."""
    lines = ["".join(f"<td>{cell}</td>" for cell in row) for row in rows]
    head = "".join(f"<th>{name}</th>" for name in heads)
    return "\n".join(
        [f"<table><tr>{head}</tr>", *(f"<tr>{line}</tr>" for line in lines), "</table>"]
    )


def _course(tensors: Sequence[TensorReport]) -> str:
    """The ratios from the first tensor to the last, a dot each."""
    series = [
        [each.sqnr_db for each in tensors],
        [each.local_db for each in tensors],
        [math.inf if each.weight_db is None else each.weight_db for each in tensors],
    ]
    finite = [value for values in series for value in values if math.isfinite(value)]
    if not finite:
        return "<p>Nothing differs.</p>"
    low, high = math.floor(min(finite) / 10) * 10, math.ceil((max(finite) + 1e-9) / 10) * 10
    width, height = max(400, 14 * len(tensors)), 260
    parts = [
        _line(0, _y(level, low, high, height), width, level) for level in range(low, high + 1, 10)
    ]
    for values, (_, color) in zip(series, _SERIES, strict=True):
        for index, value in enumerate(values):
            if math.isfinite(value):
                tip = escape(f"{tensors[index].name}: {db(value)} dB")
                x, y = (
                    34 + (index + 0.5) * (width - 40) / len(tensors),
                    _y(value, low, high, height),
                )
                parts.append(
                    f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{color}"><title>{tip}</title>'
                    "</circle>"
                )
    key = ", ".join(f'<span style="color: {color}">{name}</span>' for name, color in _SERIES)
    return f"<p>{key}</p>" + _svg(width, height, parts)


def _histogram(wanted: Sequence[int], given: Sequence[int]) -> str:
    """Where on the grid the float values are, and the quantized ones as a line; by the square root
    of the counts, so that the few at the ends are seen."""
    width, height = 560, 150
    top = math.sqrt(max(*wanted, *given, 1))
    step = (width - 8) / len(wanted)
    parts = []
    for index, count in enumerate(wanted):
        color = _BEYOND if index in (0, len(wanted) - 1) else _FLOAT
        tall = (height - 24) * math.sqrt(count) / top
        parts.append(
            f'<rect x="{4 + index * step:.1f}" y="{height - 18 - tall:.1f}" width="{step - 1:.1f}" '
            f'height="{tall:.1f}" fill="{color}"><title>{count}</title></rect>'
        )
    points = " ".join(
        f"{4 + (index + 0.5) * step:.1f},{height - 18 - (height - 24) * math.sqrt(count) / top:.1f}"
        for index, count in enumerate(given)
    )
    parts.append(f'<polyline points="{points}" fill="none" stroke="{_QUANTIZED}"/>')
    parts.append(
        f'<text x="4" y="{height - 4}">the grid from end to end: bars float, line quantized; '
        "outside: cut off</text>"
    )
    return _svg(width, height, parts)


def _channels(ratios: Sequence[float]) -> str:
    """A bar for the local ratio of each channel, or of those that are the worst."""
    shown = [(ratio, i) for i, ratio in enumerate(ratios) if math.isfinite(ratio)]
    shown = sorted(sorted(shown)[:_MOST_CHANNELS], key=lambda pair: pair[1])
    if not shown:
        return ""
    low, high = min(0.0, *(r for r, _ in shown)), max(1.0, *(r for r, _ in shown))
    width, height = 560, 120
    step = (width - 40) / len(shown)
    parts = [
        _line(0, _y(level, low, high, height), width, level) for level in (0, math.floor(high))
    ]
    for place, (ratio, index) in enumerate(shown):
        ends = sorted((_y(ratio, low, high, height), _y(0, low, high, height)))
        parts.append(
            f'<rect x="{34 + place * step:.1f}" y="{ends[0]:.1f}" width="{max(step - 1, 1):.1f}" '
            f'height="{ends[1] - ends[0]:.1f}" fill="{_QUANTIZED}">'
            f"<title>channel {index}: {db(ratio)} dB</title></rect>"
        )
    worst = " the worst" if len(shown) < len(ratios) else ""
    return f"<p>dB of{worst} {len(shown)} of {len(ratios)} channels</p>" + _svg(
        width, height, parts
    )


def _svg(width: float, height: float, parts: Iterable[str]) -> str:
    size = f'width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}"'
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" {size}>', *parts, "</svg>"])


def _line(x: float, y: float, width: float, level: float) -> str:
    """A line across at `level`, with its number."""
    return (
        f'<line x1="{x + 30:g}" x2="{width:g}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e4e7eb"/>'
        f'<text x="{x:g}" y="{y + 4:.1f}">{level:g}</text>'
    )


def _y(value: float, low: float, high: float, height: float) -> float:
    """Where `value` is on a plot that has `low` at its foot."""
    return height - 10 - (height - 20) * (value - low) / (high - low)
