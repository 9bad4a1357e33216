"""How far the rules are from the best of their spaces: a model's costliest kernels, searched whole.

Every schedule of a kernel is measured once; those that seem fastest are then measured against the
rule's, in alternation. A kernel whose best is within 3 % of the rule's has nothing left to tune.

    python bench/tune_space.py resnet18.onnx --kernels 5
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from edgec.compiler import compile_model
from edgec.options import Options
from edgec.report import duration
from edgec.targets import Target, resolve
from edgec.tune import whole
from edgec.tune.duel import duel
from edgec.tune.measure import Decisions, Measurer
from edgec.tune.space import Space
from edgec.tune.task import Task, tasks

FINAL = 4
"""So many of the fastest are measured against the rule."""

WITHIN = 1.03
"""A rule's time over the best's up to which it leaves nothing to tune."""

HEADER = ("kernel", "share", "schedules", "valid", "rule", "gain", "best")


@dataclass(frozen=True)
class Row:
    """A kernel: its share of the model's time, how many schedules there are and how many of them
    work, the rule's seconds, its time over the best's, and the best decisions."""

    label: str
    share: float
    schedules: int
    valid: int
    rule_s: float
    gain: float
    best: Decisions

    @property
    def cells(self) -> list[str]:
        """The row of the table."""
        best = " ".join(f"{knob}={value!s:.20}" for knob, value in self.best.items())
        return [
            self.label,
            f"{self.share:.0%}",
            str(self.schedules),
            str(self.valid),
            duration(self.rule_s),
            f"{self.gain:.2f}x",
            best or "the rule",
        ]


def chosen(model: Path, target: Target, threads: int, level: int) -> tuple[list[Task], float]:
    """The tasks of a model, the costliest first, and the seconds that all of a run takes."""
    with tempfile.TemporaryDirectory(prefix="edgec-") as folder:
        artifact = Path(folder) / "model.edgec"
        options = Options(targets=(target.name,), level=level, bundled=False)
        made = compile_model(model, artifact, options, reuse=False)
        [(lowered, planned)] = made.lowered.values()
        sample = whole.random_sample(artifact, model)
        seconds = whole.kernel_seconds(artifact, sample, threads)
    found = tasks(lowered, planned, seconds)
    return list(found.chosen), found.rest + sum(task.seconds for task in found.chosen)


def search(measurer: Measurer, task: Task, share: float, threads: int, most: int) -> Row:
    """Measure the space of a kernel, at most so many schedules of it."""
    space = Space(task.kernel.function, measurer.target)
    every = list(islice(space.enumerate(), most))
    times: list[tuple[float, int, Decisions]] = []
    for place, (decisions, measured) in enumerate(measurer.measure(task.kernel, every, threads)):
        if not measured.error:
            times.append((measured.seconds, place, decisions))
    rule_s = next(seconds for seconds, _, decisions in times if not decisions)
    ratio, best = 1.0, space.rule()
    for _, _, decisions in sorted(times)[:FINAL]:
        if decisions:
            found = duel(measurer, task.kernel, decisions, {}, threads)
            if found < ratio and not measurer.check(task.kernel, decisions):
                ratio, best = found, dict(decisions)
    return Row(task.label, share, len(every), len(times), rule_s, 1 / ratio, best)


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    lines = ["| " + " | ".join(HEADER) + " |", "|" + "---|" * len(HEADER)]
    return "\n".join([*lines, *("| " + " | ".join(row.cells) + " |" for row in rows)])


def main() -> None:
    """Search the costliest kernels of a model."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--target", default="host")
    parser.add_argument("--kernels", type=int, default=5, help="how many, the costliest first")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--most", type=int, default=2000, help="schedules of one kernel")
    parser.add_argument("-O", dest="level", type=int, default=2)
    args = parser.parse_args()
    target = resolve(args.target)
    found, whole_s = chosen(args.model, target, args.threads, args.level)
    rows = []
    with Measurer(target) as measurer:
        for task in found[: args.kernels]:
            share = task.seconds / whole_s
            rows.append(search(measurer, task, share, args.threads, args.most))
            print(" | ".join(rows[-1].cells), flush=True)
    print(f"\n{table(rows)}")
    near = sum(row.gain <= WITHIN for row in rows)
    print(f"\nthe rule is within {WITHIN - 1:.0%} of the best for {near} of {len(rows)} kernels")


if __name__ == "__main__":
    main()
