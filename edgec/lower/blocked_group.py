"""Convolutions in groups, and depthwise ones that are not the plain case, on blocked images."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax, te, tirx

from edgec.lower.border import padded_for
from edgec.lower.context import Context, Shape
from edgec.lower.image import Blocked, blocks_of, spread
from edgec.lower.window import Window


def repeated(ctx: Context, x: Any, times: int) -> Blocked:
    """The image, plain or blocked, as a blocked one that has each channel `times` times in a
    row."""
    if isinstance(x, Blocked) and times == 1:
        return x
    batch, own, height, width = x.shape(ctx) if isinstance(x, Blocked) else ctx.shape(x)
    channels, block = own * times, ctx.block

    def compute(data: te.Tensor) -> te.Tensor:
        def element(n: Any, c: Any, i: Any, j: Any, v: Any) -> Any:
            channel = tirx.min(c * block + v, channels - 1) // times
            if isinstance(x, Blocked):
                return data(n, channel // block, i, j, channel % block)
            return data(n, channel, i, j)

        shape = (batch, blocks_of(channels, block), height, width, block)
        return te.compute(shape, element, name="block")

    return Blocked(ctx.te("block", compute, x.expr if isinstance(x, Blocked) else x), channels)


def grouped(
    ctx: Context, x: Any, shape: Shape, weight: np.ndarray, w: Window, groups: int
) -> relax.Expr | None:
    """A convolution in groups whose output channels fill blocks; None for any other.

    A block of outputs then reads the channels of one group: in blocks where they come so, else one
    by one.
    """
    block, depth, out = ctx.block, weight.shape[1], weight.shape[0] // groups
    if out % block or depth * groups != shape[1]:
        return None
    whole = isinstance(x, Blocked) and depth % block == 0
    taps = spread(weight, 0, block)
    if whole:
        taps = np.moveaxis(taps.reshape(taps.shape[0], -1, block, *taps.shape[2:]), 2, -2)

    def compute(data: te.Tensor, filt: te.Tensor) -> te.Tensor:
        padded = padded_for(data, w)
        kh, kw = (te.reduce_axis((0, k), f"k{a}") for a, k in enumerate(w.kernel))
        channel = te.reduce_axis((0, depth // block if whole else depth), "ic")
        lane = te.reduce_axis((0, block), "il")

        def element(n: Any, o: Any, i: Any, j: Any, v: Any) -> Any:
            row = i * w.strides[0] + kh.var * w.dilations[0]
            column = j * w.strides[1] + kw.var * w.dilations[1]
            group = o // (out // block)
            if whole:
                place = group * (depth // block) + channel.var
                term = padded(n, place, row, column, lane.var)
                term *= filt(o, channel.var, kh.var, kw.var, lane.var, v)
                return te.sum(term, axis=[channel, kh, kw, lane])
            place = group * depth + channel.var
            if isinstance(x, Blocked):
                term = padded(n, place // block, row, column, place % block)
            else:
                term = padded(n, place, row, column)
            term *= filt(o, channel.var, kh.var, kw.var, v)
            return te.sum(term, axis=[channel, kh, kw])

        size = (shape[0], taps.shape[0], *w.sizes, block)
        return te.compute(size, element, name="conv2d_blocked")

    image = x.expr if isinstance(x, Blocked) else x
    return ctx.te("conv2d", compute, image, ctx.const(np.ascontiguousarray(taps)))
