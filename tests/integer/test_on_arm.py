"""Quantized models on Arm, under QEMU: the bits that ONNX Runtime makes of their integer graphs."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgec.data import Sample, index_limits, open_data
from edgec.graph import load
from edgec.lower.lowering import signature
from edgec.program import Tensor
from edgec.qdq.meaning import meaning_of
from edgec.reference import reference
from integer.contract import Scaled
from integer.models import Model

Edgec = Callable[..., Any]
ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "bench"))

from corpus import models  # noqa: E402

KWS = ROOT.parent / "shared/models/mlperf_tiny_kws_int8_qdq.onnx"
TARGETS = ("rpi4", "rpi5", "armv7", "jetson")
ZOO = (
    "mobilenet_v2",
    "resnet18",
    "squeezenet",
    "unet",
    "ds_cnn",
    "mobilenet_v1",
    "resnet8",
    "autoencoder",
    "digits_detector",
    "digits_transformer",
    "mlperf_tiny_kws_fp32",
    "mlperf_tiny_vww_mobilenet_fp32",
    "mlperf_tiny_ic_resnet8_fp32",
    "mlperf_tiny_ad_autoencoder_fp32",
    "ultraface_slim_320",
    "ultraface_slim_320_unsimplified",
)
"""All of whose products are of integers, floats only behind the last of them or between few."""
AMID = ("bert_tiny", "encoder")
"""With normalisations in floats, which round, amid integers."""
ROUNDING = 2e-6
"""Of functions of floats behind the last integers, as Softmax or the decoding of boxes, relative to
their value and the largest one: some units in the last place."""


def few(short: str) -> list[Any]:
    """All targets, of which every run of the tests takes one."""
    long = [pytest.mark.nightly]
    return [pytest.param(name, marks=[] if name == short else long) for name in TARGETS]


@pytest.fixture(autouse=True)
def qemu() -> None:
    if not all(map(shutil.which, ("qemu-aarch64", "qemu-arm"))):
        pytest.skip("QEMU's user mode is not installed")


def judge(
    edgec: Edgec, model: Path, specs: list[Tensor], data: Sample, target: str, folder: Path
) -> None:
    """Compile `model`, run it on `data` under QEMU, and compare: integers by their bits, floats to
    rounding, which is far less than a step of what was dequantized."""
    artifact, given = folder / "model.edgec", folder / "given.npz"
    made = edgec("compile", model, "--target", target, "-o", artifact, "--json")
    assert made.code == 0, made.err
    np.savez(given, **{name: value[None] for name, value in data.items()})
    assert edgec("run", artifact, "--on", "qemu", "--input", given, "--output", folder).code == 0
    for name, expected in reference(meaning_of(model, specs), data).items():
        found = np.load(folder / f"{name.replace('/', '_').replace(':', '_')}.npy")
        tolerance = 0 if expected.dtype.kind in "iu" else ROUNDING
        largest = np.abs(expected, dtype=np.float64).max(initial=0)
        np.testing.assert_allclose(
            found.reshape(expected.shape), expected, tolerance, tolerance * largest
        )


def whole(model: Path, folder: Path) -> tuple[Path, list[Tensor], Sample]:
    """A quantized model with what its outputs are dequantized from as outputs, too; its inputs, and
    data for them."""
    proto = onnx.shape_inference.infer_shapes(onnx.load(model))
    makers = {name: node for node in proto.graph.node for name in node.output}
    last, open_names = [], [output.name for output in proto.graph.output]
    while open_names:
        node = makers.get(open_names.pop())
        if node is not None and node.op_type == "DequantizeLinear":
            last += [name for name in node.input[:1] if name in makers]
        elif node is not None:
            open_names += node.input
    assert last
    proto.graph.output.extend(value for value in proto.graph.value_info if value.name in last)
    made = folder / "whole.onnx"
    onnx.save(proto, made)
    inputs = signature(load(made))[0]
    limits = index_limits(proto)
    return made, inputs, next(iter(open_data(inputs, ["random"], seed=7, limits=limits)))


def quantized(edgec: Edgec, model: Path, folder: Path, *words: str) -> Path:
    """The model as `edgec quantize` makes it of random samples."""
    made = folder / "quantized.onnx"
    done = edgec("quantize", model, "--calib", "random", "--samples", 4, "-o", made, *words)
    assert done.code == 0, done.err
    return made


@pytest.mark.skipif(not KWS.is_file(), reason="shared/models is absent")
@pytest.mark.parametrize("target", few("armv7"))
def test_a_keyword_model(target: str, edgec: Edgec, tmp_path: Path) -> None:
    judge(edgec, *whole(KWS, tmp_path), target, tmp_path)


@pytest.mark.parametrize("target", few("rpi4"))
def test_a_model_quantized_here(target: str, digits: Path, edgec: Edgec, tmp_path: Path) -> None:
    judge(edgec, *whole(quantized(edgec, digits, tmp_path), tmp_path), target, tmp_path)


@pytest.mark.parametrize("target", few("rpi5"))
def test_operators(target: str, edgec: Edgec, tmp_path: Path) -> None:
    """Those of two tensors, of rows and of images, zero points at both ends."""
    model, spec = Model((1, 3, 40)), Tensor("x", "float32", (1, 3, 40))
    left = model.through("x", Scaled(0.02, -128, "int8"))
    right = model.through(model.node("Neg", "x"), Scaled(0.03, 255))
    to = Scaled(0.04, 127, "int8")
    made = [model.through(model.node(op, left, right), to) for op in ("Add", "Sub", "Mul")]
    made.append(model.through(model.node("Softmax", left), Scaled(1 / 256, -128, "int8")))
    gain, bias = (model.constant(np.linspace(-1, 2, 40), "float32") for _ in range(2))
    made.append(model.through(model.node("LayerNormalization", right, gain, bias), to))
    weights = np.random.default_rng(2).choice([-128, 127, 5], (3, 20, 3)).astype(np.int8)
    larger = model.node(
        "ConvTranspose", right, model.weights(weights, np.float32(0.01)), strides=[2], pads=[1, 1]
    )
    sides = model.constant([0, 0, 1, 0, 0, 0], "int64")
    images = {model.through(larger, to): (1, 20, 79)}
    images[model.through(model.node("Pad", left, sides, mode="edge"), to)] = (1, 3, 41)
    shapes = dict.fromkeys(made[1:], spec.shape) | images
    proto = model.proto(made[0], spec.shape, **shapes)
    onnx.save(proto, tmp_path / "operators.onnx")
    data = np.random.default_rng(1).uniform(-4, 4, spec.shape).astype(np.float32)
    judge(edgec, tmp_path / "operators.onnx", [spec], {"x": data}, target, tmp_path)


@pytest.mark.nightly
@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("target", TARGETS)
def test_the_zoo(target: str, name: str, edgec: Edgec, tmp_path: Path) -> None:
    model = models([name]).get(name)
    if model is None:
        pytest.skip(f"{name} is absent")
    judge(edgec, *whole(quantized(edgec, model, tmp_path), tmp_path), target, tmp_path)


@pytest.mark.nightly
@pytest.mark.parametrize("name", AMID)
@pytest.mark.parametrize("target", TARGETS)
def test_floats_amid_integers(target: str, name: str, edgec: Edgec, tmp_path: Path) -> None:
    model = models([name]).get(name)
    if model is None:
        pytest.skip(f"{name} is absent")
    made, artifact = quantized(edgec, model, tmp_path, "--dim=N=1"), tmp_path / "model.edgec"
    done = edgec("compile", made, "--target", target, "-o", artifact, "--json")
    assert done.code == 0, done.err
    done = edgec("verify", artifact, "--against", made, "--on", "qemu")
    assert done.code == 0, done.err
