"""Blocked images: channels in blocks of a vector's width.

    plain x[N, C, H, W]   <->   blocked x[N, C / b, H, W, b]

The last block is filled up where b does not divide C; what those lanes hold is unspecified.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import relax, te

from edgec.lower.context import Context, Shape


@dataclass(frozen=True)
class Blocked:
    """A blocked image: `expr` has shape [N, blocks, H, W, b], `channels` of it mean something.

    Where the model sees an image of one axis (`rank` 3), H is 1.
    """

    expr: relax.Expr
    channels: int
    rank: int = 4

    def shape(self, ctx: Context) -> Shape:
        """The shape the model sees."""
        batch, _, height, width, _ = ctx.shape(self.expr)
        return (batch, self.channels, *([height] if self.rank == 4 else []), width)

    def plain(self, ctx: Context) -> relax.Expr:
        """The same image as [N, C, H, W], or [N, C, W]."""
        batch, _, height, width, block = ctx.shape(self.expr)
        if height == width == 1 and self.channels % block == 0:
            return ctx.reshape(self.expr, self.shape(ctx))

        def unblocked(x: te.Tensor) -> te.Tensor:
            return te.compute(
                (batch, self.channels, height, width),
                lambda n, c, h, w: x(n, c // block, h, w, c % block),
                name="unblock",
            )

        return ctx.reshape(ctx.te("unblock", unblocked, self.expr), self.shape(ctx))


def blocks_of(channels: int, block: int) -> int:
    return -(-channels // block)


def spread(values: np.ndarray, axis: int, block: int) -> np.ndarray:
    """Split `axis` into blocks, the last filled up with zeros; lanes become the last axis."""
    channels = values.shape[axis]
    fill = [(0, 0)] * values.ndim
    fill[axis] = (0, blocks_of(channels, block) * block - channels)
    padded = np.pad(values, fill)
    shape = (*padded.shape[:axis], -1, block, *padded.shape[axis + 1 :])
    return np.moveaxis(padded.reshape(shape), axis + 1, -1)
