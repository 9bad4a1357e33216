"""Sequences of tensors that are known while lowering: lists of expressions, gone in the result."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_graphsurgeon as gs
from tvm import relax

from edgec.lower.context import Context, Refused, axis_of
from edgec.lower.shape import concat, strided

Sequence = list[relax.Expr]


def apply(ctx: Context, node: gs.Node, tensors: list[relax.Expr | None]) -> relax.Expr | None:
    """The result of an operator of `OPERATORS`; a sequence is put into `ctx.sequences` instead.

    `tensors` are the inputs as expressions, None for sequences. Raises Refused.
    """
    made = OPERATORS[node.op](ctx, node, tensors)
    if not isinstance(made, list):
        return made
    ctx.sequences[node.outputs[0].name] = made
    return None


def _sequence(ctx: Context, node: gs.Node) -> Sequence:
    """The node's first input."""
    name = node.inputs[0].name
    if name not in ctx.sequences:
        raise Refused(f"the sequence {name!r} is not known before the model runs")
    return ctx.sequences[name]


def _position(ctx: Context, node: gs.Node, index: int, count: int, default: int) -> int:
    """The place that input `index` names among `count`, which it may also count from the end."""
    if len(node.inputs) <= index or not node.inputs[index].name:
        return default
    place = int(ctx.required(node, index, "position").item())
    if not -count <= place <= count:
        raise Refused(f"position {place} is outside a sequence of {count}")
    return place + count if place < 0 else place


def construct(ctx: Context, node: gs.Node, tensors: list[relax.Expr | None]) -> Sequence:
    if any(x is None for x in tensors):
        raise Refused("an element is not a tensor edgec can make")
    return [x for x in tensors if x is not None]


def empty(ctx: Context, node: gs.Node, tensors: list[relax.Expr | None]) -> Sequence:
    ctx.ignore("dtype")
    return []


def insert(ctx: Context, node: gs.Node, tensors: list[relax.Expr | None]) -> Sequence:
    before = _sequence(ctx, node)
    if tensors[1] is None:
        raise Refused("what it inserts is not a tensor edgec can make")
    place = _position(ctx, node, 2, len(before), len(before))
    return [*before[:place], tensors[1], *before[place:]]


def erase(ctx: Context, node: gs.Node, tensors: list[relax.Expr | None]) -> Sequence:
    before = _sequence(ctx, node)
    place = _position(ctx, node, 1, len(before), len(before) - 1)
    if not 0 <= place < len(before):
        raise Refused(f"position {place} is outside a sequence of {len(before)}")
    return [*before[:place], *before[place + 1 :]]


def at(ctx: Context, node: gs.Node, tensors: list[relax.Expr | None]) -> relax.Expr:
    """An element; one that a run picks where all are of one shape and type."""
    elements = _sequence(ctx, node)
    if ctx.constant(node, 1) is not None:
        place = _position(ctx, node, 1, len(elements), 0)
        if place >= len(elements):
            raise Refused(f"position {place} is outside a sequence of {len(elements)}")
        return elements[place]
    kinds = {(ctx.shape(x), ctx.dtype(x)) for x in elements}
    if len(kinds) != 1 or tensors[1] is None:
        raise Refused("its elements have different shapes, and a run picks one")
    return ctx.choose(ctx.reshape(tensors[1], ()), elements)


def length(ctx: Context, node: gs.Node, tensors: list[relax.Expr | None]) -> relax.Expr:
    count = np.array(len(_sequence(ctx, node)), np.int64)
    ctx.values[node.outputs[0].name] = count
    return ctx.const(count)


def concatenated(ctx: Context, node: gs.Node, tensors: list[relax.Expr | None]) -> relax.Expr:
    """The elements one after the other, along an axis of theirs or a new one."""
    elements = _sequence(ctx, node)
    if not elements:
        raise Refused("it joins an empty sequence")
    if ctx.attr(node, "new_axis", 0):
        axis = axis_of(ctx.attr(node, "axis"), len(ctx.shape(elements[0])) + 1)
        elements = [
            ctx.reshape(x, (*ctx.shape(x)[:axis], 1, *ctx.shape(x)[axis:])) for x in elements
        ]
    return concat(ctx, node, elements)


def split(ctx: Context, node: gs.Node, tensors: list[relax.Expr | None]) -> Sequence:
    """Parts of one size, the last perhaps smaller, or of given sizes, or slices without the axis.

    `keepdims` counts where no sizes are given.
    """
    x = tensors[0]
    if x is None:
        raise Refused("what it splits is not a tensor edgec can make")
    shape = ctx.shape(x)
    axis, keep = axis_of(ctx.attr(node, "axis", 0), len(shape)), bool(ctx.attr(node, "keepdims", 1))
    given = len(node.inputs) > 1 and bool(node.inputs[1].name)
    wanted = np.asarray(ctx.required(node, 1, "split")) if given else np.array(1)
    if wanted.ndim == 0:
        size = int(wanted.item())
        if size < 1:
            raise Refused(f"parts of {size} do not make up {shape[axis]}")
        sizes = [min(size, shape[axis] - start) for start in range(0, shape[axis], size)]
    else:
        sizes = [int(n) for n in wanted]
    if sum(sizes) != shape[axis] or min(sizes, default=0) < 0:
        raise Refused(f"parts of {sizes} do not make up {shape[axis]}")
    parts, start = [], 0
    for size in sizes:
        first = [start if a == axis else 0 for a in range(len(shape))]
        out = tuple(size if a == axis else n for a, n in enumerate(shape))
        part = strided(ctx, x, first, [1] * len(shape), out)
        parts.append(part if given or keep else ctx.reshape(part, out[:axis] + out[axis + 1 :]))
        start += size
    return parts


OPERATORS: dict[
    str, Callable[[Context, gs.Node, list[relax.Expr | None]], relax.Expr | Sequence]
] = {
    "ConcatFromSequence": concatenated,
    "SequenceAt": at,
    "SequenceConstruct": construct,
    "SequenceEmpty": empty,
    "SequenceErase": erase,
    "SequenceInsert": insert,
    "SequenceLength": length,
    "SplitToSequence": split,
}
