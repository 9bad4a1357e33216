"""The whole way on a real GPU: `make test-gpu`. Skipped where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgec import load, targets
from edgec.compiler import compile_model
from edgec.data import open_data
from edgec.emit.cuda_nvrtc import has_tf32
from edgec.gpus import Gpu, local_gpus
from edgec.graph import load as load_graph
from edgec.options import Options
from edgec.passes import PASSES
from edgec.quantize.quantizer import quantize_model
from edgec.reference import reference
from edgec.rewrite import optimize, parse

from .conftest import ROOT

MODELS = [
    *sorted((ROOT / "models").glob("*.onnx")),
    *sorted((ROOT / "models" / "cache").glob("*.onnx")),
]
HALF_TOLERANCE = 0.03
"""Of the largest value of an output, between float16 and float32."""


@pytest.fixture(scope="module")
def gpu() -> Gpu:
    """The first GPU of this machine."""
    if not local_gpus():
        pytest.skip("NO NVIDIA GPU HERE: nothing of this was run")
    return local_gpus()[0]


def target_of(gpu: Gpu) -> str:
    """The target for `gpu`, or the newest that it can run."""
    named = [n for n in targets.names() if n.startswith("cuda-sm_")]
    fitting = [
        n for n in named if gpu.runs(targets.resolve(n)) and targets.runs_here(targets.resolve(n))
    ]
    if not fitting:
        pytest.skip(f"no target for {gpu.name} ({gpu.arch}) on this processor")
    return max(fitting, key=lambda name: int(name.removeprefix("cuda-sm_")))


def inputs_of(module: Any) -> dict[str, np.ndarray[Any, Any]]:
    return dict(next(iter(open_data(module.inputs, ["random"], seed=7))))


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_verified_on_the_device(path: Path, gpu: Gpu, tmp_path: Path) -> None:
    artifact = tmp_path / "model.edgec"
    result = compile_model(path, artifact, Options(targets=(target_of(gpu),)), reuse=False)
    [variant] = result.manifest["variants"]
    assert variant["verified"] == "device"
    with load(artifact, device=1) as module:
        assert gpu.arch in module.device


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_tf32(path: Path, gpu: Gpu, tmp_path: Path) -> None:
    target = target_of(gpu)
    if not has_tf32(targets.resolve(target)):
        pytest.skip(f"no TF32 on {gpu.arch}")
    options = Options(targets=(target,), tf32=True)
    [variant] = compile_model(path, tmp_path / "m.edgec", options).manifest["variants"]
    assert variant["verified"] == "device"


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_half_precision(path: Path, gpu: Gpu, tmp_path: Path) -> None:
    graph = load_graph(path)
    optimize(graph, parse("convert-to-float16", PASSES))
    try:
        made = compile_model(
            graph.to_onnx(), tmp_path / "half.edgec", Options(targets=(target_of(gpu),))
        )
    except Exception as error:
        pytest.skip(f"not compiled in float16: {error}")
    with load(made.path, device=1) as module:
        sample = inputs_of(module)
        actual = module.run(sample)
    for name, wanted in reference(path, sample).items():
        scale = float(np.abs(wanted).max(initial=0.0)) or 1.0
        assert np.abs(actual[name] - wanted).max(initial=0.0) <= HALF_TOLERANCE * scale


def test_integers_are_exact(gpu: Gpu, tmp_path: Path) -> None:
    artifact = tmp_path / "bytes.edgec"
    model = quantize_model(ROOT / "models" / "digits_cnn.onnx", ["random"]).model
    compile_model(model, artifact, Options(targets=(target_of(gpu),)))
    with load(artifact, device=1) as on_gpu, load(artifact, device=-1) as on_cpu:
        sample = inputs_of(on_gpu)
        np.testing.assert_array_equal(on_gpu.run(sample)["logits"], on_cpu.run(sample)["logits"])


def test_runs_repeat_and_devices_agree(gpu: Gpu, tmp_path: Path) -> None:
    artifact = tmp_path / "digits.edgec"
    model = ROOT / "models" / "digits_cnn.onnx"
    compile_model(model, artifact, Options(targets=(target_of(gpu),)))
    with load(artifact, device=1) as on_gpu, load(artifact, device=-1) as on_cpu:
        sample = inputs_of(on_gpu)
        first, *others = (on_gpu.run(sample)["logits"] for _ in range(20))
        for other in others:
            np.testing.assert_array_equal(first, other)
        np.testing.assert_allclose(first, on_cpu.run(sample)["logits"], rtol=1e-4, atol=1e-4)
