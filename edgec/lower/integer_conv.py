"""Convolutions of blocked uint8 images by int8 weights, summed four bytes at a time.

A sum over input channels takes four of a block at once, one over a depthwise window four columns of
a row. The loops are those of float convolutions (`edgec.lower.blocked_conv`), with a quarter of the
terms, so the same schedules serve.

The zero point costs nothing: sum((x - zero) * w) is sum(x * w) less a constant, and the border
around the image holds the zero point. What lanes without a channel hold meets weights of 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax, te, tirx

from edgec.lower.border import bordered
from edgec.lower.context import Context, Shape, literal
from edgec.lower.dot import dot4, quad
from edgec.lower.image import blocks_of, spread
from edgec.lower.window import Window

BYTES = 4
"""Elements that are multiplied and added at once."""


def in_lanes(ctx: Context, x: relax.Expr, groups: int) -> relax.Expr:
    """A plain uint8 image [N, C, H, W] as blocks of as few lanes as hold its channels."""
    batch, channels, height, width = ctx.shape(x)
    few = -(-channels // BYTES) * BYTES
    lanes = few if groups == 1 and few < ctx.block else ctx.block

    def compute(data: te.Tensor) -> te.Tensor:
        def element(n: Any, c: Any, i: Any, j: Any, v: Any) -> Any:
            channel = c * lanes + v
            value = data(n, tirx.min(channel, channels - 1), i, j)
            return (
                value
                if channels % lanes == 0
                else tirx.Select(channel < channels, value, literal(0, "uint8"))
            )

        blocks = blocks_of(channels, lanes)
        return te.compute((batch, blocks, height, width, lanes), element, name="block")

    return ctx.te("block", compute, x)


def sums(
    ctx: Context,
    x: relax.Expr,
    zero: int,
    weights: np.ndarray,
    w: Window,
    groups: int,
) -> relax.Expr:
    """The convolution of `x` - `zero`, uint8 [N, blocks, H, W, lanes], by `weights`, int8
    [O, I / groups, kh, kw]: an int32 image of blocks of `ctx.block` lanes.

    `lanes` is a multiple of four; where they hold more than the I channels, all lanes of the last
    block beyond them may hold anything.
    """
    outputs = weights.shape[0]
    if groups > 1 and groups == outputs and weights.shape[1] == 1:
        total = _depthwise(ctx, x, zero, weights, w)
    else:
        total = _dense(ctx, x, zero, ungrouped(weights, groups), w)
    if not zero:
        return total
    origin = -zero * weights.astype(np.int32).sum(axis=(1, 2, 3))
    lanes = spread(origin.astype(np.int32).reshape(1, -1, 1, 1), 1, ctx.block)
    return ctx.emit(relax.op.add(total, ctx.const(lanes)))


def ungrouped(weights: np.ndarray, groups: int) -> np.ndarray:
    """Weights [O, I / groups, ...] as [O, I, ...], zeros where a group does not look."""
    if groups == 1:
        return weights
    outputs, inputs, *window = weights.shape
    whole = np.zeros((outputs, inputs * groups, *window), weights.dtype)
    each = outputs // groups
    for group in range(groups):
        rows = slice(group * each, (group + 1) * each)
        whole[rows, group * inputs : (group + 1) * inputs] = weights[rows]
    return whole


def quads(values: np.ndarray) -> np.ndarray:
    """int8 [..., 4] as int32 [...], the first byte lowest."""
    whole = np.ascontiguousarray(values, np.int8).view("<i4")[..., 0]
    return np.ascontiguousarray(whole, np.int32)


def padded(data: te.Tensor, zero: int, w: Window, reach: Shape, kept: bool = False) -> te.Tensor:
    """The image inside of a border of `zero` wide enough for windows that reach so far."""
    rows, columns = (
        (size - 1) * stride + far
        for size, stride, far in zip(w.sizes, w.strides, reach, strict=True)
    )
    top, left = w.before
    return bordered(data, top, left, rows, columns, fill=zero, kept=kept)


def _dense(ctx: Context, x: relax.Expr, zero: int, weights: np.ndarray, w: Window) -> relax.Expr:
    batch, blocks, _, _, lanes = ctx.shape(x)
    outputs, inputs, *kernel = weights.shape
    used = lanes if blocks > 1 else -(-inputs // BYTES) * BYTES
    filled = np.zeros((outputs, blocks * used, *kernel), np.int8)
    filled[:, :inputs] = weights
    taps = spread(filled, 0, ctx.block)
    taps = taps.reshape(-1, blocks, used // BYTES, BYTES, *kernel, ctx.block)
    packed = quads(taps.transpose(0, 1, 4, 5, 2, 6, 3))

    def compute(data: te.Tensor, filt: te.Tensor) -> te.Tensor:
        image = padded(data, zero, w, w.reach)
        extents = (blocks, *kernel, used // BYTES)
        names = ("ib", "k0", "k1", "q")
        axes = [te.reduce_axis((0, n), name) for n, name in zip(extents, names, strict=True)]
        block, kh, kw, q = (axis.var for axis in axes)

        def element(n: Any, o: Any, i: Any, j: Any, v: Any) -> Any:
            row = i * w.strides[0] + kh * w.dilations[0]
            column = j * w.strides[1] + kw * w.dilations[1]
            four = (image(n, block, row, column, BYTES * q + byte) for byte in range(BYTES))
            return te.sum(dot4(quad(*four), filt(o, block, kh, kw, q, v)), axis=axes)

        out = (batch, blocks_of(outputs, ctx.block), *w.sizes, ctx.block)
        return te.compute(out, element, name="conv2d_blocked")

    return ctx.te("conv2d", compute, x, ctx.const(packed))


def _depthwise(
    ctx: Context, x: relax.Expr, zero: int, weights: np.ndarray, w: Window
) -> relax.Expr:
    """Four rows of a column at once. Where windows of three rows overlap, the same four rows serve
    two of them: the upper one gives the last row a weight of 0, the lower one the first."""
    batch, blocks, _, _, lanes = ctx.shape(x)
    channels, _, height, width = weights.shape
    pairs = 2 if (height, w.strides[0], w.dilations[0]) == (BYTES - 1, 1, 1) else 1
    down = -(-height // BYTES)
    filled = np.zeros((pairs, channels, down * BYTES, width), np.int8)
    for shift in range(pairs):
        filled[shift, :, shift : shift + height] = weights[:, 0]
    taps = spread(filled, 1, lanes).reshape(pairs, blocks, down, BYTES, width, lanes)
    packed = quads(taps.transpose(1, 0, 2, 4, 5, 3))
    reach = ((down * BYTES - 1) * w.dilations[0] + pairs, w.reach[1])

    def compute(data: te.Tensor, filt: te.Tensor) -> te.Tensor:
        image = padded(data, zero, w, reach, kept=True)
        axes = [te.reduce_axis((0, down), "k0"), te.reduce_axis((0, width), "k1")]
        kq, kw = (axis.var for axis in axes)

        def element(n: Any, c: Any, i: Any, j: Any, v: Any) -> Any:
            shift = i % pairs
            row = (i - shift) * w.strides[0] + BYTES * kq * w.dilations[0]
            column = j * w.strides[1] + kw * w.dilations[1]
            four = (image(n, c, row + byte * w.dilations[0], column, v) for byte in range(BYTES))
            return te.sum(dot4(quad(*four), filt(c, shift, kq, kw, v)), axis=axes)

        return te.compute((batch, blocks, *w.sizes, lanes), element, name="depthwise_quads")

    return ctx.te("depthwise", compute, x, ctx.const(packed))
