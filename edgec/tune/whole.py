"""The whole model: where its time goes before tuning, and what tuning made of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edgec import protocol
from edgec.data import Sample, index_limits, open_data
from edgec.lower.extract import Lowered
from edgec.peers import EngineProcess
from edgec.plan import Plan
from edgec.profile import profile
from edgec.program import Call, Repeat, Select, Step
from edgec.reference import read_model
from edgec.runtime.load import load
from edgec.tune.measure import Kernel, Measurer

OnEvent = Callable[[dict[str, Any]], None]


def kernel_seconds(artifact: Path, sample: Sample, threads: int) -> dict[str, float]:
    """Seconds of a run that the calls of each kernel take, by the name that steps call."""
    seconds: dict[str, float] = defaultdict(float)
    for step in profile(artifact, sample, threads=threads).steps:
        seconds[step.kernel] += step.seconds
    return dict(seconds)


def kernel_seconds_on(
    measurer: Measurer, lowered: Lowered, plan: Plan, threads: int
) -> dict[str, float]:
    """The same on boards that run single kernels only: each is measured by itself."""
    seconds: dict[str, float] = {}
    for name, (call, times) in _calls(plan.program.steps, 1, {}).items():
        kernel = Kernel.of(call, lowered, plan)
        for _, measured in measurer.measure(kernel, [{}], threads):
            seconds[name] = 0.0 if measured.error else times * measured.seconds
    return seconds


def _calls(
    steps: Sequence[Step], times: int, found: dict[str, tuple[Call, int]]
) -> dict[str, tuple[Call, int]]:
    """By name of the kernel, a call of it and how many there are in a run at most."""
    for step in steps:
        match step:
            case Call():
                found[step.kernel] = step, times + found.get(step.kernel, (step, 0))[1]
            case Repeat():
                _calls(step.body, times * step.times, found)
            case Select():
                _calls((*step.then, *step.otherwise), times, found)
    return found


def random_sample(artifact: Path, model: Path) -> Sample:
    """Inputs of an artifact of `model`, random ones."""
    with load(artifact) as module:
        limits = index_limits(read_model(model))
        sample: Sample = next(iter(open_data(module.inputs, ["random"], limits=limits)))
        return sample


def alternate(
    before: Path, after: Path, sample: Sample, threads: int, on_event: OnEvent
) -> tuple[protocol.Times, protocol.Times]:
    """Times of two artifacts on `sample`, in bursts that alternate between a process of each.

    Raises:
        EngineError: one of them fails.
    """
    with EngineProcess("edgec") as first, EngineProcess("edgec") as second:
        for process, artifact in ((first, before), (second, after)):
            process.load(artifact, threads)
            process.run(sample)
            process.bind(sample)
            process.stop()
        old, new = protocol.alternate(
            [first, second],
            on_round=lambda done, rounds: on_event(
                {"event": "round", "done": done, "rounds": rounds}
            ),
        )
    return old, new
