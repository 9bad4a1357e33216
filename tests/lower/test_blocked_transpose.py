"""Transposed convolutions on blocked images, on several targets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from edgec import targets
from edgec.graph import Graph, load
from edgec.lower.lowering import lower_graph

from .many_nodes import RUNNABLE, Model, judge
from .running import run


def model() -> Model:
    """Kernels as wide as the stride and wider, cut off and grown, odd channels, plain images."""
    m = Model()
    x = m.input(1, 3, 17, 13)
    h = m.input(1, 32, 14, 14)

    def transposed(x: str, depth: int, out: int, k: list[int], **attrs: object) -> str:
        taps = m.weight(depth, out, *k)
        made = m.node("ConvTranspose", x, taps, m.weight(out), **attrs)
        m.out(made)
        return made

    image = m.conv(h, (32, 48), 1, 1)
    m.out(m.node("Relu", transposed(image, 48, 32, [2, 2], strides=[2, 2])))
    odd = m.conv(x, (3, 20), 1, 1)
    transposed(odd, 20, 7, [4, 4], strides=[2, 2], pads=[1, 1, 1, 1])
    transposed(odd, 20, 33, [3, 3], strides=[2, 1], pads=[1, 1, 1, 0], output_padding=[1, 0])
    transposed(x, 3, 16, [5, 2], strides=[3, 2], pads=[0, 1, 2, 0])
    transposed(image, 48, 16, [3, 3])
    transposed(image, 48, 16, [1, 3], strides=[2, 4])
    return m


def others() -> Model:
    """What is left to plain images: dilations and groups."""
    m = Model()
    h = m.input(1, 32, 14, 14)
    image = m.conv(h, (32, 32), 1, 1)
    taps, halves = m.weight(32, 8, 3, 3), m.weight(32, 4, 2, 2)
    m.out(m.node("ConvTranspose", image, taps, dilations=[2, 1]))
    m.out(m.node("ConvTranspose", image, halves, strides=[2, 2], group=2))
    return m


def grown() -> Model:
    """An output that begins before the image does; ONNX Runtime refuses it."""
    m = Model()
    h = m.input(1, 32, 14, 14)
    image, taps = m.conv(h, (32, 32), 1, 1), m.weight(32, 4, 2, 2)
    m.out(m.node("ConvTranspose", image, taps, strides=[2, 2], output_shape=[30, 30]))
    return m


def graph_of(m: Model) -> Graph:
    """The model as a graph, whether ONNX Runtime can make it or not."""
    proto = m.proto()
    for output in proto.graph.output:
        output.CopyFrom(helper.make_tensor_value_info(output.name, TensorProto.FLOAT, None))
    return load(proto)


@pytest.mark.parametrize(("build", "names"), [(model, (RUNNABLE[0], "host")), (others, ("host",))])
def test_agrees_with_onnx_runtime(
    build: Callable[[], Model], names: tuple[str, ...], tmp_path: Path
) -> None:
    judge(build(), names, tmp_path)


@pytest.mark.parametrize(("build", "expected"), [(model, 6), (others, 0), (grown, 0)])
def test_takes_the_blocked_form(build: Callable[[], Model], expected: int) -> None:
    target = targets.resolve("x86-64-v3")
    kernels = lower_graph(graph_of(build()), "m", [], target).kernels
    text = "\n".join(function.script() for function in kernels.values())
    assert text.count('T.sblock("conv2d_transpose_blocked")') == expected


def test_infinity_stays_within_the_kernel() -> None:
    """Three taps at a stride of two: the phases have two and one."""
    image = np.ones((1, 3, 17, 13), np.float32)
    image[0, 1, 5, 6] = np.inf
    expected = np.zeros((1, 16, 35, 27), np.float32)
    for i, j in np.ndindex(17, 13):
        expected[..., 2 * i : 2 * i + 3, 2 * j : 2 * j + 3] += image[0, :, i, j].sum()
    m = Model()
    x = m.given(image)
    taps = m.constant(np.ones((3, 16, 3, 3), np.float32))
    m.out(m.node("ConvTranspose", x, taps, strides=[2, 2]))
    (got,) = run(graph_of(m), m.feeds)
    np.testing.assert_array_equal(got, expected)
