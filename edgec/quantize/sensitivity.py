"""How much each layer's quantization alone changes what a model gives."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Layer:
    """A product that may be in integers.

    `noise` is the error of the model's outputs where it alone is, in squares, as a share of the
    outputs'; `cost` is what it takes longer in floats, in whatever unit.
    """

    name: str
    noise: float
    cost: float

    @property
    def gain(self) -> float:
        """Error that leaves with the layer's quantization, for what that costs."""
        return self.noise / max(self.cost, 1.0)


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


def rank(
    runner: Runner,
    costs: Mapping[str, float],
    alone: Callable[[str], onnx.ModelProto],
    plain: onnx.ModelProto,
    samples: Sequence[Sample],
    on_layer: Callable[[int], None] = lambda done: None,
) -> list[Layer]:
    """The layers of `costs`, those first whose quantization does most harm for what it saves.

    `alone` is the model in which one layer is quantized, `plain` the one in which none is;
    `on_layer` hears after each layer how many are measured.
    """
    wanted = outputs(runner, plain, samples)
    layers = []
    for done, (name, cost) in enumerate(costs.items(), 1):
        given = outputs(runner, alone(name), samples)
        layers.append(Layer(name, sum(noise(wanted, given).values()), cost))
        on_layer(done)
    return sorted(layers, key=lambda layer: -layer.gain)


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
