"""Convolutions in groups, and depthwise ones that are not the plain case, on blocked images."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax, te

from edgec.lower.border import padded_for
from edgec.lower.context import Context, Shape
from edgec.lower.image import Blocked, blocks_of, spread
from edgec.lower.lanes import in_blocks, regrouped
from edgec.lower.window import Window

_MOST_FILLED = 4
"""Lanes per channel above which a group is too small for blocks of its own."""


def repeated(ctx: Context, x: Any, times: int) -> Blocked:
    """The image, plain or blocked, as a blocked one that has each channel `times` times in a
    row."""
    image = x if isinstance(x, Blocked) else in_blocks(ctx, x)
    if times == 1:
        return image
    return regrouped(ctx, image, np.arange(image.channels * times) // times)


def grouped(
    ctx: Context, x: Any, shape: Shape, weight: np.ndarray, w: Window, groups: int
) -> relax.Expr | None:
    """A convolution in groups; None for groups of too few output channels.

    Where these do not fill blocks, each group gets blocks of its own, and then the channels move
    together.
    """
    block, out = ctx.block, weight.shape[0] // groups
    filled = blocks_of(out, block) * block
    if filled > _MOST_FILLED * out or weight.shape[1] * groups != shape[1]:
        return None
    apart = weight.reshape(groups, out, *weight.shape[1:])
    apart = np.pad(apart, [(0, 0), (0, filled - out), *[(0, 0)] * 3])
    y = _in_whole_blocks(ctx, x, shape, apart.reshape(-1, *weight.shape[1:]), w, groups)
    if filled == out:
        return y
    channel = np.arange(weight.shape[0])
    places = channel // out * filled + channel % out
    return regrouped(ctx, Blocked(y, groups * filled), places).expr


def _in_whole_blocks(
    ctx: Context, x: Any, shape: Shape, weight: np.ndarray, w: Window, groups: int
) -> relax.Expr:
    """A convolution in groups whose output channels fill blocks: a block of outputs reads the
    channels of one group, in blocks where they come so, else one by one."""
    block, depth, out = ctx.block, weight.shape[1], weight.shape[0] // groups
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
