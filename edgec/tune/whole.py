"""The whole model: where its time goes before tuning, and what tuning made of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgec import protocol
from edgec.data import Sample, index_limits, open_data
from edgec.peers import EngineProcess
from edgec.profile import profile
from edgec.runtime.load import load
from edgec.verify import read_model

OnEvent = Callable[[dict[str, Any]], None]


def kernel_seconds(artifact: Path, sample: Sample, threads: int) -> dict[str, float]:
    """Seconds of a run that the calls of each kernel take, by the name that steps call."""
    seconds: dict[str, float] = defaultdict(float)
    for step in profile(artifact, sample, threads=threads).steps:
        seconds[step.kernel] += step.seconds
    return dict(seconds)


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
