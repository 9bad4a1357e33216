"""exp, tanh and erf of float32 as arithmetic, so that loops over them vectorise.

LLVM calls libm for each element instead. The results here are within 10 units in the last place of
the exact ones over the whole range; NaN stays NaN, and exp over- and underflows as it should.

Sources: S. Moshier, Cephes (exp: range reduction by ln 2, then a polynomial); the rational minimax
approximations of tanh and erf are those of the Eigen library.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tvm
import tvm_ffi
from tvm import tirx

_LOG2_E = 1.44269504
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4
_EXP = (
    1.9875691500e-4,
    1.3981999507e-3,
    8.3334519073e-3,
    4.1665795894e-2,
    1.6666665459e-1,
    5.0000001201e-1,
)
_TANH_ABOVE = (
    -2.76076847742355e-16,
    2.00018790482477e-13,
    -8.60467152213735e-11,
    5.12229709037114e-08,
    1.48572235717979e-05,
    6.37261928875436e-04,
    4.89352455891786e-03,
)
_TANH_BELOW = (
    1.19825839466702e-06,
    1.18534705686654e-04,
    2.26843463243900e-03,
    4.89352518554385e-03,
)
_ERF_ABOVE = (
    -2.72614225801306e-10,
    2.77068142495902e-08,
    -2.10102402082508e-06,
    -5.69250639462346e-05,
    -7.34990630326855e-04,
    -2.95459980854025e-03,
    -1.60960333262415e-02,
)
_ERF_BELOW = (
    -1.45660718464996e-05,
    -2.13374055278905e-04,
    -1.68282697438203e-03,
    -7.37332916720468e-03,
    -1.42647390514189e-02,
)


def expand_math(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """`function` with every exp, tanh and erf of a float32 written out."""

    def expand(call: tvm.ir.Call) -> Any:
        name = call.op.name if isinstance(call.op, tvm.ir.Op) else ""
        if name in _EXPANSIONS and str(call.ty.dtype) == "float32":
            return _EXPANSIONS[name](call.args[0])
        return call

    return tvm_ffi.structural_map(function, (tvm.ir.Call, expand))


def _exp(x: Any) -> Any:
    """2 ** n * exp(r) with x = n ln 2 + r, scaled in two steps to reach every exponent."""
    clamped, whole = tirx.Var("x", "float32"), tirx.Var("n", "float32")
    r = clamped - whole * _f(_LN2_HIGH) - whole * _f(_LN2_LOW)
    remainder, exponent = tirx.Var("r", "float32"), tirx.Var("e", "int32")
    y = _polynomial(_EXP, remainder) * (remainder * remainder) + remainder + _f(1)
    half = tirx.Var("h", "int32")
    scaled = y * _power_of_two(half) * _power_of_two(exponent - half)
    body = tirx.Let(half, tirx.shift_right(exponent, tirx.IntImm("int32", 1)), scaled)
    body = tirx.Let(exponent, tirx.Cast("int32", whole), body)
    body = tirx.Let(remainder, r, body)
    body = tirx.Let(whole, tirx.nearbyint(clamped * _f(_LOG2_E)), body)
    return tirx.Let(clamped, _clamp(x, -104.0, 89.0), body)


def _power_of_two(n: Any) -> Any:
    """2 ** n for -126 <= n <= 127, from the bits of a float32."""
    bits = tirx.shift_left(n + tirx.IntImm("int32", 127), tirx.IntImm("int32", 23))
    return tirx.reinterpret("float32", bits)


def _rational(
    above: tuple[float, ...], below: tuple[float, ...], limit: float
) -> Callable[..., Any]:
    """x P(x^2) / Q(x^2), constant beyond `limit`."""

    def expansion(x: Any) -> Any:
        clamped, square = tirx.Var("x", "float32"), tirx.Var("s", "float32")
        value = clamped * _polynomial(above, square) / _polynomial(below, square)
        return tirx.Let(
            clamped, _clamp(x, -limit, limit), tirx.Let(square, clamped * clamped, value)
        )

    return expansion


def _polynomial(coefficients: tuple[float, ...], x: Any) -> Any:
    """Horner's scheme, the highest coefficient first."""
    value = _f(coefficients[0])
    for coefficient in coefficients[1:]:
        value = value * x + _f(coefficient)
    return value


def _clamp(x: Any, low: float, high: float) -> Any:
    """`x` within bounds; NaN is in neither comparison and passes."""
    raised = tirx.Select(x < _f(low), _f(low), x)
    return tirx.Select(x > _f(high), _f(high), raised)


def _f(value: float) -> Any:
    return tirx.FloatImm("float32", value)


_EXPANSIONS: dict[str, Callable[[Any], Any]] = {
    "tirx.exp": _exp,
    "tirx.tanh": _rational(_TANH_ABOVE, _TANH_BELOW, 7.90531),
    "tirx.erf": _rational(_ERF_ABOVE, _ERF_BELOW, 4.0),
}
