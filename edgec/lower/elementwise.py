"""Arithmetic, comparison, logic and bits, element by element with numpy's broadcasting.

Integer division and shifts are guarded: dividing by zero or the least integer by -1 yields an
unspecified value, never a trap.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from tvm import relax, tirx
from tvm.ir import Constant

from edgec.lower.context import Context, Refused, is_float, literal, select

Fn = Callable[..., Any]


def binary(operator: Callable[..., relax.Expr]) -> Fn:
    """An operator that Relax itself has with ONNX's meaning."""

    def entry(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
        a, b = inputs
        return ctx.emit(operator(a, b))

    return entry


def scalar(name: str, function: Fn) -> Fn:
    """An entry that applies `function` to one element of each input."""

    def entry(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
        return ctx.map(name, function, *inputs)

    return entry


MOST_TERMS = 256
"""Inputs of one operator: TVM walks the nested expression by recursion, and the stack is finite."""


def fold(name: str, function: Fn) -> Fn:
    """An entry for up to `MOST_TERMS` inputs, combined from the left."""

    def entry(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
        if len(inputs) > MOST_TERMS:
            raise Refused(f"of {len(inputs)} inputs; {MOST_TERMS} are the most")
        return ctx.map(name, lambda *xs: reduce(function, xs), *inputs)

    return entry


def dtype_of(x: Any) -> str:
    return str(x.dtype if hasattr(x, "dtype") else x.ty.dtype)


def maximum(a: Any, b: Any) -> Any:
    """The larger one, or NaN where either is NaN."""
    if not is_float(dtype_of(a)):
        return tirx.max(a, b)
    if _is_number(b):
        return select(a < b, b, a)
    return select(tirx.any(a > b, is_nan(a)), a, b)


def minimum(a: Any, b: Any) -> Any:
    """The smaller one, or NaN where either is NaN."""
    if not is_float(dtype_of(a)):
        return tirx.min(a, b)
    if _is_number(b):
        return select(a > b, b, a)
    return select(tirx.any(a < b, is_nan(a)), a, b)


def _is_number(x: Any) -> bool:
    return isinstance(x, tirx.FloatImm) and not np.isnan(float(x.value))


_INFINITY = {
    "float16": ("int16", 0x7C00),
    "bfloat16": ("int16", 0x7F80),
    "float32": ("int32", 0x7F800000),
    "float64": ("int64", 0x7FF << 52),
}
"""The integers of each type's width, and infinity's bits: NaN's, the sign apart, are greater."""


def is_nan(x: Any) -> Any:
    """Whether `x` is NaN, told by its bits: TVM would compute `tirx.isnan` lane by lane, and takes
    `x != x` for false."""
    kind, infinity = _INFINITY[dtype_of(x)]
    unsigned = tirx.reinterpret(kind, x) & literal(np.iinfo(kind).max, kind)
    return unsigned > literal(infinity, kind)


def _divisor(a: Any, b: Any) -> Any:
    """`b` where the machine can divide `a` by it, else 1.

    What traps is told by unsigned comparisons, and not chosen by a Select: TVM's simplifier takes
    int32 never to be its least value, and divides by both sides of a Select.
    """
    dtype = dtype_of(a)
    traps = b == literal(0, dtype)
    if not dtype.startswith("uint"):
        bits = int(dtype.removeprefix("int"))

        def equals(x: Any, value: int) -> Any:
            return tirx.reinterpret(f"uint{bits}", x) == literal(value, f"uint{bits}")

        least_by_minus_one = tirx.all(equals(b, 2**bits - 1), equals(a, 2 ** (bits - 1)))
        traps = tirx.any(equals(b, 0), least_by_minus_one)
    return tirx.if_then_else(traps, literal(1, dtype), b)


def _divide(a: Any, b: Any) -> Any:
    return a / b if is_float(dtype_of(a)) else tirx.truncdiv(a, _divisor(a, b))


_SMOOTH = frozenset({"Erf", "Exp", "MatMul", "Sigmoid", "Softmax", "Tanh"})
"""Operators that make no jump of an error in the last place, as rounding would."""


def divide(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
    """By a constant as the product with its inverse, where that is exact or hardly matters."""
    x, divisor = inputs
    if isinstance(divisor, Constant) and ctx.dtype(x) in ("float32", "float64"):
        value = divisor.value.numpy()
        with np.errstate(all="ignore"):
            inverse = 1 / value
        least = np.finfo(value.dtype).tiny
        normal = np.all((np.abs(inverse) >= least) & np.isfinite(inverse))
        exact = np.all(np.abs(np.frexp(value)[0]) == 0.5)
        readers = {reader.op for tensor in node.outputs for reader in tensor.outputs}
        if normal and (exact or (readers and readers <= _SMOOTH)):
            return ctx.map("divide", lambda v, i: v * i, x, ctx.const(inverse))
    return ctx.map("divide", _divide, x, divisor)


def _remainder(a: Any, b: Any) -> Any:
    """What division truncated toward zero leaves: the sign is the dividend's."""
    dtype = dtype_of(a)
    if not is_float(dtype):
        return tirx.truncmod(a, _divisor(a, b))
    if dtype == "float64":
        return tirx.call_pure_extern("float64", "fmod", a, b)
    a, b = a.astype("float32"), b.astype("float32")
    return tirx.call_pure_extern("float32", "fmodf", a, b).astype(dtype)


def _modulo(a: Any, b: Any) -> Any:
    """What division rounded down leaves: the sign is the divisor's."""
    zero = literal(0, dtype_of(a))
    r = _remainder(a, b)
    opposed = tirx.any(tirx.all(r < zero, b > zero), tirx.all(r > zero, b < zero))
    return select(opposed, r + b, r)


def mod(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
    return ctx.map("mod", _remainder if ctx.attr(node, "fmod", 0) else _modulo, *inputs)


def power(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
    base, exponent = inputs
    dtype = ctx.dtype(base)
    value = ctx.constant(node, 1)
    if value is not None and value.size == 1 and float(value.item()) in (1.0, 2.0, 3.0):
        to = ctx.broadcast(base, _joined(ctx, base, exponent))
        times = int(value.item())
        return ctx.map("power", lambda x: reduce(lambda p, q: p * q, [x] * times), to)
    if is_float(dtype):
        return ctx.map("power", lambda x, y: tirx.power(x, y.astype(dtype)), base, exponent)
    if is_float(ctx.dtype(exponent)):

        def rounded(x: Any, y: Any) -> Any:
            return tirx.power(x.astype("float64"), y.astype("float64")).astype(dtype)

        return ctx.map("power", rounded, base, exponent)
    return ctx.map("power", lambda x, y: _integer_power(x, y.astype("int64")), base, exponent)


def _integer_power(x: Any, y: Any) -> Any:
    """`x` to the integer power `y`, wrapping around; beyond 63, and below 0, exact for 0 and +-1.

    Other bases overflow there, or are fractions: 0.
    """
    dtype, one = dtype_of(x), literal(1, dtype_of(x))
    result, square = one, x
    for bit in range(6):
        odd = tirx.bitwise_and(tirx.shift_right(y, literal(bit, "int64")), literal(1, "int64"))
        result = result * select(odd == literal(1, "int64"), square, one)
        square = square * square
    unit = select(x == one, one, literal(0, dtype))
    if not dtype.startswith("uint"):
        odd = tirx.bitwise_and(y, literal(1, "int64")) == literal(1, "int64")
        minus = literal(-1, dtype)
        unit = select(x == minus, select(odd, minus, one), unit)
    inside = tirx.all(y >= literal(0, "int64"), y < literal(64, "int64"))
    return select(inside, result, unit)


def _joined(ctx: Context, *exprs: relax.Expr) -> tuple[int, ...]:
    return tuple(np.broadcast_shapes(*(ctx.shape(e) for e in exprs)))


def bit_shift(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
    direction = ctx.attr(node, "direction")
    if direction not in ("LEFT", "RIGHT"):
        raise Refused(f"direction {direction!r} is neither LEFT nor RIGHT")
    shift = tirx.shift_left if direction == "LEFT" else tirx.shift_right

    def shifted(x: Any, by: Any) -> Any:
        """By less than 0 or the type's width and more, every bit leaves: only signs remain."""
        dtype = dtype_of(x)
        bits = int(dtype.removeprefix("uint").removeprefix("int"))
        zero = literal(0, dtype)
        far = tirx.any(by < zero, by >= literal(bits, dtype))
        near = shift(x, select(far, zero, by))
        if direction == "LEFT" or dtype.startswith("uint"):
            return select(far, zero, near)
        return select(far, select(x < zero, literal(-1, dtype), zero), near)

    return ctx.map("bit_shift", shifted, *inputs)


def mean(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
    count = literal(len(inputs), ctx.dtype(inputs[0]))
    return ctx.map("mean", lambda *xs: reduce(lambda a, b: a + b, xs) / count, *inputs)


def _is_inf(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
    (x,) = inputs
    dtype = ctx.dtype(x)
    positive = bool(ctx.attr(node, "detect_positive", 1))
    negative = bool(ctx.attr(node, "detect_negative", 1))
    infinity = tirx.infinity(dtype)

    def found(value: Any) -> Any:
        no = tirx.const(False, "bool")
        return tirx.any(
            value == infinity if positive else no, value == -infinity if negative else no
        )

    return ctx.map("isinf", found, x)


def _abs(x: Any) -> Any:
    return x if dtype_of(x).startswith("uint") else tirx.abs(x)


def _sign(x: Any) -> Any:
    """-1, 0 or 1; NaN stays NaN."""
    dtype = dtype_of(x)
    zero, one = literal(0, dtype), literal(1, dtype)
    if dtype.startswith("uint"):
        return select(x > zero, one, zero)
    return select(x > zero, one, select(x < zero, literal(-1, dtype), x))


def _rounding(function: Fn) -> Fn:
    return lambda x: function(x) if is_float(dtype_of(x)) else x


def math(function: Fn) -> Fn:
    """`function` of a float, computed in float32 where the type is narrower."""

    def computed(x: Any) -> Any:
        dtype = dtype_of(x)
        if dtype in ("float16", "bfloat16"):
            return function(x.astype("float32")).astype(dtype)
        return function(x)

    return computed


def libm(name: str) -> Fn:
    """The C library's function of a float, where TVM's own formula cancels near 0 or there is none
    for vectors."""

    def called(x: Any) -> Any:
        dtype = dtype_of(x)
        return tirx.call_pure_extern(dtype, name if dtype == "float64" else f"{name}f", x)

    return called


def erf_of(x: Any) -> Any:
    """Written out for vectors in float32 (`edgec.lower.fast_math`), libm's else."""
    return tirx.erf(x) if dtype_of(x) == "float32" else libm("erf")(x)


def identity(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
    return inputs[0]


def _equal(a: Any, b: Any) -> Any:
    if dtype_of(a) == "bool":
        a, b = a.astype("int8"), b.astype("int8")
    return a == b


def _logical_xor(a: Any, b: Any) -> Any:
    return a.astype("int8") != b.astype("int8")


ENTRIES = {
    "Add": binary(relax.op.add),
    "Sub": binary(relax.op.subtract),
    "Mul": binary(relax.op.multiply),
    "Div": divide,
    "Mod": mod,
    "Pow": power,
    "Max": fold("maximum", maximum),
    "Min": fold("minimum", minimum),
    "Sum": fold("sum", lambda a, b: a + b),
    "Mean": mean,
    "Equal": scalar("equal", _equal),
    "Greater": scalar("greater", lambda a, b: a > b),
    "GreaterOrEqual": scalar("greater_equal", lambda a, b: a >= b),
    "Less": scalar("less", lambda a, b: a < b),
    "LessOrEqual": scalar("less_equal", lambda a, b: a <= b),
    "And": scalar("logical_and", lambda a, b: tirx.all(a, b)),
    "Or": scalar("logical_or", lambda a, b: tirx.any(a, b)),
    "Xor": scalar("logical_xor", _logical_xor),
    "Not": scalar("logical_not", lambda a: tirx.Not(a)),
    "BitwiseAnd": scalar("bitwise_and", tirx.bitwise_and),
    "BitwiseOr": scalar("bitwise_or", tirx.bitwise_or),
    "BitwiseXor": scalar("bitwise_xor", tirx.bitwise_xor),
    "BitwiseNot": scalar("bitwise_not", tirx.bitwise_not),
    "BitShift": bit_shift,
    "Where": scalar("where", lambda c, a, b: select(c, a, b)),
    "Identity": identity,
    "Abs": scalar("abs", _abs),
    "Neg": scalar("negative", lambda x: -x),
    "Sign": scalar("sign", _sign),
    "Floor": scalar("floor", _rounding(tirx.floor)),
    "Ceil": scalar("ceil", _rounding(tirx.ceil)),
    "Round": scalar("round", _rounding(tirx.nearbyint)),
    "Reciprocal": scalar("reciprocal", lambda x: literal(1, dtype_of(x)) / x),
    "IsNaN": scalar("isnan", tirx.isnan),
    "IsInf": _is_inf,
    "Sqrt": scalar("sqrt", math(tirx.sqrt)),
    "Exp": scalar("exp", math(tirx.exp)),
    "Log": scalar("log", math(tirx.log)),
    "Erf": scalar("erf", math(erf_of)),
    "Sin": scalar("sin", math(tirx.sin)),
    "Cos": scalar("cos", math(tirx.cos)),
    "Tan": scalar("tan", math(tirx.tan)),
    "Asin": scalar("asin", math(tirx.asin)),
    "Acos": scalar("acos", math(tirx.acos)),
    "Atan": scalar("atan", math(tirx.atan)),
    "Sinh": scalar("sinh", math(libm("sinh"))),
    "Cosh": scalar("cosh", math(libm("cosh"))),
    "Asinh": scalar("asinh", math(tirx.asinh)),
    "Acosh": scalar("acosh", math(tirx.acosh)),
    "Atanh": scalar("atanh", math(libm("atanh"))),
}
