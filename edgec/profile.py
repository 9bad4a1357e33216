"""Where the time of a run goes: the steps of an artifact, timed by its own runtime.

Runs that are timed step by step alternate with plain ones, and each comes right after a run that
does not count, so that both find the same caches and threads awake. A step's time is from the
end of the step before it, so nothing between steps is lost.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from edgec.arrays import Array
from edgec.report import duration, table
from edgec.runtime.load import Module, load

NAME_SHOWN = 48
"""Characters of a kernel's name, or of its nodes' together, in the table."""


@dataclass(frozen=True)
class StepTime:
    """One kernel call of the plan.

    `nodes` are the ONNX nodes it computes, `calls` is how often a run executes it at most (more
    than once inside of `repeat`), `macs` the multiply-accumulates of one call, 0 where they are not
    known, `seconds` the median over all runs of the time of all its calls.
    """

    kernel: str
    nodes: tuple[str, ...]
    calls: int
    macs: int
    seconds: float

    @property
    def gflops(self) -> float | None:
        """Billions of floating-point operations a second, a multiply-accumulate being two."""
        return 2e-9 * self.macs * self.calls / self.seconds if self.macs and self.seconds else None


@dataclass(frozen=True)
class Profile:
    """The steps in the order of the plan, and medians over all runs.

    `steps_s` is the time of all steps of a timed run, `run_s` that of a plain run, as Python sees
    it.
    """

    variant: str
    threads: int
    runs: int
    steps: tuple[StepTime, ...]
    steps_s: float
    run_s: float

    @property
    def ratio(self) -> float:
        """What the steps account for of a plain run: 1 where nothing is lost or added."""
        return self.steps_s / self.run_s

    def to_dict(self) -> dict[str, Any]:
        """For JSON; times in microseconds."""
        steps = []
        for step in self.steps:
            facts = asdict(step)
            seconds = facts.pop("seconds")
            facts |= {"us": seconds * 1e6, "share": seconds / self.steps_s, "gflops": step.gflops}
            steps.append(facts)
        return {
            "variant": self.variant,
            "threads": self.threads,
            "runs": self.runs,
            "steps": steps,
            "steps_us": self.steps_s * 1e6,
            "run_us": self.run_s * 1e6,
            "ratio": self.ratio,
        }

    def table(self) -> str:
        """The steps that took time, the longest first, and how they add up."""
        rows = [
            (
                _shortened(step.kernel),
                str(step.calls),
                duration(step.seconds),
                f"{100 * step.seconds / self.steps_s:.1f} %",
                "" if step.gflops is None else f"{step.gflops:.1f}",
                _shortened(", ".join(step.nodes)),
            )
            for step in sorted(self.steps, key=lambda step: -step.seconds)
            if step.seconds
        ]
        return "\n".join(
            [
                table(("kernel", "calls", "median", "share", "GFLOP/s", "nodes"), rows),
                "",
                f"{self.runs} runs, {self.threads} threads: the steps take "
                f"{duration(self.steps_s)}, a plain run {duration(self.run_s)} "
                f"(ratio {self.ratio:.2f})",
            ]
        )


def profile(
    artifact: str | os.PathLike[str],
    inputs: Mapping[str, Array],
    *,
    threads: int = 0,
    spin_us: int | None = None,
    runs: int = 100,
) -> Profile:
    """Time every step of `artifact` on `inputs`: medians over `runs` timed and as many plain runs.

    `threads` and `spin_us` are as in `edgec.runtime.load`.

    Raises:
        ArtifactError, DataError, DeviceError: as `edgec.runtime.load` does.
    """
    with load(artifact, threads=threads, spin_us=spin_us) as module:
        return _profile(module, inputs, runs)


def _profile(module: Module, inputs: Mapping[str, Array], runs: int) -> Profile:
    bound = module.bind(inputs)
    for _ in range(max(3, runs // 10)):
        bound()
        bound.profile()
    timed: list[list[int]] = []
    plain: list[float] = []
    for _ in range(runs):
        bound()
        started = time.perf_counter()
        bound()
        plain.append(time.perf_counter() - started)
        bound()
        timed.append(bound.profile())
    facts = next(v for v in module.manifest["variants"] if v["id"] == module.variant)
    steps = tuple(
        StepTime(
            step["kernel"],
            tuple(step["nodes"]),
            calls,
            step.get("macs", 0),
            median(times) * 1e-9,
        )
        for (step, calls), times in zip(
            _rows(facts["steps"]), zip(*timed, strict=True), strict=True
        )
        if "kernel" in step
    )
    total = median(sum(times) for times in timed) * 1e-9
    return Profile(module.variant, module.threads, runs, steps, total, median(plain))


def _rows(
    steps: Sequence[Mapping[str, Any]], calls: int = 1
) -> Iterator[tuple[Mapping[str, Any], int]]:
    """Every step of a manifest before those inside it, and how often a run executes it at most."""
    for step in steps:
        yield step, calls
        for key in ("body", "then", "else"):
            yield from _rows(step.get(key, ()), calls * step.get("repeat", 1))


def _shortened(text: str) -> str:
    return text if len(text) <= NAME_SHOWN else text[: NAME_SHOWN - 3] + "..."
