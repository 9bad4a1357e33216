"""float16 to float32 where the processor has no instruction for it.

LLVM calls a function for each number there. In integers a vector takes a dozen instructions: the
exponent moves up by 112, numbers below the normal ones are multiples of 2^-24, and those above are
infinite or not a number.
"""

from __future__ import annotations

from typing import Any

import tvm_ffi
from tvm import tirx

from edgec.targets import Target

_SIGN, _INFINITE, _LEAST_NORMAL = 0x8000, 0x7C00, 0x0400
_EXPONENT, _HIGHEST = 112 << 23, 0xFF << 23
_MANTISSA = 13
"""Bits by which float32's is longer."""


def expand_halves(function: tirx.PrimFunc, target: Target) -> tirx.PrimFunc:
    """`function`, its loops vectorised, with such casts as `target` computes them."""
    if target.widens_halves:
        return function

    def widen(cast: tirx.Cast) -> Any:
        source, _, lanes = str(cast.value.ty.dtype).partition("x")
        if source != "float16" or not str(cast.ty.dtype).startswith("float32"):
            return cast
        return _widened(cast.value, int(lanes or 1))

    return tvm_ffi.structural_map(function, (tirx.Cast, widen))


def _widened(half: Any, lanes: int) -> Any:
    def typed(kind: str) -> str:
        return kind if lanes == 1 else f"{kind}x{lanes}"

    def number(value: float, kind: str = "uint32") -> Any:
        made = tirx.const(value, kind)
        return made if lanes == 1 else tirx.Broadcast(made, lanes)

    def as_float(bits: Any) -> Any:
        return tirx.reinterpret(typed("float32"), bits)

    bits = tirx.Cast(typed("uint32"), tirx.reinterpret(typed("uint16"), half))
    size = bits & number(_SIGN - 1)
    moved = size << number(_MANTISSA)
    tiny = tirx.Cast(typed("float32"), size) * number(2.0**-24, "float32")
    finite = tirx.Select(size < number(_LEAST_NORMAL), tiny, as_float(moved + number(_EXPONENT)))
    beyond = as_float(moved | number(_HIGHEST))
    value = tirx.Select(size >= number(_INFINITE), beyond, finite)
    sign = (bits & number(_SIGN)) << number(16)
    return as_float(tirx.reinterpret(typed("uint32"), value) | sign)
