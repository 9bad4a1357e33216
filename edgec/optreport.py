"""What optimising a model did: as text, as data for JSON, as one HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from edgec.optimizer import Optimized
from edgec.report import duration, table
from edgec.rewrite import PassReport

_QUANTITIES = {
    "nodes": "nodes",
    "parameters": "parameters",
    "weight_bytes": "bytes of weights",
    "macs": "MACs",
    "peak_activation_bytes": "bytes of activations at peak",
    "opset": "opset",
}
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2933; max-width: 60rem; margin: 2rem auto;
  padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0 2rem }
th, td { text-align: right; padding: .25rem .8rem; border-bottom: 1px solid #e4e7eb;
  vertical-align: top }
th:first-child, td:first-child, td.text { text-align: left }
.fewer { color: #0b7a75 } .more { color: #b44d12 } .undone { color: #b00020 }
"""


@dataclass(frozen=True)
class OptimizeReport:
    """`source` and `output` are what the user called the files; `nbytes` those of the output."""

    source: str
    output: str
    nbytes: int
    result: Optimized

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "path": self.output,
            "bytes": self.nbytes,
            "seconds": self.result.seconds,
            "before": _quantities(self.result.before),
            "after": _quantities(self.result.after),
            "passes": [facts(report) for report in self.result.passes],
        }

    def summary(self) -> str:
        """One line."""
        before, after = self.result.before["nodes"], self.result.after["nodes"]
        took = duration(self.result.seconds)
        undone = [report.name for report in self.result.passes if report.rolled_back]
        line = f"{self.output}: {before} nodes to {after} in {took}"
        return line + (f"; undone: {', '.join(undone)}" if undone else "")

    def text(self) -> str:
        """Tables of quantities, operators and passes."""
        parts = [
            table(("", "before", "after"), self._sizes()),
            table(("operator", "before", "after"), self._ops()),
            pass_table(self.result.passes),
        ]
        undone = [f"{r.name} undone: {r.rolled_back}" for r in self.result.passes if r.rolled_back]
        return "\n\n".join([*parts, *undone, self.summary()])

    def html(self) -> str:
        """A page that needs no other file. Everything from the model is escaped."""
        rows = [
            (
                report.name,
                str(report.rewrites),
                duration(report.seconds),
                "; ".join(f"{n} x {why}" for why, n in report.skips.most_common()),
                report.rolled_back,
            )
            for report in self.result.passes
        ]
        names = ("pass", "rewrites", "time", "left alone", "undone")
        title = escape(f"{self.source}, optimised")
        return "\n".join(
            [
                "<!DOCTYPE html>",
                f'<html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
                f"<style>{_STYLE}</style></head><body>",
                f"<h1>{title}</h1>",
                f"<p>{escape(self.summary())}</p>",
                _html_table(("", "before", "after"), self._sizes()),
                "<h2>Operators</h2>",
                _html_table(("operator", "before", "after"), self._ops(), compare=True),
                "<h2>Passes</h2>",
                _html_table(names, rows),
                "</body></html>\n",
            ]
        )

    def _sizes(self) -> list[tuple[str, str, str]]:
        sides = self.result.before, self.result.after
        return [
            (label, *(_number(side[key]) for side in sides))  # type: ignore[misc]
            for key, label in _QUANTITIES.items()
        ]

    def _ops(self) -> list[tuple[str, str, str]]:
        before, after = self.result.before["ops"], self.result.after["ops"]
        return [
            (op, str(before.get(op, 0)), str(after.get(op, 0)))
            for op in sorted(before.keys() | after.keys())
        ]


def facts(report: PassReport) -> dict[str, Any]:
    """What one pass did, for JSON."""
    return {
        "name": report.name,
        "rewrites": report.rewrites,
        "seconds": report.seconds,
        "skips": dict(report.skips.most_common()),
        "rolled_back": report.rolled_back,
    }


def pass_table(reports: Sequence[PassReport]) -> str:
    """A line per pass: rewrites, time, and the most frequent reasons to leave nodes alone."""
    rows = [
        (
            report.name,
            str(report.rewrites),
            duration(report.seconds),
            "; ".join(f"{count} x {reason}" for reason, count in report.skips.most_common(3)),
        )
        for report in reports
    ]
    return table(("pass", "rewrites", "time", "left alone"), rows)


def _quantities(card: Mapping[str, Any]) -> dict[str, Any]:
    return {key: card[key] for key in (*_QUANTITIES, "ops")}


def _number(value: int | None) -> str:
    return "unknown" if value is None else f"{value:,}"


def _html_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, compare: bool = False
) -> str:
    lines = ["<table><tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in header) + "</tr>"]
    for row in rows:
        cells = [f"<td>{escape(cell)}</td>" for cell in row]
        if compare and row[1] != row[2]:
            kind = "fewer" if int(row[2]) < int(row[1]) else "more"
            cells[-1] = f'<td class="{kind}">{escape(row[2])}</td>'
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return "\n".join([*lines, "</table>"])
