"""The end of integer kernels on 64-bit Arm: floats to bytes by conversions that saturate.

    uint8(to_nearest(min(max(x, low), high)) + zero)  =>  UQXTN(SQXTN(FCVTNS(x)) + zero)

Bounds are then those of bytes, and cost nothing where they are the whole range; what the graph's
own Clip adds, whose bounds are integers too, becomes one instruction for eight bytes. Whatever is
beyond a wider type is beyond bytes as well, so that the result is the same.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx

from edgec.lower.dot_ends import RANGES, end_of
from edgec.lower.dot_vectors import joined, kind_of, lanes_of, number, part

_WORDS, _BYTES = 4, 8
_NARROW = {"uint8": "llvm.aarch64.neon.sqxtun.v8i8", "int8": "llvm.aarch64.neon.sqxtn.v8i8"}
_BOUNDS = {
    "uint8": ("llvm.umax.v8i8", "llvm.umin.v8i8"),
    "int8": ("llvm.smax.v8i8", "llvm.smin.v8i8"),
}


def narrowed(cast: tirx.Cast, rounding: str) -> Any | None:
    """The vector of bytes that `cast` makes of floats rounded by the operator called `rounding`;
    None where it is nothing of the kind."""
    kind, lanes = kind_of(cast), lanes_of(cast)
    if kind not in RANGES or lanes % _BYTES:
        return None
    end = end_of(cast.value, rounding)
    if end is None:
        return None
    least, most = RANGES[kind]
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
