"""Bounds of floats by one instruction each, on processors whose maximum and minimum keep NaN.

    Select(x < low, low, x)    =>  maximum(x, low)
    Select(high < x, high, x)  =>  minimum(x, high)

with constants `low` and `high`. Only the sign of a zero may differ.
"""

from __future__ import annotations

from typing import Any

import tvm_ffi
from tvm import tirx


def native_clamps(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """`function` with its comparisons of float32 with constants as LLVM's maximum and minimum.

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

    return tvm_ffi.structural_map(function, (tirx.Select, clamp))


def _is_constant(value: Any) -> bool:
    inner = value.value if isinstance(value, tirx.Broadcast) else value
    return isinstance(inner, tirx.FloatImm)


def _same(first: Any, second: Any) -> bool:
    return bool(tvm_ffi.structural_equal(first, second))
