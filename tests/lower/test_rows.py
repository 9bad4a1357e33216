"""Softmax and normalization row by row: every instruction set, row lengths that are and are not
whole vectors, masked rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

import edgec
from edgec import targets
from edgec.compiler import Options, compile_model
from edgec.graph import load
from edgec.lower.lowering import lower_graph
from edgec.targets.cpu import schedule

from .many_nodes import RUNNABLE

LENGTHS = (7, 36, 45, 128)
LEVELS = tuple(name for name in RUNNABLE if name != "host")


def parse(body: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 23]> {body}')


def rows_of(*lengths: int) -> onnx.ModelProto:
    """Softmax, its logarithm, layer and RMS norm over rows of each length."""
    inputs = ", ".join(
        f"float[2, 5, {n}] x{n}, float[{n}] scale{n}, float[{n}] bias{n}" for n in lengths
    )
    outputs, nodes = [], []
    for n in lengths:
        for name, call in (
            ("softmax", f"Softmax(x{n})"),
            ("across", f"Softmax<axis=1>(x{n})"),
            ("log", f"LogSoftmax(x{n})"),
            ("layer", f"LayerNormalization(x{n}, scale{n}, bias{n})"),
            ("plain", f"LayerNormalization(x{n}, scale{n})"),
            ("rms", f"RMSNormalization(x{n}, scale{n})"),
        ):
            outputs.append(f"float[2, 5, {n}] {name}{n}")
            nodes.append(f"{name}{n} = {call}")
    return parse(f"g ({inputs}) => ({', '.join(outputs)}) {{ {' '.join(nodes)} }}")


def test_agrees_with_onnx_runtime(tmp_path: Path) -> None:
    options = Options(targets=LEVELS)
    result = compile_model(rows_of(*LENGTHS), tmp_path / "m.edgec", options)
    verified = [variant["verified"] for variant in result.manifest["variants"]]
    assert verified == ["device"] * len(LEVELS)


def test_each_is_one_kernel_of_vectors() -> None:
    """Halving the 16 partial results of a row takes 4 blocks a reduction."""
    target = targets.resolve("x86-64-v4")
    calls = lower_graph(load(rows_of(128)), "m", [], target)
    assert len(calls.program.steps) == 6
    halves = []
    for name, function in calls.kernels.items():
        scheduled = schedule(function, target, strict=True).script()
        halves.append((name, scheduled.count("_rf_update")))
    assert sorted(halves) == [
        ("normalize", 8),
        ("normalize1", 8),
        ("normalize2", 4),
        ("softmax", 8),
        ("softmax1", 0),
        ("softmax2", 8),
    ]


def test_what_a_mask_hides_weighs_nothing() -> None:
    """Exactly nothing: a weight without full precision would slow down whatever it meets."""
    model = parse("g (float[3, 64] x) => (float[3, 64] y) { y = Softmax(x) }")
    x = np.random.default_rng(3).standard_normal((3, 64)).astype(np.float32)
    x[0, 10:] = -1e4
    x[1, 10:] = np.finfo(np.float32).min
    x[2, 10:] = -np.inf
    y = edgec.compile(model).run({"x": x})["y"]
    assert not y[:, 10:].any()
    expected = np.exp(x[:, :10].astype(np.float64))
    np.testing.assert_allclose(y[:, :10], expected / expected.sum(-1, keepdims=True), rtol=2e-6)


def test_layer_norm_over_several_axes_gives_its_statistics() -> None:
    model = parse(
        """g (float[2, 3, 4, 8] x, float[8] scale, float[4, 1] bias)
             => (float[2, 3, 4, 8] y, float[2, 3, 1, 1] mean, float[2, 3, 1, 1] factor) {
               y, mean, factor = LayerNormalization<axis = 2, epsilon = 0.1>(x, scale, bias)
           }"""
    )
    random = np.random.default_rng(5)
    shapes = {"x": (2, 3, 4, 8), "scale": (8,), "bias": (4, 1)}
    feeds = {
        name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()
    }
    made = edgec.compile(model).run(feeds)
    x, scale, bias = feeds.values()
    mean = x.mean((2, 3), keepdims=True)
    factor = 1 / np.sqrt(x.var((2, 3), keepdims=True) + 0.1)
    np.testing.assert_allclose(made["mean"], mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(made["factor"], factor, rtol=1e-5)
    np.testing.assert_allclose(made["y"], (x - mean) * factor * scale + bias, rtol=1e-4, atol=1e-5)
