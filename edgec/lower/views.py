"""Tensors that lie in another one: concatenations and slices along what is outermost in memory.

They stay Relax operators to the end, and `edgec.lower.extract` gives their operands or results a
place in the buffer of the whole. What lies elsewhere in memory is a kernel, as usual.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from math import prod

from tvm import relax, topi

from edgec.lower.context import Context, Shape
from edgec.program import ALIGNMENT, dtype_of

VIEWS = ("relax.concat", "relax.strided_slice")
"""Operators that are no kernels."""


def joined(ctx: Context, parts: Sequence[relax.Expr], axis: int) -> relax.Expr:
    """The tensors, at least one and none empty, one after the other along `axis`."""
    if len(parts) == 1:
        return parts[0]
    ends = list(accumulate(ctx.shape(part)[axis] for part in parts))
    if _is_view(ctx, parts[0], axis, ends[:-1]):
        return ctx.emit(relax.op.concat(list(parts), axis))
    return ctx.te("concatenate", lambda *tensors: topi.concatenate(tensors, axis), *parts)


def cut_out(ctx: Context, x: relax.Expr, first: Sequence[int], sizes: Shape) -> relax.Expr | None:
    """`x` from `first` on, of `sizes`, none of them 0; None where that takes a kernel."""
    shape = ctx.shape(x)
    axes = [axis for axis, (size, own) in enumerate(zip(sizes, shape, strict=True)) if size != own]
    if len(axes) != 1 or not _is_view(ctx, x, axes[0], [first[axes[0]]]):
        return None
    axis = axes[0]
    bounds = [first[axis]], [first[axis] + sizes[axis]]
    return ctx.emit(relax.op.strided_slice(x, [axis], *bounds))


def _is_view(ctx: Context, x: relax.Expr, axis: int, starts: Sequence[int]) -> bool:
    """Whether what begins at `starts` along `axis` is one piece of memory, aligned as buffers
    are."""
    *outer, _ = shape = ctx.shape(x)[: axis + 1]
    row = prod(ctx.shape(x)[len(shape) :]) * dtype_of(ctx.dtype(x)).itemsize
    return prod(outer) == 1 and not any(start * row % ALIGNMENT for start in starts)
