"""What a benchmark found: as data, as a table, as a plot."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgec import protocol
from edgec.errors import UsageError
from edgec.protocol import Ratio, Times
from edgec.report import duration, size, table

_ACCENT, _GREY, _INK = "#0b7a75", "#9aa5b1", "#1f2933"


@dataclass(frozen=True)
class Row:
    """One engine at its best file and thread count.

    `load_s` is the time to create the model and run it once in a fresh process, the import of the
    engine apart. `resident_bytes` is the whole process after the runs, `engine_bytes` what of it
    came with the engine and the model. `disk_bytes` is the installed engine, 0 for edgec, whose
    runtime is part of the artifact.
    """

    engine: str
    title: str
    version: str
    file: str
    threads: int
    times: Times
    import_s: float
    load_s: float
    resident_bytes: int
    engine_bytes: int
    file_bytes: int
    disk_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON, times in milliseconds."""
        quantiles = {f"p{round(q * 100)}_ms": q for q in (0.1, 0.25, 0.75, 0.9)}
        return {
            "engine": self.engine,
            "version": self.version,
            "file": self.file,
            "threads": self.threads,
            "median_ms": self.times.median * 1e3,
            **{key: self.times.quantile(q) * 1e3 for key, q in quantiles.items()},
            "calls": self.times.calls,
            "import_ms": self.import_s * 1e3,
            "load_ms": self.load_s * 1e3,
            "resident_bytes": self.resident_bytes,
            "engine_bytes": self.engine_bytes,
            "file_bytes": self.file_bytes,
            "disk_bytes": self.disk_bytes,
        }


