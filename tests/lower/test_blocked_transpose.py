"""Transposed convolutions on blocked images, on several targets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgec import targets
from edgec.compiler import Options, compile_model
from edgec.graph import load
from edgec.lower.lowering import lower_graph
from tests.lower.running import run
from tests.lower.test_blocked import RUNNABLE, Model


def model() -> Model:
    """Kernels as wide as the stride and wider, cut off and grown, odd channels, plain images."""
    m = Model()

    def transposed(x: str, depth: int, out: int, k: list[int], **attrs: object) -> str:
        taps = m.weight(depth, out, *k)
        return m.node("ConvTranspose", x, taps, m.weight(out), output=True, **attrs)

    image = m.conv("h", 48, 32, 1)
    m.node("Relu", transposed(image, 48, 32, [2, 2], strides=[2, 2]), output=True)
    odd = m.conv("x", 20, 3, 1)
    transposed(odd, 20, 7, [4, 4], strides=[2, 2], pads=[1, 1, 1, 1])
    transposed(odd, 20, 33, [3, 3], strides=[2, 1], pads=[1, 1, 1, 0], output_padding=[1, 0])
    transposed("x", 3, 16, [5, 2], strides=[3, 2], pads=[0, 1, 2, 0])
    transposed(image, 48, 16, [3, 3])
    transposed(image, 48, 16, [1, 3], strides=[2, 4])
    return m


def others() -> Model:
    """What is left to plain images: dilations and groups."""
    m = Model()
    image = m.conv("h", 32, 32, 1)
    taps, halves = m.weight(32, 8, 3, 3), m.weight(32, 4, 2, 2)
    m.node("ConvTranspose", image, taps, dilations=[2, 1], output=True)
    m.node("ConvTranspose", image, halves, strides=[2, 2], group=2, output=True)
    return m


def grown() -> Model:
    """An output that begins before the image does; ONNX Runtime refuses it."""
    m = Model()
    image, taps = m.conv("h", 32, 32, 1), m.weight(32, 4, 2, 2)
    m.node("ConvTranspose", image, taps, strides=[2, 2], output_shape=[30, 30], output=True)
    return m


@pytest.mark.parametrize("target", [RUNNABLE[0], RUNNABLE[-1]])
def test_agrees_with_onnx_runtime(target: str, tmp_path: Path) -> None:
    result = compile_model(model().proto(), tmp_path / "m.edgec", Options(targets=(target,)))
    assert [variant["verified"] for variant in result.manifest["variants"]] == ["device"]


def test_what_the_blocked_form_does_not_take_agrees_too(tmp_path: Path) -> None:
    result = compile_model(others().proto(), tmp_path / "m.edgec", Options(targets=("host",)))
    assert [variant["verified"] for variant in result.manifest["variants"]] == ["device"]


@pytest.mark.parametrize(("build", "expected"), [(model, 6), (others, 0), (grown, 0)])
def test_takes_the_blocked_form(build: type[Model], expected: int) -> None:
    target = targets.resolve("x86-64-v3")
    kernels = lower_graph(load(build().proto()), "m", [], target).kernels
    text = "\n".join(function.script() for function in kernels.values())
    assert text.count('T.sblock("conv2d_transpose_blocked")') == expected


def test_infinity_stays_within_the_kernel() -> None:
    """Three taps at a stride of two: the phases have two and one."""
    m = Model()
    taps = m.constant(np.ones((3, 16, 3, 3), np.float32))
    m.node("ConvTranspose", "x", taps, strides=[2, 2], output=True)
    image = np.ones((1, 3, 17, 13), np.float32)
    image[0, 1, 5, 6] = np.inf
    expected = np.zeros((1, 16, 35, 27), np.float32)
    for i, j in np.ndindex(17, 13):
        expected[..., 2 * i : 2 * i + 3, 2 * j : 2 * j + 3] += image[0, :, i, j].sum()
    feeds = {"x": image, "h": np.zeros((1, 32, 14, 14), np.float32)}
    (got,) = run(load(m.proto()), feeds)
    np.testing.assert_array_equal(got, expected)
