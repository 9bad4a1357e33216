"""Where the time of a run goes: the steps of an artifact, timed by its own runtime.

Runs that are timed step by step alternate with plain ones, and each comes right after a run that
does not count, so that both find the same caches and threads awake. A step's time is from the
end of the step before it, so nothing between steps is lost. Reading the clock after every step
breaks up what a plain run overlaps: by how much timed runs are longer than plain ones is taken off
again, in equal parts of every call, as far as a clock can be to blame.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from edgec.arrays import Array
from edgec.peaks import Peaks
from edgec.profilereport import Profile, StepTime
from edgec.roofline import Bounds, bounds
from edgec.runtime.load import Module, load

MOST_CLOCK_S = 100e-9
"""No clock takes longer to read: a timed run that is longer still is so for other reasons."""


def profile(
    artifact: str | os.PathLike[str],
    inputs: Mapping[str, Array],
    *,
    threads: int = 0,
    spin_us: int | None = None,
    runs: int = 100,
    peaks: Peaks | None = None,
) -> Profile:
    """Time every step of `artifact` on `inputs`: medians over `runs` timed and as many plain runs.

    `threads` and `spin_us` are as in `edgec.runtime.load`; `peaks` are those of the machine, for as
    many threads; without them no step has bounds.

    Raises:
        ArtifactError, DataError, DeviceError: as `edgec.runtime.load` does.
    """
    with load(artifact, threads=threads, spin_us=spin_us) as module:
        facts = next(v for v in module.manifest["variants"] if v["id"] == module.variant)
        timed, plain = _times(module, inputs, runs)
        rows = [
            (row, median(times) * 1e-9)
            for row, times in zip(_rows(facts["steps"]), zip(*timed, strict=True), strict=True)
            if "kernel" in row[0]
        ]
        made = sum(calls for (_, calls), seconds in rows if seconds)
        whole = median(map(sum, timed)) * 1e-9
        clock = clock_s(whole, median(plain), made)
        held = _bounds([step for (step, _), _ in rows], peaks)
        steps = tuple(
            _step(step, calls, max(seconds - calls * clock, seconds / 2), bound)
            for ((step, calls), seconds), bound in zip(rows, held, strict=True)
        )
        return Profile(
            model=module.manifest["name"],
            variant=module.variant,
            threads=module.threads,
            runs=runs,
            steps=steps,
            steps_s=whole - made * clock,
            run_s=median(plain),
            clock_s=clock,
            peaks=peaks,
        )


def clock_s(timed_s: float, plain_s: float, calls: int) -> float:
    """What reading the clock adds to each of the `calls` of a run, by how long a timed one takes
    and a plain one."""
    return min(max(timed_s - plain_s, 0.0) / max(calls, 1), MOST_CLOCK_S)


def _times(
    module: Module, inputs: Mapping[str, Array], runs: int
) -> tuple[list[list[int]], list[float]]:
    """Of every timed run, the nanoseconds of each step; of every plain run, its seconds."""
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
    return timed, plain


def _bounds(calls: Sequence[Mapping[str, Any]], peaks: Peaks | None) -> Sequence[Bounds | None]:
    """What bounds each call; None where there are no peaks, or an old manifest does not say."""
    if peaks is None or any("touches" not in call for call in calls):
        return [None] * len(calls)
    return bounds(calls, peaks)


def _step(step: Mapping[str, Any], calls: int, seconds: float, bound: Bounds | None) -> StepTime:
    nbytes = sum(touched for _, _, touched in step["touches"]) if "touches" in step else None
    nodes = tuple(step["nodes"])
    return StepTime(step["kernel"], nodes, calls, step.get("macs", 0), seconds, nbytes, bound)


def _rows(
    steps: Sequence[Mapping[str, Any]], calls: int = 1
) -> Iterator[tuple[Mapping[str, Any], int]]:
    """Every step of a manifest before those inside it, and how often a run executes it at most."""
    for step in steps:
        yield step, calls
        for key in ("body", "then", "else"):
            yield from _rows(step.get(key, ()), calls * step.get("repeat", 1))
