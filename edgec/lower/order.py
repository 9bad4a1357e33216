"""Operators whose elements depend on those before them: sorting, running sums."""

from __future__ import annotations

from math import prod
from typing import Any

import onnx_graphsurgeon as gs
from tvm import relax, tirx

from edgec.lower.context import Context, Refused, axis_of, is_float, literal
from edgec.lower.loops import Loops


def top_k(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> list[relax.Expr]:
    """The k extreme elements in order, the lower index first among equals; NaN ranks lowest."""
    x = inputs[0]
    shape, dtype = ctx.shape(x), ctx.dtype(x)
    axis = axis_of(ctx.attr(node, "axis", -1), len(shape))
    largest = bool(ctx.attr(node, "largest", 1))
    ctx.ignore("sorted")
    known = ctx.constant(node, 1)
    k = ctx.output_shape(node)[axis] if known is None else int(known.item())
    if not 0 <= k <= shape[axis]:
        raise Refused(f"k={k} of {shape[axis]} elements")
    out = tuple(k if a == axis else n for a, n in enumerate(shape))
    if prod(out) == 0:
        return [ctx.empty(out, dtype), ctx.empty(out, "int64")]

    def beats(a: Any, b: Any) -> Any:
        wins = a > b if largest else a < b
        if not is_float(dtype):
            return wins
        return tirx.any(wins, tirx.all(tirx.isnan(b), tirx.Not(tirx.isnan(a))))

    def body(loops: Loops, data: Any, values: Any, places: Any) -> None:
        slot = loops.local("int64")
        rows = [1 if a == axis else n for a, n in enumerate(shape)]
        zero, one = literal(0, "int64"), literal(1, "int64")

        def at(row: Any, place: Any) -> list[Any]:
            return [place if a == axis else i for a, i in enumerate(row)]

        with loops.over(rows) as row, loops.over([shape[axis]]) as (j,):
            new = data[at(row, j)]
            last = at(row, literal(k - 1, "int64"))
            with loops.when(tirx.any(j < k, beats(new, values[last]))):
                slot[0] = tirx.min(j.astype("int64"), literal(k - 1, "int64"))

                def left() -> list[Any]:
                    return at(row, tirx.max(slot[0] - one, zero))

                with loops.while_(tirx.all(slot[0] > zero, beats(new, values[left()]))):
                    values[at(row, slot[0])] = values[left()]
                    places[at(row, slot[0])] = places[left()]
                    slot[0] = slot[0] - one
                values[at(row, slot[0])] = new
                places[at(row, slot[0])] = j.astype("int64")

    return list(ctx.loops("top_k", body, [x], [(out, dtype), (out, "int64")]))


def _running(name: str, start: int, combine: Any) -> Any:
    def entry(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
        x = inputs[0]
        shape = ctx.shape(x)
        known = ctx.constant(node, 1)
        exclusive = bool(ctx.attr(node, "exclusive", 0))
        reverse = bool(ctx.attr(node, "reverse", 0))
        if prod(shape) == 0:
            return x
        if known is not None or len(shape) == 1:
            axis = 0 if known is None else axis_of(known.item(), len(shape))
            return running(ctx, x, axis, exclusive, reverse)
        every = [running(ctx, x, a, exclusive, reverse) for a in range(len(shape))]
        return ctx.choose(ctx.reshape(inputs[1], ()), every)

    def running(
        ctx: Context, x: relax.Expr, axis: int, exclusive: bool, reverse: bool
    ) -> relax.Expr:
        shape, dtype = ctx.shape(x), ctx.dtype(x)
        size = shape[axis]

        def body(loops: Loops, data: Any, out: Any) -> None:
            total = loops.local(dtype)
            rows = [1 if a == axis else n for a, n in enumerate(shape)]
            with loops.over(rows) as row:
                total[0] = literal(start, dtype)
                with loops.over([size]) as (j,):
                    place = size - 1 - j if reverse else j
                    at = [place if a == axis else i for a, i in enumerate(row)]
                    if exclusive:
                        out[at] = total[0]
                    total[0] = combine(total[0], data[at])
                    if not exclusive:
                        out[at] = total[0]

        return ctx.loops(name, body, [x], [(shape, dtype)])

    return entry


ENTRIES = {
    "TopK": top_k,
    "CumSum": _running("cumulative_sum", 0, lambda a, b: a + b),
    "CumProd": _running("cumulative_product", 1, lambda a, b: a * b),
}
