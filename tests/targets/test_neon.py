"""Kernels for Arm: inputs in lanes of registers, and bounds by one instruction that keeps NaN."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from command import Edgec
from test_targets import emulator

BOUNDED = """
<ir_version: 8, opset_import: ["" : 17]>
bounded (float[2, 8] x) => (float[2, 8] y, float[2, 8] z)
<float low = {-1.0}, float high = {6.0}>
{ y = Relu (x) z = Clip (x, low, high) }
"""


@pytest.mark.parametrize("level", ["-O2", "-O3"])
def test_inputs_are_loaded_as_vectors(level: str, edgec: Edgec, tmp_path: Path) -> None:
    """A multiply-add then takes each from its lane; scalars would all come from lane 0. At -O3 the
    second convolution is Winograd's."""
    model = tmp_path / "conv.onnx"
    weights = np.full((16, 16, 3, 3), 0.01, np.float32)
    head = '<ir_version: 8, opset_import: ["" : 17]> conv (float[1, 16, 14, 14] x) => (float[N] y)'
    nodes = "{ g = Conv<pads = [1,1,1,1]> (x, w) h = Relu (g) y = Conv<pads = [1,1,1,1]> (h, w) }"
    graph = onnx.parser.parse_model(head + nodes)
    graph.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    graph.graph.output[0].type.tensor_type.ClearField("shape")
    onnx.save(graph, model)
    for target in ("rpi4", "rpi5"):
        path = tmp_path / f"{target}.s"
        words = ["--target", target, level, "--emit", "asm", "-o", path]
        assert edgec("compile", model, *words).code == 0
        text = path.read_text()
        assert least_lanes(text) > 40
        assert re.search(r"\bfmax\b", text)


def least_lanes(assembly: str) -> int:
    """How many multiply-adds take an operand from each of the lanes but the first, at least."""
    lanes = re.findall(r"fmla\s+v\d+\.4s, v\d+\.4s, v\d+\.s\[([123])\]", assembly)
    return min(lanes.count(lane) for lane in "123")


@pytest.mark.parametrize("target", ["rpi4", "rpi5"])
def test_terms_of_products_are_loaded_as_vectors(edgec: Edgec, tmp_path: Path, target: str) -> None:
    """Of one with constant weights, and of both in attention."""
    model, path = tmp_path / "products.onnx", tmp_path / "products.s"
    head = '<ir_version: 8, opset_import: ["" : 17]> products (float[32, 64] x) => (float[N] z)'
    nodes = """{ q = MatMul (x, w) k = Transpose<perm = [1, 0]> (x)
                 s = MatMul (q, k) p = Softmax<axis = -1> (s) z = MatMul (p, x) }"""
    graph = onnx.parser.parse_model(head + nodes)
    weights = np.full((64, 64), 0.01, np.float32)
    graph.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    graph.graph.output[0].type.tensor_type.ClearField("shape")
    onnx.save(graph, model)
    words = ["--target", target, "--emit", "asm", "-o", path]
    assert edgec("compile", model, *words).code == 0
    kernels = path.read_text().split("\n# ")
    products = [text for text in kernels if "fmla" in text]
    assert len(products) == 2
    assert all(least_lanes(text) >= 14 for text in products)


@pytest.mark.parametrize("target", ["rpi4", "armv7"])
def test_bounds_keep_nan(edgec: Edgec, tmp_path: Path, target: str) -> None:
    emulator("arm" if target == "armv7" else "aarch64")
    model, artifact = tmp_path / "bounded.onnx", tmp_path / "bounded.edgec"
    onnx.save(onnx.parser.parse_model(BOUNDED), model)
    assert edgec("compile", model, "--target", target, "-o", artifact).code == 0
    x = np.array([np.nan, -np.inf, -2, -0.5, 0, 5, 7, np.inf] * 2, np.float32).reshape(2, 8)
    np.savez(tmp_path / "x.npz", x=x[None])
    words = ["run", artifact, "--on", "qemu", "--input", tmp_path / "x.npz", "--output", tmp_path]
    assert edgec(*words).code == 0
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy").reshape(2, 8), np.maximum(x, 0))
    np.testing.assert_array_equal(np.load(tmp_path / "z.npy").reshape(2, 8), np.clip(x, -1, 6))


@pytest.mark.parametrize("target", ["rpi4", "armv7"])
def test_the_largest_of_a_window_keeps_nan(edgec: Edgec, tmp_path: Path, target: str) -> None:
    """By maxima alone: of comparisons every lane would be one of its own."""
    emulator("arm" if target == "armv7" else "aarch64")
    model, artifact = tmp_path / "pool.onnx", tmp_path / "pool.edgec"
    head = '<ir_version: 8, opset_import: ["" : 17]> pool (float[1, 8, 7, 7] x) => (float[N] y)'
    largest = "MaxPool<kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]>"
    nodes = f"{{ c = Conv<group = 8> (x, w) y = {largest} (c) }}"
    graph = onnx.parser.parse_model(head + nodes)
    ones = np.ones((8, 1, 1, 1), np.float32)
    graph.graph.initializer.append(onnx.numpy_helper.from_array(ones, "w"))
    graph.graph.output[0].type.tensor_type.ClearField("shape")
    onnx.save(graph, model)
    assert edgec("compile", model, "--target", target, "-o", artifact).code == 0
    x = np.random.default_rng(0).normal(size=(1, 8, 7, 7)).astype(np.float32)
    x[0, 1, 3, 3], x[0, 2, 0, 6], x[0, 3, 6, 0] = np.nan, np.nan, -np.nan
    x[0, 4], x[0, 5, 2, 2] = -np.inf, np.inf
    np.savez(tmp_path / "x.npz", x=x[None])
    words = ["run", artifact, "--on", "qemu", "--input", tmp_path / "x.npz", "--output", tmp_path]
    assert edgec(*words).code == 0
    around = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    taps = [around[..., i : i + 7 : 2, j : j + 7 : 2] for i in range(3) for j in range(3)]
    expected = np.maximum.reduce(taps)
    assert np.isnan(expected).sum() == 6
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy").reshape(expected.shape), expected)
    text = tmp_path / "pool.s"
    words = ["--target", target, "--emit", "asm", "-o", text]
    assert edgec("compile", model, *words).code == 0
    assert len(re.findall(r"\bv?fmax\b|\bvmax\.f32\b", text.read_text())) >= 9
