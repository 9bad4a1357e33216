"""Bounds of floats by one instruction each, on processors whose maximum and minimum keep NaN.

    Select(x < low, low, x)    =>  maximum(x, low)
    Select(high < x, high, x)  =>  minimum(x, high)
    Select(isnan(x) or isnan(y) or ..., NaN, max(x, y, ...))  =>  maximum(x, maximum(y, ...))

with constants `low` and `high`. Only the sign of a zero may differ.
"""

from __future__ import annotations

import math
from typing import Any

import tvm
import tvm_ffi
from tvm import tirx

_KEEPS_NAN = "edgec.keeps_nan"
"""Marks a function whose maxima of floats are to be NaN where an operand is."""


def plain_maxima(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """`function` with its largest of several floats, or NaN, as maxima that `native_clamps` makes
    keep NaN.

    Comes before loops are vectorised, which questions for NaN are not.
    """
    found = False

    def largest(select: tirx.Select) -> Any:
        nonlocal found
        value, missing = select.false_value, select.true_value
        if not isinstance(missing, tirx.FloatImm) or not math.isnan(missing.value):
            return select
        asked, compared = _leaves(select.condition, tirx.Or), _leaves(value, tirx.Max)
        if len(asked) != len(compared) or not all(
            any(_is_question(question, each) for question in asked) for each in compared
        ):
            return select
        found = True
        return value

    plain = tvm_ffi.structural_map(function, (tirx.Select, largest))
    return plain.with_attr(_KEEPS_NAN, True) if found else function


def native_clamps(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """`function` with its comparisons of float32 with constants, and what `plain_maxima` left, as
    LLVM's maximum and minimum.

    Comes after loops are vectorised, which calls of LLVM's are not.
    """

    def clamp(select: tirx.Select) -> Any:
        condition = select.condition
        if not isinstance(condition, tirx.LT) or not str(select.ty.dtype).startswith("float32"):
            return select
        bound, value = select.true_value, select.false_value
        if not _is_constant(bound):
            return select
        if _same(condition.a, value) and _same(condition.b, bound):
            return tirx.call_llvm_intrin(select.ty.dtype, "llvm.maximum", value, bound)
        if _same(condition.a, bound) and _same(condition.b, value):
            return tirx.call_llvm_intrin(select.ty.dtype, "llvm.minimum", value, bound)
        return select

    clamped = tvm_ffi.structural_map(function, (tirx.Select, clamp))
    if _KEEPS_NAN not in (function.attrs or {}):
        return clamped

    def maximum(largest: tirx.Max) -> Any:
        dtype = str(largest.ty.dtype)
        if not dtype.startswith("float32"):
            return largest
        return tirx.call_llvm_intrin(dtype, "llvm.maximum", largest.a, largest.b)

    return tvm_ffi.structural_map(clamped, (tirx.Max, maximum))


def _leaves(expr: Any, kind: Any) -> list[Any]:
    """The operands of a tree of nodes of one kind."""
    if not isinstance(expr, kind):
        return [expr]
    return [*_leaves(expr.a, kind), *_leaves(expr.b, kind)]


def _is_question(expr: Any, value: Any) -> bool:
    """Whether `expr` asks if `value` is NaN."""
    return (
        isinstance(expr, tvm.ir.Call)
        and isinstance(expr.op, tvm.ir.Op)
        and expr.op.name == "tirx.isnan"
        and _same(expr.args[0], value)
    )


def _is_constant(value: Any) -> bool:
    inner = value.value if isinstance(value, tirx.Broadcast) else value
    return isinstance(inner, tirx.FloatImm)


def _same(first: Any, second: Any) -> bool:
    return bool(tvm_ffi.structural_equal(first, second))
