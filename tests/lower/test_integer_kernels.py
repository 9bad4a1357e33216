"""Integer kernels against integer arithmetic of numpy's, to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tvm import relax

from edgec import targets
from edgec.lower import integer_conv, integer_matmul, integer_stem
from edgec.lower.context import Context, literal
from edgec.lower.elementwise import maximum, minimum
from edgec.lower.requantize import saturated
from edgec.lower.window import Window

from .integer_running import compiled
from .many_nodes import RUNNABLE

ZERO = 77
"""The zero point of every input."""


def convolved(x: np.ndarray, weights: np.ndarray, w: Window) -> np.ndarray:
    """Exact sums of (x - ZERO) [N, C, H, W] over windows."""
    (kh, kw), (sh, sw), (dh, dw) = w.kernel, w.strides, w.dilations
    pads = [(before, before + after + 9) for before, after in zip(w.before, w.after, strict=True)]
    wide = np.pad(x.astype(np.int64) - ZERO, [(0, 0), (0, 0), *pads])
    sums = np.zeros((x.shape[0], weights.shape[0], *w.sizes), np.int64)
    for i in range(kh):
        for j in range(kw):
            part = wide[:, :, i * dh :: sh, j * dw :: sw][:, :, : w.sizes[0], : w.sizes[1]]
            sums += np.einsum("nchw,oc->nohw", part, weights[:, :, i, j].astype(np.int64))
    return sums


def blocked(x: np.ndarray, lanes: int) -> np.ndarray:
    """An image [N, C, H, W] in blocks; lanes beyond its channels hold what they must not add."""
    batch, channels, *space = x.shape
    blocks = -(-channels // lanes)
    whole = np.full((batch, blocks * lanes, *space), 201, x.dtype)
    whole[:, :channels] = x
    return np.ascontiguousarray(np.moveaxis(whole.reshape(batch, blocks, lanes, *space), 2, -1))


def window(size: int, kernel: int, stride: int, pad: int, dilation: int = 1) -> Window:
    reach = (kernel - 1) * dilation + 1
    out = (size + 2 * pad - reach) // stride + 1
    return Window(*((n, n) for n in (kernel, stride, dilation, pad, pad, out)))


def image_sizes(w: Window) -> list[int]:
    """Height and width of the image that the window goes over."""
    return [
        (size - 1) * stride + reach - before - after
        for size, stride, reach, before, after in zip(
            w.sizes, w.strides, w.reach, w.before, w.after, strict=True
        )
    ]


LAYERS = (
    (3, 24, 1, window(15, 3, 2, 1)),
    (32, 48, 1, window(9, 3, 1, 1)),
    (64, 20, 1, window(7, 1, 1, 0)),
    (32, 16, 1, window(9, 3, 1, 1)),
    (18, 33, 1, window(8, 5, 1, 2, 2)),
    (40, 40, 40, window(9, 3, 1, 1)),
    (32, 32, 32, window(10, 5, 2, 2)),
    (32, 48, 4, window(6, 3, 1, 1)),
    (64, 64, 1, window(4, 3, 1, 1)),
)
"""Channels in and out, groups, and where the window goes: over a plain image, a blocked one, one of
channels that fill no block, to a single one, channel by channel, and deep."""


@pytest.mark.parametrize("name", RUNNABLE)
@pytest.mark.parametrize("layer", LAYERS)
def test_convolutions(layer: tuple[int, int, int, Window], name: str, tmp_path: Path) -> None:
    inputs, outputs, groups, w = layer
    target, numbers = targets.resolve(name), np.random.default_rng(inputs)
    x = numbers.integers(0, 256, (1, inputs, *image_sizes(w))).astype(np.uint8)
    weights = numbers.choice([-128, 127, -1, 0, 3, 50], (outputs, inputs // groups, *w.kernel))
    weights = weights.astype(np.int8)
    given = blocked(x, 4 if inputs < 4 else target.channel_block)
    kernel = compiled(
        lambda ctx, image: integer_conv.sums(ctx, image, ZERO, weights, w, groups),
        [given],
        target,
        tmp_path,
    )
    made = np.moveaxis(kernel(given), -1, 2).reshape(1, -1, *w.sizes)[:, :outputs]
    exact = convolved(x, integer_conv.ungrouped(weights, groups), w)
    np.testing.assert_array_equal(made, exact)


@pytest.mark.parametrize("name", RUNNABLE)
@pytest.mark.parametrize("shape", [(1, 640, 128), (9, 30, 64), (17, 128, 10), (3, 4, 64, 37)])
def test_products(name: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    *rows, inner, columns = shape
    target, numbers = targets.resolve(name), np.random.default_rng(inner)
    a = numbers.integers(0, 256, (*rows, inner)).astype(np.uint8)
    weights = numbers.choice([-128, 127, -1, 0, 3, 50], (inner, columns)).astype(np.int8)
    kernel = compiled(
        lambda ctx, left: integer_matmul.sums(ctx, left, ZERO, weights), [a], target, tmp_path
    )
    exact = (a.astype(np.int64) - ZERO) @ weights.astype(np.int64)
    np.testing.assert_array_equal(kernel(a), exact)


NARROW = (
    (1, 8, Window((4, 3), (2, 2), (1, 2), (1, 2), (2, 3), (6, 5))),
    (2, 20, window(9, 2, 1, 1)),
)
"""Channels in and out, and windows over images of so few channels that columns go side by side."""


@pytest.mark.parametrize("name", RUNNABLE)
@pytest.mark.parametrize("layer", NARROW, ids=["one", "two"])
def test_narrow_images(layer: tuple[int, int, Window], name: str, tmp_path: Path) -> None:
    inputs, outputs, w = layer
    target, numbers = targets.resolve(name), np.random.default_rng(inputs)
    x = numbers.integers(0, 256, (1, inputs, *image_sizes(w))).astype(np.uint8)
    weights = numbers.choice([-127, 127, -1, 0, 3, 50], (outputs, inputs, *w.kernel))
    weights = weights.astype(np.int8)
    kernel = compiled(lambda ctx, image: narrow_sums(ctx, image, weights, w), [x], target, tmp_path)
    made = np.moveaxis(kernel(x), -1, 2).reshape(1, -1, *w.sizes)[:, :outputs]
    np.testing.assert_array_equal(made, convolved(x, weights, w))


def narrow_sums(ctx: Context, image: relax.Expr, weights: np.ndarray, w: Window) -> relax.Expr:
    found = integer_stem.side_by_side(ctx, image, ZERO, weights, w)
    assert found is not None
    return integer_conv.sums(ctx, found[0], ZERO, *found[1:], 1)


ENDS = {
    "whole": (0, 0, 255, None, "uint8"),
    "middle": (128, 0, 255, None, "uint8"),
    "signed": (-5, -128, 127, None, "int8"),
    "relu6": (3, 0, 255, (0, 99), "uint8"),
    "bounded": (100, 100, 200, None, "uint8"),
    "crossed": (0, 0, 255, (300, 400), "uint8"),
    "below": (0, 0, 255, (-400, -300), "uint8"),
}
"""Zero points, limits of elements, a Clip before them or none, and types."""


@pytest.mark.parametrize("name", RUNNABLE)
@pytest.mark.parametrize("end", ENDS)
def test_ends(end: str, name: str, tmp_path: Path) -> None:
    """Ties and numbers beyond int16, in rows that do not consist of whole groups of vectors."""
    zero, low, high, clip, dtype = ENDS[end]
    target, w = targets.resolve(name), window(15, 1, 1, 0)
    x = np.random.default_rng(zero + 9).integers(0, 256, (1, 8, 15, 15)).astype(np.uint8)
    weights = np.array([[1, 0], [3, -2], [127, 127], [-127, -127]], np.int8).repeat(12, axis=0)
    weights = np.tile(weights, 4)[:, :, None, None]

    def quantized(ctx: Context, image: relax.Expr) -> relax.Expr:
        def element(total: Any) -> Any:
            value = total.astype("float32") * literal(0.5, "float32")
            if clip is not None:
                bounds = (literal(bound, "float32") for bound in clip)
                value = minimum(maximum(value, next(bounds)), next(bounds))
            return saturated(value, zero, low, high, dtype)

        return ctx.map("quantize", element, integer_conv.sums(ctx, image, ZERO, weights, w, 1))

    given = blocked(x, target.channel_block)
    made = compiled(quantized, [given], target, tmp_path)(given)
    assert made.dtype == dtype
    value = convolved(x, weights, w) * 0.5
    inside = value if clip is None else np.minimum(np.maximum(value, clip[0]), clip[1])
    exact = np.clip(np.rint(inside) + zero, low, high)
    np.testing.assert_array_equal(np.moveaxis(made, -1, 2).reshape(1, -1, 15, 15)[:, :48], exact)
