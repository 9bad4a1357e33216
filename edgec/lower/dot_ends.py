"""The end of integer kernels as `edgec.lower.requantize` writes it down, read from TIR.

Bounds that a Relu or Clip sets before the rounding are taken together with those of the bytes: what
is an integer is not moved beyond it, or back, by rounding.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import tvm
import tvm_ffi
from tvm import tirx

RANGES = {"uint8": (0, 255), "int8": (-128, 127)}
"""The least and the highest byte by type."""


@dataclass(frozen=True)
class End:
    """Bytes are the nearest integers to `value`, float32, plus `zero`, within `low` and `high`."""

    value: Any
    zero: int
    low: int
    high: int


def end_of(value: Any, rounding: str) -> End | None:
    """What is bounded before the operator called `rounding`, and so may be beyond int32."""
    zero, rounded = _apart(value)
    bounded = _bounded(_argument(rounded, rounding))
    return bounded and _ended(zero, *bounded)


def end_in_int32(value: Any, rounding: str) -> End | None:
    """What is bounded behind the operator called `rounding`: it is well within int32."""
    zero, inside = _apart(value)
    bounded = _bounded(inside)
    if bounded is None:
        return None
    rounded, *bounds = bounded
    whole = _argument(rounded, rounding)
    return None if whole is None else _ended(zero, whole, *bounds)


def _ended(zero: int, value: Any, low: int, high: int) -> End:
    return _within(End(value, zero, low + zero, high + zero))


def _apart(value: Any) -> tuple[int, Any]:
    """The integer that is added at the end, and to what."""
    offset = _constant(value.b) if isinstance(value, tirx.Add) else None
    return (0, value) if offset is None else (int(offset), value.a)


def _argument(value: Any, rounding: str) -> Any:
    """That of a call of the operator called `rounding`, else None."""
    if not isinstance(value, tvm.ir.Call) or not isinstance(value.op, tvm.ir.Op):
        return None
    return value.args[0] if value.op.name == rounding else None


def _bounded(value: Any) -> tuple[Any, int, int] | None:
    """What is in min(max(..., low), high), and the bounds."""
    if not isinstance(value, tirx.Min) or not isinstance(value.a, tirx.Max):
        return None
    low, high = _constant(value.a.b), _constant(value.b)
    return None if low is None or high is None else (value.a.a, int(low), int(high))


def _within(end: End) -> End:
    """The same with the bounds by integers that the value itself has taken off it."""
    value = end.value
    if not isinstance(value, tirx.Select) or not isinstance(value.condition, tirx.LT):
        return end
    bound, (first, second) = _constant(value.true_value), (value.condition.a, value.condition.b)
    if bound is None or bound != int(bound):
        return end
    limit, inner = int(bound) + end.zero, value.false_value
    if _constant(second) == bound and tvm_ffi.structural_equal(first, inner):
        return _within(replace(end, value=inner, low=min(max(end.low, limit), end.high)))
    if _constant(first) == bound and tvm_ffi.structural_equal(second, inner):
        return _within(replace(end, value=inner, high=max(min(end.high, limit), end.low)))
    return end


def _constant(value: Any) -> float | None:
    inner = value.value if isinstance(value, tirx.Broadcast) else value
    if isinstance(inner, tirx.FloatImm | tirx.IntImm):
        return float(inner.value)
    return None
