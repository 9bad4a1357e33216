"""Blocked images: which convolutions take the form, and what its unused lanes may hold."""

from __future__ import annotations

import numpy as np
import pytest

import edgec
from edgec import targets
from edgec.graph import load
from edgec.lower.kernels import lower
from edgec.lower.lowering import lower_graph
from edgec.passes import LEVELS, TO_INTEGERS
from edgec.rewrite import optimize
from edgec.targets.cpu import schedule

from .convolution_cases import conv2d, deep, depthwise
from .many_nodes import Model


def test_convolutions_take_the_blocked_form() -> None:
    """All but those of a volume and of nothing; equal ones are one."""
    model = Model()
    conv2d(model)
    depthwise(model)
    target = targets.resolve("x86-64-v3")
    kernels = lower_graph(load(model.expected()[0]), "m", [], target).kernels
    text = "\n".join(function.script() for function in kernels.values())
    assert text.count('T.sblock("conv2d_blocked")') == 25
    assert text.count('T.sblock("depthwise_blocked")') == 11


@pytest.mark.parametrize("data", ["float32", "int8"])
def test_windows_of_a_thousand_taps_are_not_written_out(data: str) -> None:
    m = Model()
    if data == "int8":
        scale, zero = m.constant(np.float32(0.1)), m.constant(np.int8(0))

        def of_bytes(x: str) -> str:
            x = m.node("QuantizeLinear", x, scale, zero)
            return m.node("DequantizeLinear", x, scale, zero)

        weight = m.constant(np.ones((16, 16, 1, 1), np.int8))
        weight = m.node("DequantizeLinear", weight, scale, zero)
        image = of_bytes(m.node("Conv", of_bytes(m.input(1, 16, 56, 56)), weight))
        m.out(of_bytes(m.node("GlobalAveragePool", image)))
    else:
        x = m.node("Relu", m.conv(m.input(1, 16, 9, 9), (16, 16), 1, 1))
        m.out(m.conv(x, (1, 16), 31, 31, group=16, pads=[15, 15, 15, 15]))
    target = targets.resolve("x86-64-v3")
    graph = load(m.expected()[0])
    optimize(graph, (*LEVELS[2], *TO_INTEGERS))
    kernels = lower_graph(graph, "m", [], target).kernels
    function = next(each for name, each in kernels.items() if "depthwise" in name)
    scheduled = schedule(function, target, strict=True)
    assert len(lower(scheduled, "f", target, None)["f"].script()) < 400_000


@pytest.mark.parametrize(("axes", "moved"), [([0, 3, 1, 2], False), ([0, 3, 2, 1], True)])
def test_an_image_with_its_channels_last_is_read_as_it_is(axes: list[int], moved: bool) -> None:
    m = Model()
    image = m.node("Transpose", m.input(1, 9, 9, 9), perm=axes)
    m.out(m.conv(image, (9, 8), 3, 3, pads=[1, 1, 1, 1]))
    kernels = lower_graph(load(m.expected()[0]), "m", [], targets.resolve("x86-64-v3")).kernels
    assert any("transpose" in name for name in kernels) is moved


def test_deep_convolutions_prefetch_their_weights() -> None:
    model = Model()
    deep(model)
    target = targets.resolve("x86-64-v4")
    kernels = lower_graph(load(model.expected()[0]), "m", [], target).kernels
    texts = [schedule(kernel, target, strict=True).script() for kernel in kernels.values()]
    assert sum("llvm.prefetch" in text for text in texts) >= 5
    assert any("conv2d_blocked_rf" in text or "_rf_update" in text for text in texts)


def test_lanes_beyond_the_channels_reach_no_output() -> None:
    """20 channels fill one block and a quarter: what -1 / 0 leaves in the rest stays there."""
    m = Model()
    odd = m.conv(m.input(1, 32, 14, 14), (32, 20), 1, 1, bias=False)
    inverse = m.node("Reciprocal", odd)
    m.out(m.conv(inverse, (20, 8), 1, 1), m.node("GlobalMaxPool", inverse))
    proto, feeds, _ = m.expected()
    result = edgec.compile(proto).run(feeds)
    assert all(np.isfinite(values).all() for values in result.values())


@pytest.mark.parametrize(("channels", "plain"), [(1, True), (8, True), (9, False)])
def test_costly_functions_of_few_channels_are_taken_of_plain_images(
    channels: int, plain: bool
) -> None:
    m = Model()
    m.out(m.node("Sigmoid", m.conv(m.input(1, 3, 17, 13), (3, channels), 3, 3)))
    kernels = lower_graph(load(m.expected()[0]), "m", [], targets.resolve("x86-64-v3")).kernels
    assert any("unblock_sigmoid" in name for name in kernels) is plain
