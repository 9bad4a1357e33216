"""Reductions. Axes may be an attribute, a constant, or implied by the output's shape."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from math import prod
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from tvm import relax, te, tirx

from edgec.lower.context import (
    Context,
    Refused,
    Shape,
    axis_of,
    is_float,
    literal,
    numpy_dtype,
    select,
)
from edgec.lower.elementwise import maximum, minimum

Fn = Callable[..., Any]


def lowest(dtype: Any) -> Any:
    """The identity of max."""
    name = str(dtype)
    if name == "bool":
        return tirx.const(False, "bool")
    return -tirx.infinity(name) if is_float(name) else tirx.min_value(name)


def highest(dtype: Any) -> Any:
    """The identity of min."""
    name = str(dtype)
    if name == "bool":
        return tirx.const(True, "bool")
    return tirx.infinity(name) if is_float(name) else tirx.max_value(name)


def reducer(combine: Fn, identity: Fn, name: str) -> Fn:
    """A commutative reduction for `te.compute`, as `result(value, axis=axes)`."""
    made: Fn = te.comm_reducer(combine, identity, name)
    return made


SUM = reducer(lambda a, b: a + b, lambda t: literal(0, str(t)), "sum")
PROD = reducer(lambda a, b: a * b, lambda t: literal(1, str(t)), "prod")
MAX = reducer(maximum, lowest, "max")
MIN = reducer(minimum, highest, "min")


def reduced(
    ctx: Context,
    x: relax.Expr,
    axes: tuple[int, ...],
    combine: Fn,
    transform: Fn = lambda v: v,
    name: str = "reduce",
) -> relax.Expr:
    """`combine` of `transform` of the elements along `axes`, which stay as size 1."""
    shape = ctx.shape(x)
    if not axes:
        return ctx.map(name, transform, x)
    kept = tuple(1 if a in axes else n for a, n in enumerate(shape))

    def compute(data: te.Tensor) -> te.Tensor:
        spans = {a: te.reduce_axis((0, shape[a]), f"k{a}") for a in axes}

        def element(*index: Any) -> Any:
            where = [spans[a].var if a in spans else i for a, i in enumerate(index)]
            return combine(transform(data(*where)), axis=list(spans.values()))

        return te.compute(kept, element, name=name)

    return ctx.te(name, compute, x)


def axes_of(ctx: Context, node: gs.Node, x: relax.Expr, position: int = 1) -> tuple[int, ...]:
    """The axes a reduction node names; all of them where it names none."""
    rank = len(ctx.shape(x))
    keep_all = bool(ctx.attr(node, "noop_with_empty_axes", 0))
    value = ctx.attr(node, "axes")
    present = len(node.inputs) > position and node.inputs[position].name
    if value is None and present:
        value = ctx.constant(node, position)
        if value is None:
            return _implied_axes(ctx, node, ctx.shape(x))
    named = [] if value is None else np.atleast_1d(np.asarray(value)).tolist()
    if not named:
        return () if keep_all else tuple(range(rank))
    return tuple(sorted({axis_of(a, rank) for a in named}))


def _implied_axes(ctx: Context, node: gs.Node, shape: Shape) -> tuple[int, ...]:
    """The axes that the output's shape shows to be reduced, where it leaves no choice."""
    out = ctx.output_shape(node)
    rank = len(shape)
    if ctx.attr(node, "keepdims", 1):
        return tuple(a for a in range(rank) if out[a] != shape[a])
    choices = [
        axes
        for axes in combinations(range(rank), rank - len(out))
        if tuple(n for a, n in enumerate(shape) if a not in axes) == out
    ]
    if len(choices) != 1:
        raise Refused("axes must be constant: the output's shape does not tell them")
    return choices[0]


def reduction(
    name: str,
    combine: Fn,
    empty: Fn,
    before: Fn = lambda v: v,
    after: Fn | None = None,
) -> Fn:
    """An entry computing `after(combine(before(x)), count)`; `empty(dtype)` over nothing."""

    def entry(ctx: Context, node: gs.Node, inputs: list[relax.Expr | None]) -> relax.Expr:
        x = inputs[0]
        axes = axes_of(ctx, node, x)
        keep = bool(ctx.attr(node, "keepdims", 1))
        shape, dtype = ctx.shape(x), ctx.dtype(x)
        kept = tuple(1 if a in axes else n for a, n in enumerate(shape))
        squeezed = kept if keep else tuple(n for a, n in enumerate(shape) if a not in axes)
        if prod(shape) == 0:
            return ctx.full(squeezed, empty(dtype), dtype)
        narrow = dtype in ("float16", "bfloat16")
        if narrow:
            x = ctx.cast(x, "float32")
        if name in ("max", "min") and dtype == "bool":
            x = ctx.cast(x, "int8")
        y = reduced(ctx, x, axes, combine, before, f"reduce_{name}")
        if after is not None:
            count = prod(shape[a] for a in axes)
            y = ctx.map(f"{name}_of", lambda v: after(v, count), y)
        if narrow:
            y = ctx.cast(y, dtype)
        if ctx.dtype(y) != dtype:
            y = ctx.map("cast", lambda v: v != literal(0, "int8"), y)
        return ctx.reshape(y, squeezed)

    return entry


def _type(x: Any) -> str:
    return str(x.dtype if hasattr(x, "dtype") else x.ty.dtype)


def _mean(total: Any, count: int) -> Any:
    dtype = _type(total)
    if is_float(dtype):
        return total * literal(1.0 / count, dtype)
    return tirx.truncdiv(total, literal(count, dtype))


