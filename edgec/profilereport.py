"""What a profile found: as data and as a table; `edgec.profileplot` draws it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edgec.peaks import Peaks
from edgec.report import duration, table
from edgec.roofline import Bounds

NAME_SHOWN = 40
"""Characters of a kernel's label, or of its nodes' names together, in the table."""

FEWER = 1.05
"""A share of the peak that no error of measurement explains."""


def label_of(kernel: str) -> str:
    """A kernel's name without what only tells it from others: "conv2d add relu"."""
    words = re.sub(r"_over_\d+$", "", kernel).removeprefix("fused_").split("_")
    return " ".join(filter(None, (word.rstrip("0123456789") for word in words)))


@dataclass(frozen=True)
class StepTime:
    """One kernel call of the plan.

    `nodes` are the ONNX nodes it computes, `calls` is how often a run executes it at most (more
    than once inside of `repeat`), `macs` the multiply-accumulates of one call, 0 where they are not
    known, `seconds` the median over all runs of the time of all its calls. `nbytes` are what one
    call reads and writes at most, and `bounds` what the machine allows it; None where that is not
    known.
    """

    kernel: str
    nodes: tuple[str, ...]
    calls: int
    macs: int
    seconds: float
    nbytes: int | None = None
    bounds: Bounds | None = None

    @property
    def label(self) -> str:
        """The kernel's name without what only tells it from others: "conv2d add relu"."""
        return label_of(self.kernel)

    @property
    def gflops(self) -> float | None:
        """Billions of floating-point operations a second, a multiply-accumulate being two."""
        return self._rate(2 * self.macs) if self.macs else None

    @property
    def gbytes(self) -> float | None:
        """Billions of bytes read and written a second."""
        return self._rate(self.nbytes) if self.nbytes else None

    @property
    def fma_share(self) -> float | None:
        """Of the machine's peak: 1 where nothing multiplies and adds faster; above it where the
        kernel does with fewer multiplications than the operator's definition."""
        return self._share(self.bounds.fma_s) if self.bounds and self.macs else None

    @property
    def memory_share(self) -> float | None:
        """Of the machine's peak: 1 where nothing moves such data faster."""
        return self._share(self.bounds.memory_s) if self.bounds else None

    def to_dict(self) -> dict[str, Any]:
        """For JSON; times in microseconds."""
        return {
            "kernel": self.kernel,
            "nodes": list(self.nodes),
            "calls": self.calls,
            "macs": self.macs,
            "us": self.seconds * 1e6,
            "gflops": self.gflops,
            "bytes": self.nbytes,
            "gbytes": self.gbytes,
            "fma_share": self.fma_share,
            "memory_share": self.memory_share,
            "bound": self.bounds.by if self.bounds else None,
        }

    def _rate(self, per_call: int) -> float | None:
        return 1e-9 * per_call * self.calls / self.seconds if self.seconds else None

    def _share(self, least_s: float) -> float | None:
        return least_s * self.calls / self.seconds if self.seconds else None


@dataclass(frozen=True)
class Profile:
    """The steps in the order of the plan, and medians over all runs.

    `steps_s` is the time of all steps of a timed run, `run_s` that of a plain run, as Python sees
    it; `clock_s` was taken off every call for reading the clock. `peaks` are the machine's, None
    where they cannot be measured.
    """

    model: str
    variant: str
    threads: int
    runs: int
    steps: tuple[StepTime, ...]
    steps_s: float
    run_s: float
    peaks: Peaks | None = None
    clock_s: float = 0.0

    @property
    def ratio(self) -> float:
        """What the steps account for of a plain run: 1 where nothing is lost or added."""
        return self.steps_s / self.run_s

    @property
    def least_s(self) -> float | None:
        """What all steps that ran would take at the peak that bounds each."""
        ran = [step for step in self.steps if step.seconds]
        if any(step.bounds is None for step in ran):
            return None
        return sum(step.bounds.seconds * step.calls for step in ran if step.bounds)

    def costliest(self) -> list[StepTime]:
        """The steps that took time, the longest first."""
        ran = [step for step in self.steps if step.seconds]
        return sorted(ran, key=lambda step: -step.seconds)

    def to_dict(self) -> dict[str, Any]:
        """For JSON; times in microseconds."""
        return {
            "variant": self.variant,
            "threads": self.threads,
            "runs": self.runs,
            "steps": [
                step.to_dict() | {"share": step.seconds / self.steps_s} for step in self.steps
            ],
            "steps_us": self.steps_s * 1e6,
            "run_us": self.run_s * 1e6,
            "ratio": self.ratio,
            "clock_ns": self.clock_s * 1e9,
            "least_us": None if self.least_s is None else self.least_s * 1e6,
            "peaks": _peaks(self.peaks),
        }

    def table(self) -> str:
        """The steps that took time, the longest first, how they add up, and the peaks."""
        columns = list(COLUMNS)
        if self.least_s is None:
            columns = [column for column in columns if column[0] not in OF_BOUNDS]
        rows = [tuple(show(step, self) for _, show in columns) for step in self.costliest()]
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        lines = [
            table([name for name, _ in columns], rows, text=(0, len(columns) - 1)),
            "",
            f"{self.runs} runs, {threads}: the steps take {duration(self.steps_s)}, "
            f"a plain run {duration(self.run_s)} (ratio {self.ratio:.2f})",
        ]
        if self.least_s is not None and self.peaks is not None:
            lines += [
                f"at the peaks of this machine they would take {duration(self.least_s)} "
                f"({_percent(self.least_s / self.steps_s)})",
                describe(self.peaks),
            ]
            if any((step.fma_share or 0) > FEWER for step in self.steps):
                lines.append("above 100 % of FMA: fewer multiplications than by definition")
        return "\n".join(lines)


def describe(peaks: Peaks) -> str:
    """The peaks in one line."""
    near, far = (1e-9 * peaks.bytes_per_s(peaks.bandwidth[end][0]) for end in (0, -1))
    return (
        f"peaks: {2e-9 * peaks.fma_per_s:.0f} GFLOP/s; {near:.0f} GB/s from the nearest cache, "
        f"{far:.1f} GB/s from memory"
    )


def _peaks(peaks: Peaks | None) -> dict[str, Any] | None:
    if peaks is None:
        return None
    return {
        "processor": peaks.processor,
        "threads": peaks.threads,
        "gflops": 2e-9 * peaks.fma_per_s,
        "gbytes": [[footprint, 1e-9 * rate] for footprint, rate in peaks.bandwidth],
    }


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f} %"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def shortened(text: str, length: int = NAME_SHOWN) -> str:
    """`text`, or its beginning and "..." where it is longer than `length`."""
    return text if len(text) <= length else text[: length - 3] + "..."


COLUMNS: Sequence[tuple[str, Callable[[StepTime, Profile], str]]] = (
    ("kernel", lambda step, _: shortened(step.label)),
    ("calls", lambda step, _: str(step.calls)),
    ("median", lambda step, _: duration(step.seconds)),
    ("share", lambda step, whole: f"{100 * step.seconds / whole.steps_s:.1f} %"),
    ("GFLOP/s", lambda step, _: _number(step.gflops)),
    ("of FMA", lambda step, _: _percent(step.fma_share)),
    ("GB/s", lambda step, _: _number(step.gbytes)),
    ("of memory", lambda step, _: _percent(step.memory_share)),
    ("bound by", lambda step, _: step.bounds.by if step.bounds else ""),
    ("nodes", lambda step, _: shortened(", ".join(step.nodes))),
)
OF_BOUNDS = ("of FMA", "of memory", "bound by")
"""The columns that need the machine's peaks."""
