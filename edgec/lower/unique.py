"""Unique: the distinct elements, or slices along an axis; a run decides how many there are."""

from __future__ import annotations

from math import prod
from typing import Any

import onnx_graphsurgeon as gs
from tvm import relax, tirx

from edgec.lower.context import Context, Refused, axis_of, is_float, literal
from edgec.lower.extent import UNKNOWN
from edgec.lower.loops import Buffer, Loops


def unique(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> list[relax.Expr]:
    """Distinct slices, where each is first, where each slice went, and how often each occurs.

    Every slice is compared with all distinct ones before it. NaN equals NaN and comes last.
    """
    (x,) = inputs
    shape, dtype = ctx.shape(x), ctx.dtype(x)
    given, ordered = ctx.attr(node, "axis"), bool(ctx.attr(node, "sorted", 1))
    axis = 0 if given is None else axis_of(given, len(shape))
    whole = (prod(shape),) if given is None else shape
    before, size, after = prod(whole[:axis]), whole[axis], prod(whole[axis + 1 :])
    counted = [k for k in (0, 1, 3) if k < len(node.outputs) and node.outputs[k].name]
    if prod(whole) == 0 or not all(ctx.open_ended(node, k) for k in counted):
        raise Refused(UNKNOWN)

    def body(loops: Loops, data: Any, *outputs: Any) -> None:
        y, first_out, inverse, tally_out, count = outputs
        work = loops.array((5, size), "int64")
        order, first, tally, rank, group = (_Row(work, k) for k in range(5))
        slot, place, found, sign = (loops.local("int64") for _ in range(4))
        zero, one = literal(0, "int64"), literal(1, "int64")
        count[0] = zero
        with loops.over((size,)) as (i,):
            slot[0], place[0], found[0] = zero, zero, literal(-1, "int64")
            with loops.while_(slot[0] < count[0]):
                sign[0] = zero
                with (
                    loops.over((before, after)) as (b, a),
                    loops.when(sign[0] == zero),
                ):
                    sign[0] = _sign(data[b, i, a], data[b, first[order[slot[0]]], a], dtype)
                with loops.when(sign[0] > zero):
                    place[0] = place[0] + one
                with loops.when(sign[0] == zero):
                    found[0] = order[slot[0]]
                slot[0] = slot[0] + one
            with loops.when(found[0] < zero):
                slot[0] = count[0]
                with loops.while_(slot[0] > place[0] if ordered else slot[0] > count[0]):
                    order[slot[0]] = order[slot[0] - one]
                    slot[0] = slot[0] - one
                order[slot[0]] = count[0]
                found[0] = count[0]
                first[count[0]] = i.astype("int64")
                tally[count[0]] = zero
                count[0] = count[0] + one
            group[i] = found[0]
            tally[found[0]] = tally[found[0]] + one
        slot[0] = zero
        with loops.while_(slot[0] < count[0]):
            which = order[slot[0]]
            rank[which] = slot[0]
            first_out[slot[0]] = first[which]
            tally_out[slot[0]] = tally[which]
            with loops.over((before, after)) as (b, a):
                to = (b.astype("int64") * count[0] + slot[0]) * after + a.astype("int64")
                y[to] = data[b, first[which], a]
            slot[0] = slot[0] + one
        with loops.over((size,)) as (i,):
            inverse[i] = rank[group[i]]

    row = ((size,), "int64")
    y, *rest, count = ctx.loops(
        "unique",
        body,
        [ctx.reshape(x, (before, size, after))],
        [((prod(whole),), dtype), row, row, row, ((1,), "int64")],
    )
    results = [ctx.reshape(y, whole), *rest]
    for k in counted:
        ctx.with_extent(node, results[k], axis if k == 0 else 0, count, k)
    return results


def _sign(a: Any, b: Any, dtype: str) -> Any:
    """1 where `a` comes after `b`, -1 where it comes before, else 0."""
    wider = {"bool": "int8", "bfloat16": "float32"}.get(dtype, dtype)
    a, b = a.astype(wider), b.astype(wider)

    def less(p: Any, q: Any) -> Any:
        if not is_float(dtype):
            return p < q
        return tirx.any(p < q, tirx.all(tirx.isnan(q), tirx.Not(tirx.isnan(p))))

    return less(b, a).astype("int64") - less(a, b).astype("int64")


class _Row:
    """A row of a table. TVM loses working arrays that index each other, but not rows of one."""

    def __init__(self, table: Buffer, row: int) -> None:
        self.table, self.row = table, row

    def __getitem__(self, index: Any) -> Any:
        return self.table[self.row, index]

    def __setitem__(self, index: Any, value: Any) -> None:
        self.table[self.row, index] = value


ENTRIES = {"Unique": unique}
