"""What a tuning run found: as data, as a table; `edgec.tune.plot` draws it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgec.protocol import Ratio
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
    """The trials of a run: how many, in how many seconds, and what became of the model, of which
    `rest_s` were not tuned.

    `known` trials were in the records before, `known_valid` of them without a failure, and were not
    measured again. `curve` has seconds since
    the start and the estimated latency of the model then, in seconds: what the kernels take by
    measurement, and all that is not tuned as it was. `reasons` counts why candidates failed.
    """

    tasks: Sequence[TaskReport]
    rest_s: float
    trials: int
    failed: int
    known: int
    known_valid: int
    seconds: float
    curve: Sequence[tuple[float, float]]
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def start_s(self) -> float:
        """Seconds of a run of the model by the rules, estimated."""
        return self.rest_s + sum(task.rule_s for task in self.tasks)

    @property
    def end_s(self) -> float:
        """Seconds of a run by the best decisions confirmed, estimated."""
        return self.rest_s + sum(task.best_s for task in self.tasks)

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
    """What was found, and seconds of a run of the whole model before and after.

    They are `measured` in alternating bursts where the model can be run, else estimated from its
    kernels' times. `speedup` is their ratio.
    """

    model: str
    target: str
    threads: int
    records: Path
    found: Found
    before_s: float
    after_s: float
    speedup: Ratio
    measured: bool

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
            "before_ms": 1e3 * self.before_s,
            "after_ms": 1e3 * self.after_s,
            "speedup": self.speedup.value,
            "speedup_p10": self.speedup.p10,
            "speedup_p90": self.speedup.p90,
            "measured": self.measured,
            "tasks": [task.to_dict() for task in self.found.tasks],
            "curve": [[seconds, 1e3 * latency] for seconds, latency in self.found.curve],
        }

    def outcome(self) -> str:
        """Before and after in one line."""
        spread = f"{self.speedup.p10:.2f} to {self.speedup.p90:.2f}"
        return (
            f"{duration(self.before_s)} before, {duration(self.after_s)} after, "
            f"{self.speedup.value:.2f}x ({spread if self.measured else 'estimated'})"
        )

    def table(self) -> str:
        """For people."""
        found = self.found
        rows = [
            (
                task.label,
                str(task.trials),
                duration(task.rule_s),
                duration(task.best_s),
                f"{task.gain:.2f}x",
            )
            for task in sorted(found.tasks, key=lambda task: task.best_s - task.rule_s)
        ]
        lines = [
            table(("kernel", "trials", "rule", "best", "gain"), rows),
            "",
            f"{found.trials} trials in {found.seconds:.0f} s ({found.trials_per_second:.1f} a "
            f"second): {found.valid} valid, {found.failed} failed; {found.known} known before",
            *(f"  {count} failed: {reason}" for reason, count in found.reasons.most_common(3)),
            f"{self.model} on {self.target}, {self.threads} thread"
            f"{'s' if self.threads > 1 else ''}: {self.outcome()}",
            f"records: {self.records}",
        ]
        return "\n".join(lines)
