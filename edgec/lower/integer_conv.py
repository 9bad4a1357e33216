"""Convolutions of blocked uint8 images by int8 weights, summed four bytes at a time.

A sum over input channels takes four of a block at once, one over a depthwise window four rows of a
column, or, on Arm without SDOT, one at a time. Some of 3x3 are summed by tiles
(`edgec.lower.integer_winograd`). The loops are those of float convolutions
(`edgec.lower.blocked_conv`), with a quarter of the terms, so the same schedules serve.

The zero point costs nothing: sum((x - zero) * w) is sum(x * w) less a constant, and the border
around the image holds the zero point. What lanes without a channel hold meets weights of 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax, te, tirx

from edgec.lower import integer_winograd
from edgec.lower.border import bordered
from edgec.lower.context import Context, Shape, literal
from edgec.lower.dot import dot4, multiply, quad, signed_dot4
from edgec.lower.dot_forms import BYTES, MIDDLE, SIGNS, form_for, less_middle, quads
from edgec.lower.image import blocks_of, spread
from edgec.lower.window import Window


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
        total, origin = _depthwise(ctx, x, zero, weights, w)
    elif groups == 1 and integer_winograd.pays(ctx, x, weights, w):
        total, origin = integer_winograd.sums(ctx, x, zero, weights, w), 0
    else:
        total, origin = _dense(ctx, x, zero, ungrouped(weights, groups), w)
    if origin == zero:
        return total
    moved = (origin - zero) * weights.astype(np.int32).sum(axis=(1, 2, 3))
    lanes = spread(moved.astype(np.int32).reshape(1, -1, 1, 1), 1, ctx.block)
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


def padded(
    data: te.Tensor, zero: int, w: Window, reach: Shape, kept: bool = False, signed: bool = False
) -> te.Tensor:
    """The image inside of a border of `zero` wide enough for windows that reach so far; where there
    is one, `signed` makes bytes less 128 of all. It may be `kept` as a stage of its own."""
    rows, columns = (
        (size - 1) * stride + far
        for size, stride, far in zip(w.sizes, w.strides, reach, strict=True)
    )
    top, left = w.before
    form = less_middle if signed else None
    return bordered(data, top, left, rows, columns, fill=zero, kept=kept, form=form)


def _dense(
    ctx: Context, x: relax.Expr, zero: int, weights: np.ndarray, w: Window
) -> tuple[relax.Expr, int]:
    """The sums, and what was taken from each element of the image first."""
    batch, blocks, _, _, lanes = ctx.shape(x)
    outputs, inputs, *kernel = weights.shape
    used = lanes if blocks > 1 else -(-inputs // BYTES) * BYTES
    form = form_for(ctx.dots, weights, ctx.block)
    filled = np.zeros((outputs, blocks * used, *kernel), np.int8)
    filled[:, :inputs] = weights
    taps = spread(filled, 0, ctx.block)
    taps = taps.reshape(-1, blocks, used // BYTES, BYTES, *kernel, ctx.block)
    packed = form.packed(taps.transpose(0, 1, 4, 5, 2, 6, 3))

    def compute(data: te.Tensor, filt: te.Tensor) -> te.Tensor:
        image = padded(data, zero, w, w.reach, kept=form.staged, signed=form.staged)
        extents = (blocks, *kernel, used // BYTES)
        names = ("ib", "k0", "k1", "q")
        axes = [te.reduce_axis((0, n), name) for n, name in zip(extents, names, strict=True)]
        block, kh, kw, q = (axis.var for axis in axes)
        factors = form.factors(image, used, image is not data)

        def element(n: Any, o: Any, i: Any, j: Any, v: Any) -> Any:
            row = i * w.strides[0] + kh * w.dilations[0]
            column = j * w.strides[1] + kw * w.dilations[1]
            place, four = (n, block, row, column), (o, block, kh, kw, q)
            return te.sum(form.product(factors, place, q, filt, four, v), axis=axes)

        out = (batch, blocks_of(outputs, ctx.block), *w.sizes, ctx.block)
        return te.compute(out, element, name="conv2d_blocked")

    return ctx.te("conv2d", compute, x, ctx.const(packed)), form.origin


def _depthwise(
    ctx: Context, x: relax.Expr, zero: int, weights: np.ndarray, w: Window
) -> tuple[relax.Expr, int]:
    if ctx.dots == "pairs":
        return _by_products(ctx, x, zero, weights, w), 0
    return _by_quads(ctx, x, zero, weights, w)


def _by_products(
    ctx: Context, x: relax.Expr, zero: int, weights: np.ndarray, w: Window
) -> relax.Expr:
    """One product at a time, in 16 bits, as in floats."""
    batch, blocks, _, _, lanes = ctx.shape(x)
    taps = np.ascontiguousarray(spread(weights[:, 0], 0, lanes).astype(np.int16))

    def compute(data: te.Tensor, filt: te.Tensor) -> te.Tensor:
        image = padded(data, zero, w, w.reach)
        kh, kw = (te.reduce_axis((0, k), f"k{a}") for a, k in enumerate(w.kernel))

        def element(n: Any, c: Any, i: Any, j: Any, v: Any) -> Any:
            row = i * w.strides[0] + kh.var * w.dilations[0]
            column = j * w.strides[1] + kw.var * w.dilations[1]
            value = image(n, c, row, column, v).astype("int16")
            return te.sum(multiply(value, filt(c, kh.var, kw.var, v)), axis=[kh, kw])

        return te.compute((batch, blocks, *w.sizes, lanes), element, name="depthwise_blocked")

    return ctx.te("depthwise", compute, x, ctx.const(taps))


def _by_quads(
    ctx: Context, x: relax.Expr, zero: int, weights: np.ndarray, w: Window
) -> tuple[relax.Expr, int]:
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
    signed = ctx.dots == "signed"

    def compute(data: te.Tensor, filt: te.Tensor) -> te.Tensor:
        image = padded(data, zero, w, reach, kept=True, signed=signed)
        axes = [te.reduce_axis((0, down), "k0"), te.reduce_axis((0, width), "k1")]
        kq, kw = (axis.var for axis in axes)

        def element(n: Any, c: Any, i: Any, j: Any, v: Any) -> Any:
            shift = i % pairs
            row = i // pairs * pairs * w.strides[0] + BYTES * kq * w.dilations[0]
            column = j * w.strides[1] + kw * w.dilations[1]
            four = quad(*(image(n, c, row + k * w.dilations[0], column, v) for k in range(BYTES)))
            taps = filt(c, shift, kq, kw, v)
            if not signed:
                return te.sum(dot4(four, taps), axis=axes)
            return te.sum(signed_dot4(four if image is not data else four ^ SIGNS, taps), axis=axes)

        return te.compute((batch, blocks, *w.sizes, lanes), element, name="depthwise_quads")

    return ctx.te("depthwise", compute, x, ctx.const(packed)), MIDDLE if signed else 0
