"""How fast ONNX Runtime runs one file beside others, by the protocol of `edgec bench`."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgec import protocol
from edgec.data import Sample, index_limits, open_data
from edgec.graph import load
from edgec.peers import EngineProcess
from edgec.verify import static_inputs

ENGINE = "onnxruntime"
THREADS = (1, 2)


@dataclass(frozen=True)
class Comparison:
    """Time of the first file over that of the fastest other, and over that of itself (A/A)."""

    ratio: protocol.Ratio
    aa: protocol.Ratio


def sample_of(source: Path, dims: Mapping[str, int]) -> Sample:
    """Random inputs for a model, whose symbolic dimensions have the sizes `dims`."""
    bound = load(source, dims=dims).to_onnx()
    return next(iter(open_data(static_inputs(bound), ["random"], limits=index_limits(bound))))


def compare(files: Sequence[Path], sample: Sample, calls: int, starts: int) -> Comparison:
    """The first of `files` beside the others; each with its better number of threads.

    Processes are started `starts` times, since where memory lies differs from one to the next; the
    start whose ratio is the median speaks for all.
    """
    found = sorted(
        (_compare(files, sample, calls) for _ in range(starts)), key=lambda each: each.ratio.value
    )
    return found[len(found) // 2]


def _compare(files: Sequence[Path], sample: Sample, calls: int) -> Comparison:
    by_threads = []
    for count in THREADS:
        with contextlib.ExitStack() as stack:
            engines = [_started(stack, file, count, sample) for file in (*files, files[0])]
            by_threads.append(protocol.alternate(engines, calls))
    own, *others, twin = (
        min(times, key=lambda each: each.median) for times in zip(*by_threads, strict=True)
    )
    fastest = min(others, key=lambda each: each.median)
    return Comparison(protocol.Ratio.of(own, fastest), protocol.Ratio.of(twin, own))


def _started(
    stack: contextlib.ExitStack, file: Path, threads: int, sample: Sample
) -> EngineProcess:
    process = stack.enter_context(EngineProcess(ENGINE))
    facts = process.load(file, threads)
    inputs = {name: sample[name] for name in facts["inputs"]}
    process.run(inputs)
    process.bind(inputs)
    process.stop()
    return process
