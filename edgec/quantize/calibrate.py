"""Calibration: the ranges of a model's tensors on the user's data.

ONNX Runtime runs the model, in a process of its own, on one sample at a time; what is kept of each
tensor does not grow with their number.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import onnx_graphsurgeon as gs

from edgec.data import Sample
from edgec.errors import DataError, ModelError
from edgec.external import save_model
from edgec.graph import Graph
from edgec.onnx_io import value_info
from edgec.peers import EngineError, EngineProcess
from edgec.program import Tensor
from edgec.quantize.statistics import Histogram, Statistics

FEW_SAMPLES = 8
"""Fewer samples than this are worth a note."""

LIMIT_S = 300.0
"""For ONNX Runtime to load the model, and for each run: a foreign model may loop for ever."""


def input_specs(graph: Graph) -> list[Tensor]:
    """The inputs of `graph` with one size for each dimension: 1 for a symbolic batch, which is the
    first dimension of some input.

    Raises ModelError for another dimension without a size.
    """
    specs = []
    batches = {t.shape[0] for t in graph.gs.inputs if t.shape and isinstance(t.shape[0], str)}
    for tensor in graph.gs.inputs:
        if tensor.dtype is None or tensor.shape is None or tensor.dtype.kind in "OUS":
            raise ModelError("it is no tensor of numbers", where=f"input '{tensor.name}'")
        sizes = [
            1 if d in batches or (i == 0 and d is None) else d for i, d in enumerate(tensor.shape)
        ]
        if not all(isinstance(size, int) for size in sizes):
            shape = ", ".join(map(str, tensor.shape))
            raise ModelError(
                f"its shape [{shape}] is not static",
                where=f"input '{tensor.name}'",
                hint="give sizes to calibrate with: --dim NAME=SIZE or --shape INPUT=1x3x224x224",
            )
        specs.append(Tensor(tensor.name, tensor.dtype.name, tuple(sizes)))
    return specs


def calibrate(
    graph: Graph,
    tensors: Sequence[gs.Tensor],
    samples: Iterable[Sample],
    on_sample: Callable[[int], None] = lambda count: None,
    *,
    histograms: bool = False,
) -> dict[str, Statistics]:
    """What the values of `tensors`, by name, are like on all `samples`.

    `on_sample` hears after each how many there were. Raises DataError for bad samples, and where
    ONNX Runtime cannot run the model on one.
    """
    found = {
        tensor.name: Statistics(histogram=Histogram() if histograms else None) for tensor in tensors
    }
    with Run(graph, tensors) as run:
        for count, sample in enumerate(samples, 1):
            values = run(sample)
            for name, statistics in found.items():
                statistics.add(values[name])
            on_sample(count)
    return found


class Run:
    """ONNX Runtime on `graph`, for the values of some of its tensors; a context manager."""

    def __init__(self, graph: Graph, tensors: Sequence[gs.Tensor], threads: int = 0) -> None:
        model = graph.to_onnx()
        del model.graph.output[:]
        inputs = {value.name for value in model.graph.input}
        self._given = [t.name for t in tensors if t.name in inputs]
        model.graph.output.extend(value_info(t) for t in tensors if t.name not in inputs)
        self._made = [output.name for output in model.graph.output]
        self._folder = tempfile.TemporaryDirectory(prefix="edgec-")
        self._engine = EngineProcess("onnxruntime", LIMIT_S)
        try:
            path = Path(self._folder.name) / "model.onnx"
            save_model(model, path, external=graph.external_data)
            self._engine.load(path, threads=threads)
        except BaseException as error:
            self.close()
            if isinstance(error, EngineError):
                raise ModelError(f"ONNX Runtime cannot load the model: {error.what}") from error
            raise

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __call__(self, sample: Sample) -> Sample:
        """The values of the tensors by name."""
        try:
            made = self._engine.run(sample) if self._made else {}
        except EngineError as error:
            raise DataError(f"ONNX Runtime cannot run the model: {error.what}") from error
        return made | {name: sample[name] for name in self._given}

    def close(self) -> None:
        """End the process and remove the model."""
        self._engine.close()
        self._folder.cleanup()
