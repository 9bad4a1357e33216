"""The end of integer kernels on 64-bit Arm: floats to bytes by conversions that saturate.

    uint8(to_nearest(min(max(x, low), high)) + zero)  =>  UQXTN(SQXTN(FCVTNS(x)) + zero)

Bounds are then those of bytes, and cost nothing where they are the whole range; what the graph's
own Clip adds, whose bounds are integers too, becomes one instruction for eight bytes. Whatever is
beyond a wider type is beyond bytes as well, so that the result is the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import tvm
import tvm_ffi
from tvm import tirx

from edgec.lower.dot_vectors import joined, kind_of, lanes_of, number, part

_WORDS, _BYTES = 4, 8
_RANGES = {"uint8": (0, 255), "int8": (-128, 127)}
_NARROW = {"uint8": "llvm.aarch64.neon.sqxtun.v8i8", "int8": "llvm.aarch64.neon.sqxtn.v8i8"}
_BOUNDS = {
    "uint8": ("llvm.umax.v8i8", "llvm.umin.v8i8"),
    "int8": ("llvm.smax.v8i8", "llvm.smin.v8i8"),
}


@dataclass(frozen=True)
class _End:
    """Bytes are the nearest integers to `value`, float32, plus `zero`, within `low` and `high`."""

    value: Any
    zero: int
    low: int
    high: int


def narrowed(cast: tirx.Cast, rounding: str) -> Any | None:
    """The vector of bytes that `cast` makes of floats rounded by the operator called `rounding`;
    None where it is nothing of the kind."""
    kind, lanes = kind_of(cast), lanes_of(cast)
    if kind not in _RANGES or lanes % _BYTES:
        return None
    end = _end_of(cast.value, rounding)
    if end is None:
        return None
    least, most = _RANGES[kind]
    low, high = max(end.low, least), min(end.high, most)
    bytes_ = []
    for first in range(0, lanes, _BYTES):
        narrow = joined([_halves(part(end.value, first + k, _WORDS)) for k in (0, _WORDS)])
        if end.zero:
            narrow = _call("int16x8", "llvm.sadd.sat.v8i16", narrow, number(end.zero, narrow))
        made = _call(f"{kind}x8", _NARROW[kind], narrow)
        for name, bound, limit in zip(_BOUNDS[kind], (low, high), (least, most), strict=True):
            if bound != limit:
                made = _call(f"{kind}x8", name, made, number(bound, made))
        bytes_.append(made)
    return joined(bytes_)


def _halves(value: Any) -> Any:
    whole = _call("int32x4", "llvm.aarch64.neon.fcvtns.v4i32.v4f32", value)
    return _call("int16x4", "llvm.aarch64.neon.sqxtn.v4i16", whole)


def _call(kind: str, name: str, *operands: Any) -> Any:
    return tirx.call_llvm_pure_intrin(kind, name, *operands)


def _end_of(value: Any, rounding: str) -> _End | None:
    zero = 0
    if isinstance(value, tirx.Add):
        offset = _constant(value.b)
        if offset is None:
            return None
        zero, value = int(offset), value.a
    if not isinstance(value, tvm.ir.Call) or not isinstance(value.op, tvm.ir.Op):
        return None
    if value.op.name != rounding or not isinstance(value.args[0], tirx.Min):
        return None
    inside = value.args[0]
    if not isinstance(inside.a, tirx.Max):
        return None
    low, high = _constant(inside.a.b), _constant(inside.b)
    if low is None or high is None:
        return None
    return _within(_End(inside.a.a, zero, int(low) + zero, int(high) + zero))


def _within(end: _End) -> _End:
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
