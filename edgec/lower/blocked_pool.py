"""Pooling of blocked images: windows over height and width, each lane by itself.

Small windows are written out tap by tap, with no padded copy: a maximum reads the nearest element
of the image where a tap lies outside, which is one of the same window. Larger windows take the
columns first and then the rows.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce
from itertools import product
from math import prod
from typing import Any

import onnx_graphsurgeon as gs
from tvm import relax, te, tirx

from edgec.lower import pool
from edgec.lower.context import (
    OUT_ELEMENTWISE_FUSABLE,
    Context,
    Shape,
    axis_of,
    is_float,
    literal,
    select,
)
from edgec.lower.image import Blocked
from edgec.lower.reduce import lowest
from edgec.lower.window import Window, window

_MOST_TAPS = 16
"""Taps of a window that are written out; larger ones are split, or summed up in a loop."""

Combine = Callable[[Sequence[Any]], Any]
"""The elements of a window -> the result."""


def max_pool(ctx: Context, node: gs.Node, inputs: list[Any]) -> Blocked | None:
    """The largest of each window, NaN where one is in it."""
    (image,) = inputs
    if not isinstance(image, Blocked) or len([t for t in node.outputs if t.name]) > 1:
        return None
    ctx.ignore("storage_order")
    w = window(ctx, node, image.shape(ctx)[2:])
    largest = _combined(ctx, "max_pool", image.expr, w, _largest, lowest(ctx.dtype(image.expr)))
    return Blocked(
        pool.max_of(ctx, node, image.expr, _wide(w, ctx)) if largest is None else largest,
        image.channels,
    )


def average_pool(ctx: Context, node: gs.Node, inputs: list[Any]) -> Blocked | None:
    """The mean of each window."""
    (image,) = inputs
    if not isinstance(image, Blocked):
        return None
    w = window(ctx, node, image.shape(ctx)[2:])
    total = _combined(ctx, "pool_sum", image.expr, w, _total, literal(0, "float32"))
    wide = _wide(w, ctx)
    if total is None:
        mean = pool.average_of(ctx, node, image.expr, wide)
    else:
        mean = pool.divided(ctx, node, total, ctx.shape(image.expr)[2:], wide)
    return Blocked(mean, image.channels)


def global_average_pool(ctx: Context, node: gs.Node, inputs: list[Any]) -> Blocked | None:
    """The mean over height and width."""
    (image,) = inputs
    return _mean(ctx, node, image) if isinstance(image, Blocked) else None


def global_max_pool(ctx: Context, node: gs.Node, inputs: list[Any]) -> Blocked | None:
    """The largest over height and width."""
    (image,) = inputs
    if not isinstance(image, Blocked):
        return None
    w = _wide(pool.whole(image.shape(ctx)[2:]), ctx)
    return Blocked(pool.max_of(ctx, node, image.expr, w), image.channels)


def reduce_mean(ctx: Context, node: gs.Node, inputs: list[Any]) -> Blocked | relax.Expr | None:
    """The mean over height and width."""
    image = inputs[0]
    axes = ctx.attr(node, "axes") if len(inputs) < 2 else ctx.constant(node, 1)
    if not isinstance(image, Blocked) or axes is None:
        return None
    if sorted(axis_of(axis, image.rank) for axis in axes) != list(range(2, image.rank)):
        return None
    ctx.ignore("noop_with_empty_axes")
    mean = replace(_mean(ctx, node, replace(image, rank=4)), rank=image.rank)
    if ctx.attr(node, "keepdims", 1):
        return mean
    return ctx.reshape(mean.plain(ctx), image.shape(ctx)[:2])


def _mean(ctx: Context, node: gs.Node, image: Blocked) -> Blocked:
    w = _wide(pool.whole(image.shape(ctx)[2:]), ctx)
    return Blocked(pool.average_of(ctx, node, image.expr, w), image.channels)


def _wide(w: Window, ctx: Context) -> Window:
    """A window over height, width and lanes, one lane at a time."""
    return Window(
        (*w.kernel, 1), (*w.strides, 1), (*w.dilations, 1), (*w.before, 0), (*w.after, 0),
        (*w.sizes, ctx.block),
    )  # fmt: skip


def _combined(
    ctx: Context, name: str, x: relax.Expr, w: Window, combine: Combine, outside: Any
) -> relax.Expr | None:
    """`combine` of each window, written out; None where its kernel is too large for that.

    `outside` stands for what lies outside the image.
    """
    if prod(w.kernel) <= _MOST_TAPS:
        return _written_out(ctx, name, x, w, combine, outside)
    if min(w.kernel) == 1 or max(w.kernel) > _MOST_TAPS:
        return None
    columns = _one_axis(w, 1, ctx.shape(x)[2])
    rows = _one_axis(w, 0, w.sizes[1])
    across = _written_out(ctx, name, x, columns, combine, outside)
    return _written_out(ctx, name, across, rows, combine, outside)


def _one_axis(w: Window, axis: int, other: int) -> Window:
    """The window along one axis, `other` being the extent of the other one."""

    def only(value: Shape, neutral: int) -> Shape:
        return (value[0], neutral) if axis == 0 else (neutral, value[1])

    ones = (only(w.kernel, 1), only(w.strides, 1), only(w.dilations, 1))
    return Window(*ones, only(w.before, 0), only(w.after, 0), only(w.sizes, other))


def _written_out(
    ctx: Context, name: str, x: relax.Expr, w: Window, combine: Combine, outside: Any
) -> relax.Expr:
    batch, blocks, *space, block = ctx.shape(x)
    nearest = combine is _largest and _all_inside(space, w)

    def element(data: te.Tensor, n: Any, c: Any, i: Any, j: Any, v: Any) -> Any:
        values = []
        for taps in product(*map(range, w.kernel)):
            at, inside = [], []
            for axis, (o, k) in enumerate(zip((i, j), taps, strict=True)):
                place = o * w.strides[axis] + (k * w.dilations[axis] - w.before[axis])
                below, above = _reaches(space[axis], w, axis, k)
                if nearest:
                    place = tirx.max(place, 0) if below else place
                    place = tirx.min(place, space[axis] - 1) if above else place
                inside += [place >= 0] if below else []
                inside += [place < space[axis]] if above else []
                at.append(place)
            value = data(n, c, *at, v)
            if inside and not nearest:
                value = tirx.if_then_else(tirx.all(*inside), value, outside)
            values.append(value)
        return combine(values)

    def compute(data: te.Tensor) -> te.Tensor:
        shape = (batch, blocks, *w.sizes, block)
        return te.compute(shape, lambda *at: element(data, *at), name=f"{name}_blocked")

    return ctx.te(name, compute, x, attributes={"op_pattern": OUT_ELEMENTWISE_FUSABLE})


def _reaches(size: int, w: Window, axis: int, tap: int) -> tuple[bool, bool]:
    """Whether a tap lies before the image somewhere, and whether beyond it."""
    first = tap * w.dilations[axis] - w.before[axis]
    return first < 0, first + (w.sizes[axis] - 1) * w.strides[axis] >= size


def _all_inside(space: list[int], w: Window) -> bool:
    """Whether the element nearest to a tap outside the image is always one of the same window."""
    return set(w.dilations) == {1} and all(
        w.before[axis] < w.kernel[axis]
        and (w.sizes[axis] - 1) * w.strides[axis] - w.before[axis] < size
        for axis, size in enumerate(space)
    )


def _largest(values: Sequence[Any]) -> Any:
    """The largest, or NaN where there is one: what max makes of that depends on the order."""
    if not is_float(str(values[0].ty.dtype)):
        return reduce(tirx.max, values)
    missing = tirx.any(*map(tirx.isnan, values))
    return select(missing, literal(float("nan"), "float32"), reduce(tirx.max, values))


def _total(values: Sequence[Any]) -> Any:
    return reduce(operator.add, values)
