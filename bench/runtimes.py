"""How fast ONNX Runtime runs one file beside others, by the protocol of `edgec bench`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

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
    threads = [_better_threads(file, sample) for file in files]
    found = []
    for _ in range(starts):
        with contextlib.ExitStack() as stack:
            engines = [
                _started(stack.enter_context, file, count, sample)
                for file, count in zip([*files, files[0]], [*threads, threads[0]], strict=True)
            ]
            own, *others, twin = protocol.alternate(engines, calls)
        fastest = min(others, key=lambda times: times.median)
        found.append(Comparison(protocol.Ratio.of(own, fastest), protocol.Ratio.of(twin, own)))
    return sorted(found, key=lambda each: each.ratio.value)[len(found) // 2]


def _started(
    keep: Callable[[EngineProcess], EngineProcess], file: Path, threads: int, sample: Sample
) -> EngineProcess:
    process = keep(EngineProcess(ENGINE))
    facts = process.load(file, threads)
    inputs = {name: sample[name] for name in facts["inputs"]}
    process.run(inputs)
    process.bind(inputs)
    process.stop()
    return process


def _better_threads(file: Path, sample: Sample) -> int:
    """The number of threads with the lower median of a few bursts."""

    def seconds(count: int) -> float:
        with contextlib.ExitStack() as stack:
            process = _started(stack.enter_context, file, count, sample)
            process.resume()
            return min(median(protocol.burst(process)) for _ in range(3))

    return min(THREADS, key=seconds)