def _through_float(function: Fn) -> Fn:
    """`function` of an element, in float32 for integers of at most 32 bits, float64 beyond."""

    def computed(x: Any, _: int = 0) -> Any:
        dtype = _type(x)
        if is_float(dtype):
            return function(x)
        return function(x.astype("float64")).astype(dtype)

    return computed


def _zero(dtype: str) -> float:
    return 0.0


def _nan(dtype: str) -> float:
    return float("nan") if is_float(dtype) else 0.0


def _least(dtype: str) -> Any:
    if dtype == "bool":
        return False
    return -np.inf if is_float(dtype) else np.iinfo(numpy_dtype(dtype)).min


def _most(dtype: str) -> Any:
    if dtype == "bool":
        return True
    return np.inf if is_float(dtype) else np.iinfo(numpy_dtype(dtype)).max


def log_sum_exp(ctx: Context, node: gs.Node, inputs: list[relax.Expr | None]) -> relax.Expr:
    """log(sum(exp(x))), shifted by the maximum so that it does not overflow."""
    x = inputs[0]
    shape, dtype = ctx.shape(x), ctx.dtype(x)
    axes = axes_of(ctx, node, x)
    keep = bool(ctx.attr(node, "keepdims", 1))
    kept = tuple(1 if a in axes else n for a, n in enumerate(shape))
    squeezed = kept if keep else tuple(n for a, n in enumerate(shape) if a not in axes)
    if prod(shape) == 0:
        return ctx.full(squeezed, _least(dtype), dtype)
    wide = ctx.cast(x, "float64" if dtype == "float64" or not is_float(dtype) else "float32")
    kind = ctx.dtype(wide)
    top = reduced(ctx, wide, axes, MAX, name="reduce_max")
    infinity = tirx.infinity(kind)

    def shift(v: Any) -> Any:
        endless = tirx.any(v == infinity, v == -infinity)
        return select(endless, literal(0, kind), v)

    top = ctx.map("shift", shift, top)
    powers = ctx.map("exp", lambda v, m: tirx.exp(v - m), wide, top)
    total = reduced(ctx, powers, axes, SUM, name="reduce_sum")
    y = ctx.map("log", lambda s, m: tirx.log(s) + m, total, top)
    return ctx.reshape(ctx.cast(y, dtype), squeezed)


def arg_extreme(ctx: Context, x: relax.Expr, axis: int, *, largest: bool, last: bool) -> relax.Expr:
    """The int64 position along `axis`, kept as size 1, of the extreme element.

    Ties go to the first, or to the `last`; NaN counts as the extreme, as in numpy.
    """
    shape, dtype = ctx.shape(x), ctx.dtype(x)
    kept = tuple(1 if a == axis else n for a, n in enumerate(shape))
    start = lowest(dtype) if largest else highest(dtype)

    def better(a: Any, b: Any) -> Any:
        beats = b[1] > a[1] if largest else b[1] < a[1]
        if last:
            beats = tirx.any(beats, b[1] == a[1])
        if is_float(dtype):
            nan_a, nan_b = tirx.isnan(a[1]), tirx.isnan(b[1])
            beats = tirx.any(
                tirx.all(beats, tirx.Not(nan_a)),
                nan_b if last else tirx.all(nan_b, tirx.Not(nan_a)),
            )
        beats = tirx.any(beats, a[0] < literal(0, "int64"))
        return select(beats, b[0], a[0]), select(beats, b[1], a[1])

    best = te.comm_reducer(better, lambda *_: (literal(-1, "int64"), start), "arg")

    def compute(data: te.Tensor) -> te.Tensor:
        span = te.reduce_axis((0, shape[axis]), "k")

        def element(*index: Any) -> Any:
            where = [span.var if a == axis else i for a, i in enumerate(index)]
            return best((span.var.astype("int64"), data(*where)), axis=[span])

        place, _ = te.compute(kept, element, name="arg")
        return te.compute(kept, lambda *index: place(*index), name="place")

    return ctx.te("arg_max" if largest else "arg_min", compute, x)


def _arg(largest: bool) -> Fn:
    def entry(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
        (x,) = inputs
        shape = ctx.shape(x)
        axis = axis_of(ctx.attr(node, "axis", 0), len(shape))
        last = bool(ctx.attr(node, "select_last_index", 0))
        y = arg_extreme(ctx, x, axis, largest=largest, last=last)
        if ctx.attr(node, "keepdims", 1):
            return y
        return ctx.reshape(y, tuple(n for a, n in enumerate(shape) if a != axis))

    return entry


def _abs(x: Any) -> Any:
    return x if _type(x).startswith("uint") else tirx.abs(x)


ENTRIES = {
    "ReduceSum": reduction("sum", SUM, _zero),
    "ReduceMean": reduction("mean", SUM, _nan, after=_mean),
    "ReduceMax": reduction("max", MAX, _least),
    "ReduceMin": reduction("min", MIN, _most),
    "ReduceProd": reduction("prod", PROD, lambda _: 1.0),
    "ReduceL1": reduction("l1", SUM, _zero, before=_abs),
    "ReduceL2": reduction(
        "l2", SUM, _zero, before=lambda v: v * v, after=_through_float(tirx.sqrt)
    ),
    "ReduceSumSquare": reduction("sum_square", SUM, _zero, before=lambda v: v * v),
    "ReduceLogSum": reduction("log_sum", SUM, _least, after=_through_float(tirx.log)),
    "ReduceLogSumExp": log_sum_exp,
    "ArgMax": _arg(largest=True),
    "ArgMin": _arg(largest=False),
}
