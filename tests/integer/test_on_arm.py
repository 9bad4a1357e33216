"""Quantized models on Arm, under QEMU: the bits that ONNX Runtime makes of their integer graphs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgec.program import Tensor
from edgec.qdq.meaning import meaning_of
from edgec.reference import reference
from integer.contract import Scaled
from integer.models import Model

Edgec = Callable[..., Any]
ROOT = Path(__file__).parents[2]
KWS = ROOT.parent / "shared/models/mlperf_tiny_kws_int8_qdq.onnx"
TARGETS = ("rpi4", "rpi5", "armv7", "jetson")


@pytest.fixture(autouse=True)
def qemu() -> None:
    if not all(map(shutil.which, ("qemu-aarch64", "qemu-arm"))):
        pytest.skip("QEMU's user mode is not installed")


def judge(
    edgec: Edgec, model: Path, spec: Tensor, target: str, data: np.ndarray, folder: Path
) -> None:
    """Compile `model`, run it on `data` under QEMU, and compare."""
    artifact, given = folder / "model.edgec", folder / "given.npz"
    made = edgec("compile", model, "--target", target, "-o", artifact, "--json")
    assert made.code == 0, made.err
    np.savez(given, **{spec.name: data[None]})
    assert edgec("run", artifact, "--on", "qemu", "--input", given, "--output", folder).code == 0
    for name, expected in reference(meaning_of(model, [spec]), {spec.name: data}).items():
        found = np.load(folder / f"{name.replace('/', '_').replace(':', '_')}.npy")
        np.testing.assert_array_equal(found.reshape(expected.shape), expected)


@pytest.mark.skipif(not KWS.is_file(), reason="shared/models is absent")
@pytest.mark.parametrize("target", TARGETS)
def test_a_keyword_model(target: str, edgec: Edgec, tmp_path: Path) -> None:
    spec = Tensor("input_1", "int8", (1, 49, 10, 1))
    data = np.random.default_rng(7).integers(-128, 128, spec.shape).astype(np.int8)
    judge(edgec, KWS, spec, target, data, tmp_path)


def quantized(edgec: Edgec, model: Path, spec: Tensor, folder: Path) -> tuple[Path, np.ndarray]:
    """The model as `edgec quantize` makes it of random samples, and one of these."""
    samples = np.random.default_rng(3).random((4, *spec.shape), np.float32)
    np.savez(folder / "samples.npz", **{spec.name: samples})
    made = folder / "quantized.onnx"
    words = [f"--shape={spec.name}={'x'.join(map(str, spec.shape))}", "-o", made]
    assert edgec("quantize", model, "--calib", folder / "samples.npz", *words).code == 0
    return made, samples[0]


@pytest.mark.parametrize("target", TARGETS)
def test_a_model_quantized_here(target: str, digits: Path, edgec: Edgec, tmp_path: Path) -> None:
    spec = Tensor("image", "float32", (1, 1, 8, 8))
    model, data = quantized(edgec, digits, spec, tmp_path)
    judge(edgec, model, spec, target, data, tmp_path)


@pytest.mark.parametrize("target", TARGETS)
def test_operators(target: str, edgec: Edgec, tmp_path: Path) -> None:
    """Those of two tensors and of rows, zero points at both ends."""
    model, spec = Model((1, 3, 40)), Tensor("x", "float32", (1, 3, 40))
    left = model.through("x", Scaled(0.02, -128, "int8"))
    right = model.through(model.node("Neg", "x"), Scaled(0.03, 255))
    to = Scaled(0.04, 127, "int8")
    made = [model.through(model.node(op, left, right), to) for op in ("Add", "Sub", "Mul")]
    made.append(model.through(model.node("Softmax", left), Scaled(1 / 256, -128, "int8")))
    gain, bias = (model.constant(np.linspace(-1, 2, 40), "float32") for _ in range(2))
    made.append(model.through(model.node("LayerNormalization", right, gain, bias), to))
    proto = model.proto(made[0], spec.shape, **dict.fromkeys(made[1:], spec.shape))
    onnx.save(proto, tmp_path / "operators.onnx")
    data = np.random.default_rng(1).uniform(-4, 4, spec.shape).astype(np.float32)
    judge(edgec, tmp_path / "operators.onnx", spec, target, data, tmp_path)


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18"])
@pytest.mark.parametrize("target", TARGETS)
def test_large_models(target: str, name: str, edgec: Edgec, tmp_path: Path) -> None:
    model = ROOT / f"models/cache/{name}.onnx"
    if not model.is_file():
        pytest.skip(f"{model} is not built")
    spec = Tensor(onnx.load(model).graph.input[0].name, "float32", (1, 3, 224, 224))
    model, data = quantized(edgec, model, spec, tmp_path)
    judge(edgec, model, spec, target, data, tmp_path)
