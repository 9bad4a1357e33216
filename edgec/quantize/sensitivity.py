"""How much each layer alone, quantized, changes what a model gives."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import onnx

from edgec.arrays import Array, is_float
from edgec.cache import Cache, key_of, tool_digest
from edgec.data import Sample
from edgec.errors import DataError, ModelError
from edgec.external import save_model
from edgec.peers import PEERS, EngineError, EngineProcess
from edgec.quantize.reader import bytes_of

Outputs = Sequence[Mapping[str, Array]]
"""Of a model, by name, for each sample."""
Compare = Callable[[Outputs, Outputs], float]

ENGINE = "onnxruntime"
"""Of `edgec.peers`, which runs the models."""
SAMPLES = 8
"""That sensitivity is measured with."""
LIMIT_S = 300.0
"""For ONNX Runtime to load a model, and for each run: a foreign model may loop for ever."""


class Runner:
    """ONNX Runtime, for one model after the other; a context manager."""

    def __init__(self, threads: int = 0) -> None:
        self._threads = threads
        self._folder = tempfile.TemporaryDirectory(prefix="edgec-")
        self._engine = EngineProcess(ENGINE, LIMIT_S)

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
    cache: Cache,
    on_layer: Callable[[int], None] = lambda done: None,
) -> dict[str, dict[str, float]]:
    """By layer and rung, the error of the model's outputs, in squares, as a share of the outputs'.

    `alone` is the model in which one layer is on a rung and all others are floats, `plain` the one
    in which all are; `on_layer` hears after each layer how many are measured. What was measured
    before is taken from `cache`, so that a run goes on where an earlier one was interrupted.
    """
    compared = Compared(runner, plain, samples, cache)
    found: dict[str, dict[str, float]] = {}
    for done, layer in enumerate(layers, 1):
        found[layer] = {}
        for rung in rungs:
            found[layer][rung] = compared(
                "noise", alone(layer, rung), lambda *pair: sum(noise(*pair).values())
            )
        on_layer(done)
    return found


class Compared:
    """What models give for `samples`, compared with what `plain` gives: numbers from `cache` where
    the same ONNX Runtime compared the same model before."""

    def __init__(
        self, runner: Runner, plain: onnx.ModelProto, samples: Sequence[Sample], cache: Cache
    ) -> None:
        self.wanted = outputs(runner, plain, samples)
        self._runner, self._samples, self._cache = runner, samples, cache
        tools = tool_digest("quantize"), PEERS[ENGINE].version()
        self._of = key_of(*tools, _digest(plain), *map(bytes_of, samples))

    def __call__(self, how: str, model: onnx.ModelProto, compare: Compare) -> float:
        """What `compare` makes of the wanted and the given outputs; `how` names it."""
        return self._cache.number(
            "drops",
            key_of(self._of, how, _digest(model)),
            lambda: compare(self.wanted, outputs(self._runner, model, self._samples)),
        )


def _digest(model: onnx.ModelProto) -> bytes:
    return hashlib.sha256(model.SerializeToString(deterministic=True)).digest()


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
