"""Blocked images: every kind of convolution and what stands between them, on several targets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgec import targets
from edgec.compiler import Options, compile_model
from edgec.graph import load
from edgec.lower.lowering import lower_graph

RUNNABLE = [
    name
    for name in ("x86-64-v2", "x86-64-v3", "x86-64-v4", "host")
    if targets.runs_here(targets.resolve(name))
]


class Model:
    """Nodes around the float images x[1, 3, 17, 13] and h[1, 32, 14, 14], many outputs."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(7)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.outputs: list[str] = []

    def weight(self, *shape: int) -> str:
        name = f"w{len(self.weights)}"
        values = self.random.normal(0, 1 / np.sqrt(np.prod(shape[1:]) or 1), shape)
        self.weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def constant(self, values: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def node(self, op: str, *inputs: str, output: bool = False, **attributes: Any) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], **attributes))
        if output:
            self.outputs.append(name)
        return name

    def conv(
        self, x: str, out: int, depth: int, k: int = 3, bias: bool = True, **attrs: Any
    ) -> str:
        inputs = [x, self.weight(out, depth, k, k)] + ([self.weight(out)] if bias else [])
        return self.node("Conv", *inputs, **attrs)

    def proto(self) -> onnx.ModelProto:
        def info(name: str, *shape: int) -> onnx.ValueInfoProto:
            return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape or None)

        inputs = [info("x", 1, 3, 17, 13), info("h", 1, 32, 14, 14)]
        graph = helper.make_graph(
            self.nodes, "g", inputs, [info(o) for o in self.outputs], self.weights
        )
        opsets = [helper.make_opsetid("", 20)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def convolutions() -> Model:
    """Strides, dilations, borders, odd channels and sizes, first layers, depthwise, groups."""
    m = Model()
    first = m.conv("x", 24, 3, pads=[1, 1, 1, 1])
    m.conv("x", 16, 3, 5, strides=[2, 2], pads=[2, 1, 2, 3], output=True)
    m.conv("x", 7, 3, 3, bias=False, auto_pad="SAME_UPPER", strides=[2, 3], output=True)
    for out, attrs in (
        (32, {"k": 1}),
        (40, {"k": 3, "pads": [0, 2, 1, 0], "dilations": [2, 1]}),
        (5, {"k": 3, "strides": [2, 1], "bias": False}),
    ):
        m.conv(first, out, 24, output=True, **attrs)
    body = m.node("Relu", m.conv("h", 48, 32, pads=[1, 1, 1, 1]))
    m.conv(body, 64, 48, 1, output=True)
    m.conv(body, 48, 1, 3, group=48, pads=[1, 1, 1, 1], strides=[2, 2], output=True)
    m.conv(body, 48, 1, 5, group=48, dilations=[2, 2], bias=False, output=True)
    m.conv(body, 12, 12, 3, group=4, output=True)
    m.conv(body, 96, 1, 3, group=48, output=True)
    return m


def between() -> Model:
    """Elementwise operators, pools, concatenation and the ways out of a blocked region."""
    m = Model()
    a = m.conv("h", 32, 32, pads=[1, 1, 1, 1])
    b = m.conv("h", 32, 32, 1)
    odd = m.conv("h", 20, 32, 1)
    total = m.node("Add", a, b)
    m.node("Add", total, "h", output=True)
    squeezed = m.node("GlobalAveragePool", total)
    gate = m.node("HardSigmoid", m.conv(squeezed, 32, 32, 1))
    m.node("Mul", total, gate, output=True)
    m.node("Mul", total, m.weight(32, 1, 1), output=True)
    m.node("PRelu", odd, m.weight(20, 1, 1), output=True)
    m.node("Div", odd, m.weight(1), output=True)
    m.node("Log", m.node("Abs", m.node("Exp", odd)), output=True)
    m.node("MaxPool", odd, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 0, 0, 1], output=True)
    m.node("AveragePool", total, kernel_shape=[3, 2], pads=[1, 1, 1, 0], output=True)
    m.node(
        "AveragePool", odd, kernel_shape=[2, 2], pads=[1, 1, 0, 0], count_include_pad=1, output=True
    )
    m.node("Concat", a, b, odd, axis=1, output=True)
    m.node("Concat", odd, a, axis=1, output=True)
    m.node("Concat", a, b, axis=2, output=True)
    m.node("Flatten", squeezed, output=True)
    spatial = m.constant(np.array([-1, 2]))
    m.node("ReduceMean", odd, spatial, keepdims=0, output=True)
    m.conv(m.node("ReduceMean", total, spatial), 8, 32, 1, output=True)
    m.node("ReduceMean", odd, m.constant(np.array([1])), output=True)
    for mode, scale in (("nearest", 2.0), ("linear", 1.5), ("cubic", 0.5)):
        scales = m.constant(np.array([1, 1, scale, 2 * scale], np.float32))
        m.node("Resize", odd, "", scales, mode=mode, output=True)
    m.node("Transpose", odd, perm=[0, 2, 3, 1], output=True)
    m.node("Softmax", total, axis=1, output=True)
    reused = m.node("Sqrt", m.node("Relu", odd))
    m.conv(reused, 16, 20, 3, output=True)
    return m


@pytest.mark.parametrize("build", [convolutions, between])
@pytest.mark.parametrize("target", RUNNABLE)
def test_agrees_with_onnx_runtime(build: Any, target: str, tmp_path: Path) -> None:
    result = compile_model(build().proto(), tmp_path / "m.edgec", Options(targets=(target,)))
    assert [variant["verified"] for variant in result.manifest["variants"]] == ["device"]


def test_convolutions_do_take_the_blocked_form() -> None:
    target = targets.resolve("x86-64-v3")
    kernels = lower_graph(load(convolutions().proto()), "m", [], target).kernels
    text = "\n".join(function.script() for function in kernels.values())
    assert text.count('T.sblock("conv2d_blocked")') == 8
    assert text.count('T.sblock("depthwise_blocked")') == 3


def test_lanes_beyond_the_channels_reach_no_output() -> None:
    """20 channels fill one block and a quarter: what -1 / 0 leaves in the rest stays there."""
    m = Model()
    odd = m.conv("h", 20, 32, 1, bias=False)
    inverse = m.node("Reciprocal", odd)
    m.conv(inverse, 8, 20, 1, output=True)
    m.node("GlobalMaxPool", inverse, output=True)
    import edgec

    module = edgec.compile(m.proto())
    result = module.run(
        {
            "x": np.zeros((1, 3, 17, 13), np.float32),
            "h": m.random.random((1, 32, 14, 14)).astype(np.float32),
        }
    )
    assert all(np.isfinite(values).all() for values in result.values())


@pytest.mark.parametrize(("channels", "plain"), [(1, True), (8, True), (9, False)])
def test_costly_functions_of_few_channels_are_taken_of_plain_images(
    channels: int, plain: bool
) -> None:
    m = Model()
    m.node("Sigmoid", m.conv("x", channels, 3), output=True)
    kernels = lower_graph(load(m.proto()), "m", [], targets.resolve("x86-64-v3")).kernels
    assert any("unblock_sigmoid" in name for name in kernels) is plain
