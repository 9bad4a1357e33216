"""Tensors with an extent that only a run decides: how many boxes are kept, where x is not zero.

Such a tensor is lowered at the largest size it can have, with a count beside it; its data are dense
at the beginning. Nothing may compute with it: it must be an output of the model, directly or by way
of `FOLLOWERS`.
"""

from __future__ import annotations

from math import prod
from typing import Any

import onnx_graphsurgeon as gs
from tvm import relax

from edgec.lower.cast import converted
from edgec.lower.context import Context, Refused, axis_of, literal
from edgec.lower.loops import Loops

FOLLOWERS = frozenset(["Cast", "Identity"])
"""Operators that keep every element in its place."""

UNKNOWN = "the size of its output is known at run time only"


def open_ended(graph: gs.Graph) -> frozenset[str]:
    """Names of the tensors of `graph`, its nodes in order, whose extent a run may decide."""
    outputs = {tensor.name for tensor in graph.outputs}
    found: set[str] = set()
    for node in reversed(graph.nodes):
        for tensor in node.outputs:
            followed = all(
                reader.op in FOLLOWERS and reader.outputs[0].name in found
                for reader in tensor.outputs
            )
            if followed and (tensor.outputs or tensor.name in outputs):
                found.add(tensor.name)
    return frozenset(found)


def non_zero(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
    """The indices of the elements that are not 0, a column each, in row-major order."""
    (x,) = inputs
    shape, dtype = ctx.shape(x), ctx.dtype(x)
    rank, most = len(shape), prod(shape)
    if not ctx.open_ended(node) or rank == 0:
        raise Refused(UNKNOWN)
    if most == 0:
        return ctx.with_extent(node, ctx.empty((rank, 0), "int64"), 1, ctx.const([0], "int64"))

    def body(loops: Loops, data: Any, out: Any, count: Any) -> None:
        found = loops.local("int64")
        count[0] = literal(0, "int64")
        with loops.over(shape) as i, loops.when(converted(data[i], dtype, "bool")):
            count[0] = count[0] + 1
        found[0] = literal(0, "int64")
        with loops.over(shape) as i, loops.when(converted(data[i], dtype, "bool")):
            for axis in range(rank):
                out[axis * count[0] + found[0]] = i[axis].astype("int64")
            found[0] = found[0] + 1

    made, count = ctx.loops("non_zero", body, [x], [((rank * most,), "int64"), ((1,), "int64")])
    return ctx.with_extent(node, ctx.reshape(made, (rank, most)), 1, count)


def compress(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
    """The slices of x along an axis, or the elements of x, whose condition is true."""
    x, condition = inputs
    shape, dtype = ctx.shape(x), ctx.dtype(x)
    given = ctx.attr(node, "axis")
    if not ctx.open_ended(node):
        raise Refused(UNKNOWN)
    if given is None:
        shape, axis = (prod(shape),), 0
    else:
        axis = axis_of(given, len(shape))
    before, size, after = prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])
    most = min(size, *ctx.shape(condition))
    bound = (*shape[:axis], most, *shape[axis + 1 :])
    if prod(bound) == 0:
        raise Refused(UNKNOWN)

    def body(loops: Loops, data: Any, keep: Any, out: Any, count: Any) -> None:
        place = loops.local("int64")
        count[0] = literal(0, "int64")
        with loops.over((most,)) as (k,), loops.when(keep[k]):
            count[0] = count[0] + 1
        place[0] = literal(0, "int64")
        with loops.over((before, most)) as (i, k), loops.when(keep[k]):
            with loops.over((after,)) as (j,):
                out[place[0] + j.astype("int64")] = data[i, k, j]
            place[0] = place[0] + after

    data = ctx.reshape(x, (before, size, after))
    made, count = ctx.loops(
        "compress", body, [data, condition], [((prod(bound),), dtype), ((1,), "int64")]
    )
    return ctx.with_extent(node, ctx.reshape(made, bound), axis, count)


ENTRIES = {"Compress": compress, "NonZero": non_zero}
