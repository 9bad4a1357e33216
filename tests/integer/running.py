"""Runs quantized models as modules."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx

from edgec.cache import Cache
from edgec.compiler import compile_model
from edgec.options import Options
from edgec.runtime.load import load


def outputs(
    model: onnx.ModelProto,
    feeds: Mapping[str, np.ndarray],
    name: str,
    cache: Path,
    threads: int = 1,
    share: float | None = None,
) -> np.ndarray:
    """The one output of `model`, compiled for the target `name`; `share` is what of its
    multiply-adds has to be in integers, where that matters."""
    artifact = cache / "model.edgec"
    made = compile_model(model, artifact, Options(targets=(name,)), cache=Cache(cache))
    if share is not None:
        (variant,) = made.manifest["variants"]
        assert variant["integers"] == share
    with load(artifact, threads=threads) as module:
        (result,) = module.run(feeds).values()
        return result.copy()


def all_outputs(
    model: onnx.ModelProto, feeds: Mapping[str, np.ndarray], name: str, cache: Path, threads: int
) -> dict[str, np.ndarray]:
    """The outputs of `model`, compiled for the target `name`."""
    artifact = cache / "model.edgec"
    compile_model(model, artifact, Options(targets=(name,)), cache=Cache(cache))
    with load(artifact, threads=threads) as module:
        return {key: value.copy() for key, value in module.run(feeds).items()}
