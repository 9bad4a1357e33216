"""Convolutions in groups, from plain images, over one axis and of several images at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgec import targets
from edgec.graph import load
from edgec.lower.lowering import lower_graph

from .many_nodes import RUNNABLE, Model, judge


def groups() -> Model:
    """Whole blocks and parts of blocks per group or operand, plain and blocked, two images."""
    m = Model()
    x = m.input(2, 12, 9, 10)
    body = m.conv(x, (12, 64), 1, 1)
    whole = m.conv(body, (32, 64), 3, 3, group=2, pads=[1, 1, 1, 1])
    m.out(m.node("Relu", m.conv(whole, (32, 32), 3, 3, group=2, strides=[2, 1])))
    m.out(m.conv(body, (16, 128), 1, 1, group=4))
    m.out(m.conv(x, (4, 48), 3, 3, group=3, pads=[0, 1, 2, 0]))
    m.out(m.conv(m.conv(x, (12, 24), 1, 1), (12, 32), 3, 3, group=2, dilations=[2, 1]))
    m.out(m.conv(body, (16, 40), 3, 3, group=4))
    odd = m.conv(x, (12, 20), 1, 1)
    m.out(m.node("Relu", m.node("Concat", odd, body, odd, axis=1)))
    p, q, r = m.node_of("Split", [body, m.constant([16, 20, 28])], 3, axis=1)
    m.out(m.node("Concat", m.node("Sqrt", m.node("Abs", r)), q, p, axis=1))
    starts, ends = m.constant([40, -2, 1]), m.constant([3, -9, 9])
    axes, steps = m.constant([1, 3, 2]), m.constant([-2, -3, 2])
    cut = m.node("Slice", body, starts, ends, axes, steps)
    m.out(m.conv(cut, (19, 16), 1, 1))
    m.out(m.node("Slice", body, m.constant([1]), m.constant([2])))
    m.out(m.conv(x, (1, 12), 3, 3, group=12, pads=[1, 1, 1, 1]))
    m.out(m.conv(x, (1, 36), 3, 3, group=12))
    m.out(m.conv(body, (1, 128), 3, 3, group=64, strides=[2, 2]))
    return m


def operands() -> Model:
    """Elementwise operators on a blocked image and a gate, a mask or an image that is plain."""
    m = Model()
    x = m.input(2, 12, 9, 10)
    body = m.conv(x, (12, 64), 1, 1)
    squeezed = m.node("Flatten", m.node("GlobalAveragePool", body))
    mixed = m.node("MatMul", squeezed, m.weight(64, 64))
    gate = m.node("Reshape", mixed, m.constant([2, 64, 1, 1]))
    mask = m.node("ReduceMax", body, m.constant([1]))
    gated = m.node("Mul", m.node("Mul", body, gate), mask)
    attention = m.node("Sigmoid", m.conv(body, (64, 1), 1, 1))
    m.out(m.conv(m.node("Add", gated, attention), (64, 16), 1, 1))
    m.out(m.node("Add", m.conv(x, (12, 12), 1, 1), x))
    pooled = m.node("GlobalMaxPool", m.conv(x, (12, 12), 3, 3))
    m.out(m.node("Mul", m.node("Sin", x), pooled))
    return m


def lines() -> Model:
    """Everything over one axis."""
    m = Model()
    x = m.input(2, 12, 30)
    first = m.node("Conv", x, m.weight(32, 12, 5), m.weight(32), strides=[2], pads=[2, 1])
    scaled = m.node("Mul", m.node("Relu", first), m.weight(32, 1))
    mixed = m.node("Conv", scaled, m.weight(32, 1, 3), dilations=[2], group=32, pads=[2, 2])
    m.out(m.node("Add", scaled, mixed))
    both = m.node("Concat", scaled, mixed, axis=-2)
    m.out(m.node("MaxPool", both, kernel_shape=[3], strides=[2], pads=[1, 0]))
    m.out(m.node("AveragePool", both, kernel_shape=[4], strides=[3], ceil_mode=1))
    m.out(m.node("ConvTranspose", both, m.weight(64, 20, 4), strides=[2], pads=[1, 1]))
    m.out(m.node("ConvTranspose", both, m.weight(64, 8, 2), strides=[2], output_padding=[1]))
    m.out(m.node("GlobalAveragePool", both))
    m.out(m.node("GlobalMaxPool", both))
    m.out(m.node("ReduceMean", both, m.constant([-1]), keepdims=0))
    m.out(m.node("Slice", both, *map(m.constant, ([2], [9], [2]))))
    m.out(m.node("Transpose", both, perm=[0, 2, 1]))
    scales = m.constant(np.array([1, 1, 2], np.float32))
    m.out(m.node("Resize", both, "", scales))
    return m


@pytest.mark.parametrize(
    ("build", "names"), [(groups, (RUNNABLE[0], "host")), (operands, ("host",)), (lines, ("host",))]
)
def test_agrees_with_onnx_runtime(
    build: Callable[[], Model], names: tuple[str, ...], tmp_path: Path
) -> None:
    judge(build(), names, tmp_path)


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
def test_takes_the_blocked_form(build: Callable[[], Model], blocks: dict[str, int]) -> None:
    kernels = lower_graph(
        load(build().expected()[0]), "m", [], targets.resolve("x86-64-v3")
    ).kernels
    text = "\n".join(function.script() for function in kernels.values())
    assert {name: text.count(f'T.sblock("{name}")') for name in blocks} == blocks
