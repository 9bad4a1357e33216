"""Softmax and its relatives. The powers are of two, which costs fewer steps than those of e.

Of float32, what is 2 ** -125 of a row's largest or less counts as nothing: numbers without their
full precision (denormal) would take a hundred times as long.
"""

from __future__ import annotations

from math import log2
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from tvm import relax, te, tirx

from edgec.lower.context import Context, Refused, axis_of, literal, select
from edgec.lower.elementwise import dtype_of
from edgec.lower.ends import over_row
from edgec.lower.reduce import SUM, arg_extreme

_LOG2_E = log2(np.e)


def softmax_over(ctx: Context, x: relax.Expr, axis: int, *, log: bool = False) -> relax.Expr:
    """exp(x) / sum(exp(x)) over `axis`, or with `log` its logarithm. `x` is float32 or float64."""
    shape, dtype = ctx.shape(x), ctx.dtype(x)
    rows = (*shape[:axis], *shape[axis + 1 :])
    block = ctx.block if axis == len(shape) - 1 else 0

    def compute(data: te.Tensor) -> te.Tensor:
        def of_row(index: tuple[Any, ...]) -> tuple[Any, ...]:
            return (*index[:axis], *index[axis + 1 :])

        def over(name: str, values: te.Tensor, reducer: Any, combine: Any) -> te.Tensor:
            def term(*index: Any) -> Any:
                *row, k = index
                return values(*row[:axis], k, *row[axis:])

            return over_row(name, rows, shape[axis], block, term, reducer, combine)

        largest = over("largest", data, te.max, tirx.max)

        def below(index: tuple[Any, ...]) -> Any:
            return data(*index) - largest(*of_row(index))

        powers = te.compute(shape, lambda *index: _exp(below(index)), name="powers")
        total = over("total", powers, SUM, lambda a, b: a + b)
        if log:
            logs = te.compute(rows, lambda *row: tirx.log(total(*row)), name="logs")
            return te.compute(
                shape, lambda *index: below(index) - logs(*of_row(index)), name="log_softmax"
            )
        share = te.compute(rows, lambda *row: literal(1, dtype) / total(*row), name="share")
        return te.compute(
            shape, lambda *index: powers(*index) * share(*of_row(index)), name="softmax"
        )

    return ctx.te("softmax", compute, x)


def _exp(x: Any) -> Any:
    if dtype_of(x) != "float32":
        return tirx.exp(x)
    return tirx.exp2(x * literal(_LOG2_E, "float32"))


def softmax(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
    return _normalized(ctx, node, inputs[0], log=False)


def log_softmax(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
    return _normalized(ctx, node, inputs[0], log=True)


def _normalized(ctx: Context, node: gs.Node, x: relax.Expr, *, log: bool) -> relax.Expr:
    axis = axis_of(ctx.attr(node, "axis", -1), len(ctx.shape(x)))
    dtype = ctx.dtype(x)
    if not ctx.shape(x):
        raise Refused("a scalar has no axis to normalize")
    wide = ctx.cast(x, "float32") if dtype in ("float16", "bfloat16") else x
    return ctx.cast(softmax_over(ctx, wide, axis, log=log), dtype)


def hardmax(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
    (x,) = inputs
    axis = axis_of(ctx.attr(node, "axis", -1), len(ctx.shape(x)))
    best = arg_extreme(ctx, x, axis, largest=True, last=False)
    dtype = ctx.dtype(x)
    shape = ctx.shape(x)

    def one_hot(v: te.Tensor) -> te.Tensor:
        def element(*index: Any) -> Any:
            where = tuple(0 if a == axis else i for a, i in enumerate(index))
            hit = v(*where) == index[axis].astype("int64")
            return select(hit, literal(1, dtype), literal(0, dtype))

        return te.compute(shape, element, name="hardmax")

    return ctx.te("hardmax", one_hot, best)


ENTRIES = {"Softmax": softmax, "LogSoftmax": log_softmax, "Hardmax": hardmax}
