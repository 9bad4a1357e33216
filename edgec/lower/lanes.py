"""Blocked images whose channels go to other lanes: repeated, cut out, put side by side."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax, te, tirx

from edgec.lower.context import Context
from edgec.lower.image import Blocked, blocks_of
from edgec.lower.shape import strided


def in_blocks(ctx: Context, x: relax.Expr) -> Blocked:
    """A plain image [N, C, H, W] as a blocked one."""
    batch, channels, height, width = ctx.shape(x)

    def compute(data: te.Tensor) -> te.Tensor:
        shape = (batch, blocks_of(channels, ctx.block), height, width, ctx.block)
        return te.compute(
            shape,
            lambda n, c, i, j, v: data(n, tirx.min(c * ctx.block + v, channels - 1), i, j),
            name="block",
        )

    return Blocked(ctx.te("block", compute, x), channels)


def channels_of(ctx: Context, image: Blocked, channels: range) -> Blocked:
    """Some of the channels, at least one: whole blocks stay what they are."""
    batch, blocks, height, width, block = ctx.shape(image.expr)
    if channels.step != 1 or channels.start % block:
        return regrouped(ctx, image, np.array(channels))
    count = blocks_of(len(channels), block)
    first = [0, channels.start // block, 0, 0, 0]
    sizes = (batch, count, height, width, block)
    taken = image.expr
    if count != blocks:
        taken = strided(ctx, image.expr, first, [1] * 5, sizes)
    return Blocked(taken, len(channels), image.rank)


def regrouped(ctx: Context, image: Blocked, channels: np.ndarray) -> Blocked:
    """The image whose channel c is `image`'s channel `channels[c]`; those count from one block to
    the next, lanes that mean nothing included."""
    batch, _, height, width, block = ctx.shape(image.expr)
    blocks = blocks_of(len(channels), block)
    filled = np.pad(channels, (0, blocks * block - len(channels)), mode="edge")
    places = filled.reshape(blocks, block).astype(np.int32)

    def compute(data: te.Tensor, of: te.Tensor) -> te.Tensor:
        def element(n: Any, c: Any, i: Any, j: Any, v: Any) -> Any:
            return data(n, of(c, v) // block, i, j, of(c, v) % block)

        return te.compute((batch, blocks, height, width, block), element, name="regroup")

    moved = ctx.te("regroup", compute, image.expr, ctx.const(places))
    return Blocked(moved, len(channels), image.rank)