@dataclass
class BenchReport:
    """The rows of a benchmark; the first one is what the others are held against.

    `twin` holds the times of a second process of the row `twin_of`: the A/A row. `absent` has, by
    engine, how to install it; `failed` why an engine could not run the model; `tried` every file
    and thread count with its preliminary median in seconds, or the error. `warnings` name outputs
    on which the engines disagree. `native` says that engines were called from C, not from Python.
    """

    model: str
    machine: Mapping[str, str]
    rows: list[Row]
    twin: Times
    twin_of: str
    absent: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    tried: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    native: bool = False

    @property
    def base(self) -> Row:
        """The row that ratios refer to."""
        return self.rows[0]

    @property
    def aa(self) -> Ratio:
        """One engine against itself."""
        return Ratio.of(self.twin, self._row(self.twin_of).times)

    @property
    def believed(self) -> bool:
        """Whether the A/A ratio is near enough to one."""
        low, high = protocol.BELIEVED
        return low <= self.aa.value <= high

    def ratio(self, engine: str) -> Ratio:
        """Time of `engine` over the time of the first row: above 1, the first row is faster."""
        return Ratio.of(self._row(engine).times, self.base.times)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        rows = [{**row.to_dict(), "ratio": _ratio(self.ratio(row.engine))} for row in self.rows]
        return {
            "model": self.model,
            "machine": dict(self.machine),
            "engines": rows,
            "aa": {"engine": self.twin_of, **_ratio(self.aa)},
            "believed": self.believed,
            "absent": self.absent,
            "failed": self.failed,
            "tried": self.tried,
            "warnings": self.warnings,
            "native": self.native,
            "protocol": {
                "burst": protocol.BURST,
                "dropped": protocol.DROPPED,
                "rest_ms": protocol.REST_S * 1e3,
            },
        }

    def table(self) -> str:
        """A line per engine, the A/A row, and what has to be said about them."""
        header = (
            *("engine", "file", "threads", "median", "p10 .. p90", f"times {self.base.title}"),
            *("load", "resident (of engine)", "file size"),
        )
        lines = []
        for row in self.rows:
            ratio = self.ratio(row.engine)
            spread = f"{duration(row.times.quantile(0.1))} .. {duration(row.times.quantile(0.9))}"
            memory = f"{size(row.resident_bytes)} ({size(row.engine_bytes)})"
            lines.append(
                (
                    *(f"{row.title} {row.version}", row.file, str(row.threads)),
                    *(duration(row.times.median), spread),
                    f"{_times(ratio.value)} ({_times(ratio.p10)} .. {_times(ratio.p90)})",
                    *(duration(row.load_s), memory, size(row.file_bytes)),
                )
            )
        twin = self._row(self.twin_of)
        aa, low, high = self.aa, *protocol.BELIEVED
        spread = f"{duration(self.twin.quantile(0.1))} .. {duration(self.twin.quantile(0.9))}"
        lines.append(
            (
                *(f"A/A: {twin.title} again", twin.file, str(twin.threads)),
                *(duration(self.twin.median), spread, f"A/A {aa.value:.2f}", "", "", ""),
            )
        )
        text = [table(header, lines), ""]
        if not self.believed:
            text.append(
                f"NOT BELIEVED: the A/A row reads {aa.value:.2f}, outside {low} .. {high}; "
                "the machine was busy, measure again"
            )
        for name, pip in self.absent.items():
            text.append(f"{name}: absent ({pip})")
        text += [f"{name}: failed: {why}" for name, why in self.failed.items()]
        text += self.warnings
        language = "C" if self.native else "Python"
        calls = f"{self.base.times.calls} calls each from {language}"
        text.append(f"{calls} on {self._machine()}")
        return "\n".join(text)

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw medians, spreads and ratios; the suffix chooses the format (.svg, .png, .pdf).

        Raises `UsageError` where matplotlib is not installed or does not know the suffix.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise UsageError(
                "plots need matplotlib", where=str(path), hint="pip install 'edgec[bench]'"
            ) from error
        rows = sorted(self.rows, key=lambda row: row.times.median)
        figure = Figure(figsize=(8, 1.7 + 0.75 * len(rows)), layout="constrained", dpi=150)
        axes = figure.add_subplot()
        for place, row in enumerate(rows):
            self._draw(axes, place, row)
        axes.set_yticks(range(len(rows)), [self._label(row) for row in rows], color=_INK)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        right = max(row.times.quantile(0.9) for row in rows) * 1e3
        axes.set_xlim(0, right * 1.35)
        axes.set_xlabel(
            "ms per call: median, middle half (thick), 10th to 90th percentile (thin)",
            color=_INK,
        )
        axes.set_title(self.model, loc="left", color=_INK, weight="bold")
        axes.grid(axis="x", color="#e4e7eb")
        axes.set_axisbelow(True)
        axes.tick_params(length=0, colors=_INK)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        verdict = "" if self.believed else ": NOT BELIEVED"
        note = (
            f"{self._machine()}\n{self.base.times.calls} calls each, alternating bursts; "
            f"A/A ({self._row(self.twin_of).title}) {self.aa.value:.2f}{verdict}"
        )
        figure.supxlabel(note, x=0.01, ha="left", fontsize=8, color="#616e7c")
        try:
            figure.savefig(path)
        except ValueError as error:
            raise UsageError(str(error), where=str(path)) from error

    def _draw(self, axes: Any, place: int, row: Row) -> None:
        """One engine: its rounds as dots, its spread as lines, its median and ratio."""
        color = _ACCENT if row is self.base else _GREY
        low, q1, middle, q3, high = (
            row.times.quantile(q) * 1e3 for q in (0.1, 0.25, 0.5, 0.75, 0.9)
        )
        axes.barh(place, middle, height=0.5, color=color, alpha=0.22)
        axes.plot([low, high], [place, place], color=color, linewidth=1.5)
        axes.plot([q1, q3], [place, place], color=color, linewidth=6, solid_capstyle="butt")
        axes.plot(middle, place, "o", color="white", markeredgecolor=color, markersize=7)
        text = duration(row.times.median)
        if row is not self.base:
            text += f"   {_times(self.ratio(row.engine).value)}x {self.base.title}"
        axes.annotate(
            text, (high, place), (8, 0), textcoords="offset points", va="center", color=_INK
        )

    def _label(self, row: Row) -> str:
        threads = f"{row.threads} thread{'s' if row.threads > 1 else ''}"
        return f"{row.title} {row.version}\n{row.file}, {threads}"

    def _machine(self) -> str:
        return ", ".join(self.machine.values())

    def _row(self, engine: str) -> Row:
        return next(row for row in self.rows if row.engine == engine)


def _times(value: float) -> str:
    return f"{value:.2f}" if value >= 0.0995 else f"{value:.3f}"


def _ratio(ratio: Ratio) -> dict[str, float]:
    return {"value": ratio.value, "p10": ratio.p10, "p90": ratio.p90}
