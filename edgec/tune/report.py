"""What a tuning run found: as data, as a table; `edgec.tune.plot` draws it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgec.protocol import Ratio, Times
from edgec.report import duration, table


@dataclass(frozen=True)
class TaskReport:
    """One task: seconds of a run of the model by the rule and by the best found, and its trials,
    those known from before included."""

    label: str
    kernel: str
    rule_s: float
    best_s: float
    trials: int

    @property
    def gain(self) -> float:
        """How many times faster than by the rule."""
        return self.rule_s / self.best_s

    def to_dict(self) -> dict[str, Any]:
        """For JSON; times in milliseconds."""
        return {
            "label": self.label,
            "kernel": self.kernel,
            "rule_ms": 1e3 * self.rule_s,
            "best_ms": 1e3 * self.best_s,
            "gain": self.gain,
            "trials": self.trials,
        }


@dataclass(frozen=True)
class Found:
    """The trials of a run: how many, in how many seconds, and what became of the model.

    `known` trials were in the records before, `known_valid` of them without a failure, and were not
    measured again. `curve` has seconds since
    the start and the estimated latency of the model then, in seconds: what the kernels take by
    measurement, and all that is not tuned as it was. `reasons` counts why candidates failed.
    """

    tasks: Sequence[TaskReport]
    trials: int
    failed: int
    known: int
    known_valid: int
    seconds: float
    curve: Sequence[tuple[float, float]]
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def valid(self) -> int:
        """Trials that ran and were right."""
        return self.trials - self.failed

    @property
    def trials_per_second(self) -> float:
        """Valid or not."""
        return self.trials / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Tuned:
    """What was found, and the whole model measured before and after it, in alternating bursts."""

    model: str
    target: str
    threads: int
    records: Path
    found: Found
    before: Times
    after: Times

    @property
    def speedup(self) -> Ratio:
        """Time before over time after."""
        return Ratio.of(self.before, self.after)

    def to_dict(self) -> dict[str, Any]:
        """For JSON; times in milliseconds."""
        return {
            "model": self.model,
            "target": self.target,
            "threads": self.threads,
            "records": str(self.records),
            "trials": self.found.trials,
            "valid": self.found.valid,
            "failed": self.found.failed,
            "known": self.found.known,
            "seconds": self.found.seconds,
            "trials_per_second": self.found.trials_per_second,
            "reasons": dict(self.found.reasons.most_common()),
            "before_ms": 1e3 * self.before.median,
            "after_ms": 1e3 * self.after.median,
            "speedup": self.speedup.value,
            "speedup_p10": self.speedup.p10,
            "speedup_p90": self.speedup.p90,
            "tasks": [task.to_dict() for task in self.found.tasks],
            "curve": [[seconds, 1e3 * latency] for seconds, latency in self.found.curve],
        }

    def table(self) -> str:
        """For people."""
        rows = [
            (
                task.label,
                str(task.trials),
                duration(task.rule_s),
                duration(task.best_s),
                f"{task.gain:.2f}x",
            )
            for task in sorted(self.found.tasks, key=lambda task: task.best_s - task.rule_s)
        ]
        found, speedup = self.found, self.speedup
        lines = [
            table(("kernel", "trials", "rule", "best", "gain"), rows),
            "",
            f"{found.trials} trials in {found.seconds:.0f} s ({found.trials_per_second:.1f} a "
            f"second): {found.valid} valid, {found.failed} failed; {found.known} known before",
            *(f"  {count} failed: {reason}" for reason, count in found.reasons.most_common(3)),
            f"{self.model} on {self.target}, {self.threads} thread"
            f"{'s' if self.threads > 1 else ''}: {duration(self.before.median)} before, "
            f"{duration(self.after.median)} after, {speedup.value:.2f}x "
            f"({speedup.p10:.2f} to {speedup.p90:.2f})",
            f"records: {self.records}",
        ]
        return "\n".join(lines)
