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
}
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2933; max-width: 64rem; margin: 2rem auto;
  padding: 0 1rem }
h1 { font-size: 1.5rem; overflow-wrap: anywhere }
table { border-collapse: collapse; margin: 1rem 0 2rem }
th, td { text-align: right; padding: .25rem .8rem; border-bottom: 1px solid #e4e7eb;
  vertical-align: top; white-space: nowrap }
th:first-child, td:first-child { text-align: left; padding-left: 0 }
th.text, td.text { text-align: left; white-space: normal; overflow-wrap: anywhere }
.fewer { color: #0b7a75 } .more { color: #b44d12 } .undone { color: #b00020 }
.idle td { color: #7b8794 } tr.total td { font-weight: 600; border-bottom: 0 }
"""


@dataclass(frozen=True)
class OptimizeReport:
    """`source` and `output` are what the user called the files, without their external data
    `source_bytes` and `nbytes` large."""

    source: str
    output: str
    source_bytes: int
    nbytes: int
    result: Optimized

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "path": self.output,
            "source_bytes": self.source_bytes,
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
            table(("", "before", "after"), _as_text([*self._quantities(), self._opsets()])),
            table(("operator", "before", "after"), _as_text(self._ops())),
            pass_table(self.result.passes),
        ]
        undone = [f"{r.name} undone: {r.rolled_back}" for r in self.result.passes if r.rolled_back]
        return "\n\n".join([*parts, *undone, self.summary()])

    def html(self) -> str:
        """A page that needs no other file. Everything from the model is escaped."""
        _, before, after = self._opsets()
        opset = f"Opset {before}" + (f", then {after}" if after != before else "")
        title = escape(f"{self.source}, optimised")
        return "\n".join(
            [
                "<!DOCTYPE html>",
                f'<html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
                f"<style>{_STYLE}</style></head><body>",
                f"<h1>{title}</h1>",
                f"<p>{escape(self.summary())}</p>",
                *(f"<p>{escape(note)}</p>" for note in (opset, *self.result.notes)),
                _comparison("", self._quantities()),
                "<h2>Operators</h2>",
                _comparison("operator", self._ops()),
                "<h2>Passes</h2>",
                _passes_page(self.result.passes),
                "</body></html>\n",
            ]
        )

    def _quantities(self) -> list[tuple[str, int | None, int | None]]:
        before, after = self.result.before, self.result.after
        found = [(label, before[key], after[key]) for key, label in _QUANTITIES.items()]
        return [*found, ("bytes of the file", self.source_bytes, self.nbytes)]

    def _opsets(self) -> tuple[str, int, int]:
        return "opset", self.result.before["opset"], self.result.after["opset"]

    def _ops(self) -> list[tuple[str, int, int]]:
        before, after = self.result.before["ops"], self.result.after["ops"]
        return [
            (op, before.get(op, 0), after.get(op, 0)) for op in sorted(before.keys() | after.keys())
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
    return table(("pass", "rewrites", "time", "left alone"), rows, text=(0, 3))


def _quantities(card: Mapping[str, Any]) -> dict[str, Any]:
    return {key: card[key] for key in (*_QUANTITIES, "opset", "ops")}


def _as_text(rows: Sequence[tuple[str, int | None, int | None]]) -> list[tuple[str, str, str]]:
    return [(label, _number(before), _number(after)) for label, before, after in rows]


def _number(value: int | None) -> str:
    return "unknown" if value is None else f"{value:,}"


def _comparison(header: str, rows: Sequence[tuple[str, int | None, int | None]]) -> str:
    """An HTML table of what there was before and after, and by how much that differs."""
    lines = []
    for label, before, after in rows:
        kind = change = ""
        if before is not None and after is not None and before != after:
            kind = "fewer" if after < before else "more"
            change = f"{after - before:+,}" + (f" ({after / before - 1:+.1%})" if before else "")
        numbers = f"<td>{_number(before)}</td><td>{_number(after)}</td>"
        lines.append(f'<tr><td>{escape(label)}</td>{numbers}<td class="{kind}">{change}</td></tr>')
    names = "".join(f"<th>{name}</th>" for name in (escape(header), "before", "after", "change"))
    return "\n".join([f"<table><tr>{names}</tr>", *lines, "</table>"])


def _passes_page(reports: Sequence[PassReport]) -> str:
    """An HTML table of the passes; those that had nothing to do are grey."""
    lines = [
        "<table><tr><th>pass</th><th>rewrites</th><th>time</th>"
        '<th class="text">left alone, or undone</th></tr>'
    ]
    for each in reports:
        said = [
            escape(f"{count} \N{MULTIPLICATION SIGN} {why}")
            for why, count in each.skips.most_common()
        ]
        if each.rolled_back:
            said.insert(0, f'<span class="undone">{escape(f"undone: {each.rolled_back}")}</span>')
        kind = "" if each.rewrites or said else ' class="idle"'
        numbers = f"<td>{each.rewrites:,}</td><td>{duration(each.seconds)}</td>"
        text = f'<td class="text">{"<br>".join(said)}</td>'
        lines.append(f"<tr{kind}><td>{escape(each.name)}</td>{numbers}{text}</tr>")
    rewrites, seconds = sum(r.rewrites for r in reports), sum(r.seconds for r in reports)
    total = f"<td>{rewrites:,}</td><td>{duration(seconds)}</td>"
    return "\n".join([*lines, f'<tr class="total"><td>all</td>{total}<td></td></tr></table>'])
