"""Reading and writing by index. Out-of-range indices are clamped: they never leave the tensor."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from tvm import relax, te, tirx

from edgec.lower.context import Context, Refused, axis_of, literal, select
from edgec.lower.elementwise import maximum, minimum
from edgec.lower.lookup import lookup
from edgec.lower.loops import Loops
from edgec.lower.shape import picked


def position(index: Any, size: int) -> Any:
    """A possibly negative index as a place in range(size)."""
    index = index.astype("int64")
    zero = literal(0, "int64")
    wrapped = select(index < zero, index + literal(size, "int64"), index)
    return tirx.min(tirx.max(wrapped, zero), literal(size - 1, "int64"))


def gather(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
    x, indices = inputs
    shape, spread = ctx.shape(x), ctx.shape(indices)
    axis = axis_of(ctx.attr(node, "axis", 0), len(shape))
    found = lookup(ctx, node, inputs)
    if found is not None:
        return found
    size = shape[axis]
    out = (*shape[:axis], *spread, *shape[axis + 1 :])
    known = ctx.constant(node, 1)
    if prod(out) == 0:
        return ctx.empty(out, ctx.dtype(x))
    if known is not None and known.size == 1:
        place = _checked(int(known.item()), size)
        taken = picked(
            ctx,
            "slice",
            x,
            (*shape[:axis], 1, *shape[axis + 1 :]),
            lambda *i: [*i[:axis], i[axis] + place, *i[axis + 1 :]],
        )
        return ctx.reshape(taken, out)

    def compute(data: te.Tensor, where: te.Tensor) -> te.Tensor:
        def element(*i: Any) -> Any:
            at = position(where(*i[axis : axis + len(spread)]), size)
            return data(*i[:axis], at, *i[axis + len(spread) :])

        return te.compute(out, element, name="gather")

    return ctx.te("gather", compute, x, indices)


def _checked(index: int, size: int) -> int:
    if not -size <= index < size:
        raise Refused(f"index {index} is outside {size} elements")
    return index % size


def gather_elements(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
    x, indices = inputs
    shape, out = ctx.shape(x), ctx.shape(indices)
    axis = axis_of(ctx.attr(node, "axis", 0), len(shape))
    if prod(out) == 0:
        return ctx.empty(out, ctx.dtype(x))

    def compute(data: te.Tensor, where: te.Tensor) -> te.Tensor:
        def element(*i: Any) -> Any:
            return data(*i[:axis], position(where(*i), shape[axis]), *i[axis + 1 :])

        return te.compute(out, element, name="gather_elements")

    return ctx.te("gather_elements", compute, x, indices)


def gather_nd(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
    x, indices = inputs
    shape, spread = ctx.shape(x), ctx.shape(indices)
    batch, depth = int(ctx.attr(node, "batch_dims", 0)), spread[-1]
    if batch + depth > len(shape):
        raise Refused(f"indices of {depth} places do not fit {shape}")
    out = (*spread[:-1], *shape[batch + depth :])
    if prod(out) == 0:
        return ctx.empty(out, ctx.dtype(x))

    def compute(data: te.Tensor, where: te.Tensor) -> te.Tensor:
        def element(*i: Any) -> Any:
            lead, rest = i[: len(spread) - 1], i[len(spread) - 1 :]
            at = [position(where(*lead, k), shape[batch + k]) for k in range(depth)]
            return data(*lead[:batch], *at, *rest)

        return te.compute(out, element, name="gather_nd")

    return ctx.te("gather_nd", compute, x, indices)


_REDUCTIONS = {
    "none": lambda old, new: new,
    "add": lambda old, new: old + new,
    "mul": lambda old, new: old * new,
    "max": maximum,
    "min": minimum,
}


def _reduction(ctx: Context, node: gs.Node) -> Any:
    name = ctx.attr(node, "reduction", "none")
    if name not in _REDUCTIONS:
        raise Refused(f"reduction={name!r} is unknown")
    return _REDUCTIONS[name]


def scatter_elements(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
    x, indices, updates = inputs
    shape, spread = ctx.shape(x), ctx.shape(indices)
    axis = axis_of(ctx.attr(node, "axis", 0), len(shape))
    combine = _reduction(ctx, node)
    if prod(spread) == 0:
        return x

    def body(loops: Loops, data: Any, where: Any, new: Any, out: Any) -> None:
        with loops.over(shape) as i:
            out[i] = data[i]
        with loops.over(spread) as i:
            at = list(i)
            at[axis] = position(where[i], shape[axis])
            out[at] = combine(out[at], new[i])

    return ctx.loops("scatter_elements", body, [x, indices, updates], [(shape, ctx.dtype(x))])


def scatter_nd(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
    x, indices, updates = inputs
    shape, spread = ctx.shape(x), ctx.shape(indices)
    depth = spread[-1]
    combine = _reduction(ctx, node)
    if prod(ctx.shape(updates)) == 0:
        return x

    def body(loops: Loops, data: Any, where: Any, new: Any, out: Any) -> None:
        with loops.over(shape) as i:
            out[i] = data[i]
        with loops.over(ctx.shape(updates)) as i:
            lead, rest = list(i[: len(spread) - 1]), list(i[len(spread) - 1 :])
            at = [position(where[[*lead, k]], shape[k]) for k in range(depth)] + rest
            out[at] = combine(out[at], new[i])

    return ctx.loops("scatter_nd", body, [x, indices, updates], [(shape, ctx.dtype(x))])


def one_hot(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
    indices, _, values = inputs
    spread = ctx.shape(indices)
    rank = len(spread) + 1
    axis = axis_of(ctx.attr(node, "axis", -1), rank)
    known = ctx.constant(node, 1)
    count = ctx.output_shape(node)[axis] if known is None else int(known.item())
    out = (*spread[:axis], count, *spread[axis:])

    def compute(where: te.Tensor, two: te.Tensor) -> te.Tensor:
        def element(*i: Any) -> Any:
            index = where(*i[:axis], *i[axis + 1 :]).astype("int64")
            index = select(index < literal(0, "int64"), index + literal(count, "int64"), index)
            return select(index == i[axis].astype("int64"), two(1), two(0))

        return te.compute(out, element, name="one_hot")

    return ctx.te("one_hot", compute, indices, values)


def reverse_sequence(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
    x, lengths = inputs
    shape = ctx.shape(x)
    time = int(ctx.attr(node, "time_axis", 0))
    batch = int(ctx.attr(node, "batch_axis", 1))

    def compute(data: te.Tensor, length: te.Tensor) -> te.Tensor:
        def element(*i: Any) -> Any:
            at, n = i[time].astype("int64"), length(i[batch])
            back = n - literal(1, "int64") - at
            where = list(i)
            where[time] = position(select(at < n, back, at), shape[time])
            return data(*where)

        return te.compute(shape, element, name="reverse_sequence")

    return ctx.te("reverse_sequence", compute, x, lengths)


def tensor_scatter(ctx: Context, node: gs.Node, inputs: list[relax.Expr | None]) -> relax.Expr:
    """A cache with an update written into it from each batch's own position on."""
    past, update = inputs[0], inputs[1]
    shape, new = ctx.shape(past), ctx.shape(update)
    axis = axis_of(ctx.attr(node, "axis", -2), len(shape))
    circular = ctx.attr(node, "mode", "linear") == "circular"
    starts = inputs[2] if len(inputs) > 2 else None
    if starts is None:
        starts = ctx.const(np.zeros(shape[0], np.int64))

    def compute(data: te.Tensor, fresh: te.Tensor, start: te.Tensor) -> te.Tensor:
        def element(*i: Any) -> Any:
            off = i[axis].astype("int64") - start(i[0]).astype("int64")
            if circular:
                off = tirx.floormod(off, literal(shape[axis], "int64"))
            inside = tirx.all(off >= literal(0, "int64"), off < literal(new[axis], "int64"))
            where = [*i[:axis], position(off, new[axis]), *i[axis + 1 :]]
            return tirx.if_then_else(inside, fresh(*where), data(*i))

        return te.compute(shape, element, name="tensor_scatter")

    return ctx.te("tensor_scatter", compute, past, update, starts)


ENTRIES = {
    "Gather": gather,
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "ScatterElements": scatter_elements,
    "Scatter": scatter_elements,
    "ScatterND": scatter_nd,
    "OneHot": one_hot,
    "ReverseSequence": reverse_sequence,
    "TensorScatter": tensor_scatter,
}
