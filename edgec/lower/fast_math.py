"""exp, exp2, tanh and erf of float32 as arithmetic, so that loops over them vectorise.

LLVM calls libm for each element instead. The results here are within 10 units in the last place of
the exact ones over the whole range; NaN stays NaN, and exp over- and underflows as it should. exp2,
made for softmax, takes half as many steps and gives 0 for 2 ** -125 and less.

Sources: S. Moshier, Cephes (exp: range reduction by ln 2, then a polynomial); the rational minimax
approximations of tanh and erf are those of the Eigen library.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tvm
import tvm_ffi
from tvm import tirx

tvm.ir.register_op_attr("tirx.erf", "TVectorizable", True)
"""As exp and tanh are: TVM would make the vectors of a loop with erf scalars again."""

Expansion = Callable[[Any, int], Any]
"""Takes an expression and its number of lanes."""

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
_EXP2 = (0.00132647273, 0.00967151299, 0.0555073363, 0.240222424, 0.693147004, 1.0)
"""The least relative error, 1e-7, of a polynomial for 2 ** f with |f| <= 0.5 that is 1 at 0."""

_LEAST_EXP2 = -125.0
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
    """`function` with every exp, exp2, tanh and erf of float32 written out, scalars and vectors.

    Comes after loops are vectorised: TVM does not vectorise the `Let` these are made of.
    """

    def expand(call: tvm.ir.Call) -> Any:
        name = call.op.name if isinstance(call.op, tvm.ir.Op) else ""
        if name not in _EXPANSIONS:
            return call
        dtype, _, lanes = str(call.ty.dtype).partition("x")
        return _EXPANSIONS[name](call.args[0], int(lanes or 1)) if dtype == "float32" else call

    return tvm_ffi.structural_map(function, (tvm.ir.Call, expand))


def _exp(x: Any, lanes: int) -> Any:
    """2 ** n * exp(r) with x = n ln 2 + r, scaled in two steps to reach every exponent."""
    clamped, whole, remainder = (_variable(name, "float32", lanes) for name in ("x", "n", "r"))
    exponent, half = (_variable(name, "int32", lanes) for name in ("e", "h"))

    def f(value: float) -> Any:
        return _constant("float32", value, lanes)

    def power_of_two(n: Any) -> Any:
        bits = tirx.shift_left(n + _constant("int32", 127, lanes), _constant("int32", 23, lanes))
        return tirx.reinterpret(str(remainder.ty.dtype), bits)

    y = _polynomial(_EXP, remainder, lanes) * (remainder * remainder) + remainder + f(1)
    value = y * power_of_two(half) * power_of_two(exponent - half)
    value = tirx.Let(half, tirx.shift_right(exponent, _constant("int32", 1, lanes)), value)
    value = tirx.Let(exponent, tirx.Cast(str(exponent.ty.dtype), whole), value)
    reduced = clamped - whole * f(_LN2_HIGH) - whole * f(_LN2_LOW)
    value = tirx.Let(remainder, reduced, value)
    value = tirx.Let(whole, tirx.nearbyint(clamped * f(_LOG2_E)), value)
    return tirx.Let(clamped, _clamp(x, -104.0, 89.0, lanes), value)


def _exp2(x: Any, lanes: int) -> Any:
    """2 ** f with x = n + f, and n added to its exponent; 128 carries over into infinity."""
    clamped, whole, rest = (_variable(name, "float32", lanes) for name in ("x", "n", "f"))
    exponent = tirx.Cast(_typed("int32", lanes), whole)
    scale = tirx.shift_left(exponent, _constant("int32", 23, lanes))
    bits = tirx.reinterpret(_typed("int32", lanes), _polynomial(_EXP2, rest, lanes)) + scale
    least, zero = (_constant("float32", value, lanes) for value in (_LEAST_EXP2, 0.0))
    value = tirx.Select(clamped <= least, zero, tirx.reinterpret(_typed("float32", lanes), bits))
    value = tirx.Let(rest, clamped - whole, value)
    value = tirx.Let(whole, tirx.nearbyint(clamped), value)
    return tirx.Let(clamped, _clamp(x, _LEAST_EXP2, 128.0, lanes), value)


def _rational(above: tuple[float, ...], below: tuple[float, ...], limit: float) -> Expansion:
    """x P(x^2) / Q(x^2), constant beyond `limit`; divided first, for the sake of denormal x."""

    def expansion(x: Any, lanes: int) -> Any:
        clamped, square = (_variable(name, "float32", lanes) for name in ("x", "s"))
        ratio = _polynomial(above, square, lanes) / _polynomial(below, square, lanes)
        value = tirx.Let(square, clamped * clamped, clamped * ratio)
        return tirx.Let(clamped, _clamp(x, -limit, limit, lanes), value)

    return expansion


def _polynomial(coefficients: tuple[float, ...], x: Any, lanes: int) -> Any:
    """Horner's scheme, the highest coefficient first."""
    value = _constant("float32", coefficients[0], lanes)
    for coefficient in coefficients[1:]:
        value = value * x + _constant("float32", coefficient, lanes)
    return value


def _clamp(x: Any, low: float, high: float, lanes: int) -> Any:
    """`x` within bounds; NaN is in neither comparison and passes."""
    least, most = (_constant("float32", bound, lanes) for bound in (low, high))
    given, raised = (_variable(name, "float32", lanes) for name in ("g", "u"))
    value = tirx.Select(raised > most, most, raised)
    return tirx.Let(given, x, tirx.Let(raised, tirx.Select(given < least, least, given), value))


def _variable(name: str, dtype: str, lanes: int) -> Any:
    return tirx.Var(name, _typed(dtype, lanes))


def _typed(dtype: str, lanes: int) -> str:
    return dtype if lanes == 1 else f"{dtype}x{lanes}"


def _constant(dtype: str, value: float, lanes: int) -> Any:
    scalar = tirx.IntImm(dtype, value) if dtype == "int32" else tirx.FloatImm(dtype, value)
    return scalar if lanes == 1 else tirx.Broadcast(scalar, lanes)


_EXPANSIONS: dict[str, Expansion] = {
    "tirx.exp": _exp,
    "tirx.exp2": _exp2,
    "tirx.tanh": _rational(_TANH_ABOVE, _TANH_BELOW, 7.90531),
    "tirx.erf": _rational(_ERF_ABOVE, _ERF_BELOW, 4.0),
}
