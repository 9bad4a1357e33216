"""How much each layer alone, quantized, changes what a model gives."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import onnx

from edgec.arrays import Array, is_float
from edgec.data import Sample
from edgec.errors import DataError, ModelError
from edgec.external import save_model
from edgec.peers import EngineError, EngineProcess

SAMPLES = 8
"""That sensitivity is measured with."""
LIMIT_S = 300.0
"""For ONNX Runtime to load a model, and for each run: a foreign model may loop for ever."""


class Runner:
    """ONNX Runtime, for one model after the other; a context manager."""

    def __init__(self, threads: int = 0) -> None:
        self._threads = threads
        self._folder = tempfile.TemporaryDirectory(prefix="edgec-")
        self._engine = EngineProcess("onnxruntime", LIMIT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._engine.close()
        self._folder.cleanup()

    def load(self, model: onnx.ModelProto) -> None:
        """Run `model` from now on. Raises ModelError where that cannot be."""
        path = Path(self._folder.name) / "model.onnx"
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        save_model(copy, path)
        try:
            self._engine.load(path, threads=self._threads, optimize=False)
        except EngineError as error:
            raise ModelError(f"ONNX Runtime cannot load the model: {error.what}") from error

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs by name. Raises DataError where the model cannot run."""
        try:
            return self._engine.run(inputs)
        except EngineError as error:
            raise DataError(f"ONNX Runtime cannot run the model: {error.what}") from error


def noises(
    runner: Runner,
    layers: Sequence[str],
    rungs: Sequence[str],
    alone: Callable[[str, str], onnx.ModelProto],
    plain: onnx.ModelProto,
    samples: Sequence[Sample],
    on_layer: Callable[[int], None] = lambda done: None,
) -> dict[str, dict[str, float]]:
    """By layer and rung, the error of the model's outputs, in squares, as a share of the outputs'.

    `alone` is the model in which one layer is on a rung and all others are floats, `plain` the one
    in which all are; `on_layer` hears after each layer how many are measured.
    """
    wanted = outputs(runner, plain, samples)
    found: dict[str, dict[str, float]] = {}
    for done, layer in enumerate(layers, 1):
        found[layer] = {}
        for rung in rungs:
            given = outputs(runner, alone(layer, rung), samples)
            found[layer][rung] = sum(noise(wanted, given).values())
        on_layer(done)
    return found


def outputs(
    runner: Runner, model: onnx.ModelProto, samples: Iterable[Sample]
) -> list[dict[str, Array]]:
    """What `model` gives for each sample."""
    runner.load(model)
    return [runner(sample) for sample in samples]


def noise(
    wanted: Iterable[Mapping[str, Array]], given: Iterable[Mapping[str, Array]]
) -> dict[str, float]:
    """By output of floats, the share of the error in it, in squares; what changes its shape from
    run to run is left out."""
    sums: dict[str, tuple[float, float]] = {}
    for left, right in zip(wanted, given, strict=True):
        for name, array in left.items():
            if is_float(array.dtype) and right[name].shape == array.shape:
                a, b = array.astype(np.float64), right[name].astype(np.float64)
                finite = np.isfinite(a) & np.isfinite(b)
                signal, error = (float(np.square(v[finite]).sum()) for v in (a, b - a))
                before = sums.get(name, (0.0, 0.0))
                sums[name] = before[0] + signal, before[1] + error
    return {name: error / signal for name, (signal, error) in sums.items() if signal > 0}
