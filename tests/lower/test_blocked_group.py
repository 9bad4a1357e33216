"""Convolutions in groups, from plain images, over one axis and of several images at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgec import targets
from edgec.compiler import Options, compile_model
from edgec.graph import load
from edgec.lower.lowering import lower_graph
from tests.lower.test_blocked import RUNNABLE, Model


def proto(m: Model, **shapes: list[int]) -> onnx.ModelProto:
    """The model on inputs of these shapes."""

    def info(name: str, shape: list[int] | None) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    inputs = [info(name, shape) for name, shape in shapes.items()]
    graph = helper.make_graph(m.nodes, "g", inputs, [info(o, None) for o in m.outputs], m.weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def groups() -> onnx.ModelProto:
    """Whole blocks and parts of blocks per group or operand, plain and blocked, two images."""
    m = Model()
    body = m.conv("x", 64, 12, 1)
    whole = m.conv(body, 64, 32, 3, group=2, pads=[1, 1, 1, 1])
    m.node("Relu", m.conv(whole, 32, 32, 3, group=2, strides=[2, 1]), output=True)
    m.conv(body, 128, 16, 1, group=4, output=True)
    m.conv("x", 48, 4, 3, group=3, pads=[0, 1, 2, 0], output=True)
    m.conv(m.conv("x", 24, 12, 1), 32, 12, 3, group=2, dilations=[2, 1], output=True)
    m.conv(body, 40, 16, 3, group=4, output=True)
    odd = m.conv("x", 20, 12, 1)
    m.node("Relu", m.node("Concat", odd, body, odd, axis=1), output=True)
    parts = ["p", "q", "r"]
    sizes = m.constant(np.array([16, 20, 28]))
    m.nodes.append(helper.make_node("Split", [body, sizes], parts, axis=1))
    m.node("Concat", m.node("Sqrt", m.node("Abs", "r")), "q", "p", axis=1, output=True)
    starts, ends = m.constant(np.array([40, -2, 1])), m.constant(np.array([3, -9, 9]))
    axes, steps = m.constant(np.array([1, 3, 2])), m.constant(np.array([-2, -3, 2]))
    cut = m.node("Slice", body, starts, ends, axes, steps)
    m.conv(cut, 16, 19, 1, output=True)
    m.node("Slice", body, m.constant(np.array([1])), m.constant(np.array([2])), output=True)
    m.conv("x", 12, 1, 3, group=12, pads=[1, 1, 1, 1], output=True)
    m.conv("x", 36, 1, 3, group=12, output=True)
    m.conv(body, 128, 1, 3, group=64, strides=[2, 2], output=True)
    return proto(m, x=[2, 12, 9, 10])


def operands() -> onnx.ModelProto:
    """Elementwise operators on a blocked image and a gate, a mask or an image that is plain."""
    m = Model()
    body = m.conv("x", 64, 12, 1)
    squeezed = m.node("Flatten", m.node("GlobalAveragePool", body))
    mixed = m.node("MatMul", squeezed, m.weight(64, 64))
    gate = m.node("Reshape", mixed, m.constant(np.array([2, 64, 1, 1])))
    mask = m.node("ReduceMax", body, m.constant(np.array([1])))
    gated = m.node("Mul", m.node("Mul", body, gate), mask)
    attention = m.node("Sigmoid", m.conv(body, 1, 64, 1))
    m.conv(m.node("Add", gated, attention), 16, 64, 1, output=True)
    m.node("Add", m.conv("x", 12, 12, 1), "x", output=True)
    pooled = m.node("GlobalMaxPool", m.conv("x", 12, 12, 3))
    m.node("Mul", m.node("Sin", "x"), pooled, output=True)
    return proto(m, x=[2, 12, 9, 10])


def lines() -> onnx.ModelProto:
    """Everything over one axis."""
    m = Model()
    first = m.node("Conv", "x", m.weight(32, 12, 5), m.weight(32), strides=[2], pads=[2, 1])
    scaled = m.node("Mul", m.node("Relu", first), m.weight(32, 1))
    mixed = m.node("Conv", scaled, m.weight(32, 1, 3), dilations=[2], group=32, pads=[2, 2])
    m.node("Add", scaled, mixed, output=True)
    both = m.node("Concat", scaled, mixed, axis=-2)
    m.node("MaxPool", both, kernel_shape=[3], strides=[2], pads=[1, 0], output=True)
    m.node("AveragePool", both, kernel_shape=[4], strides=[3], ceil_mode=1, output=True)
    m.node("ConvTranspose", both, m.weight(64, 20, 4), strides=[2], pads=[1, 1], output=True)
    m.node("ConvTranspose", both, m.weight(64, 8, 2), strides=[2], output_padding=[1], output=True)
    m.node("GlobalAveragePool", both, output=True)
    m.node("GlobalMaxPool", both, output=True)
    m.node("ReduceMean", both, m.constant(np.array([-1])), keepdims=0, output=True)
    m.node(
        "Slice",
        both,
        m.constant(np.array([2])),
        m.constant(np.array([9])),
        m.constant(np.array([2])),
        output=True,
    )
    m.node("Transpose", both, perm=[0, 2, 1], output=True)
    scales = m.constant(np.array([1, 1, 2], np.float32))
    m.node("Resize", both, "", scales, output=True)
    return proto(m, x=[2, 12, 30])


@pytest.mark.parametrize(
    ("build", "target"),
    [(groups, RUNNABLE[0]), (groups, "host"), (operands, "host"), (lines, "host")],
)
def test_agrees_with_onnx_runtime(
    build: Callable[[], onnx.ModelProto], target: str, tmp_path: Path
) -> None:
    result = compile_model(build(), tmp_path / "m.edgec", Options(targets=(target,)))
    assert [variant["verified"] for variant in result.manifest["variants"]] == ["device"]


@pytest.mark.parametrize(
    ("build", "blocks"),
    [
        (groups, {"conv2d_blocked": 9, "depthwise_blocked": 3, "regroup": 6}),
        (operands, {"conv2d_blocked": 4, "block": 2, "unblock": 5}),
        (
            lines,
            {
                "conv2d_blocked": 1,
                "depthwise_blocked": 1,
                "conv2d_transpose_blocked": 2,
                "max_pool_blocked": 1,
                "pool_sum_blocked": 1,
            },
        ),
    ],
)
def test_takes_the_blocked_form(
    build: Callable[[], onnx.ModelProto], blocks: dict[str, int]
) -> None:
    kernels = lower_graph(load(build()), "m", [], targets.resolve("x86-64-v3")).kernels
    text = "\n".join(function.script() for function in kernels.values())
    assert {name: text.count(f'T.sblock("{name}")') for name in blocks} == blocks
