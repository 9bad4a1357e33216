"""Elements of a byte or less that processors do not compute with: 8-bit and 4-bit floats, integers
of 4 and 2 bits.

Kernels hold them in the next wider type, as values that the narrow type has. Where the model takes
or gives them they are as ONNX stores them: uint8, several to a byte, the first in the low bits.
"""

from __future__ import annotations

from math import prod
from typing import Any

import ml_dtypes
import numpy as np
from tvm import relax, te, tirx

from edgec.lower.context import WIDER, Context, Shape, is_float, literal, numpy_dtype, select
from edgec.packing import stored_shape
from edgec.program import bits_of

SCALE = "float8_e8m0fnu"
"""A power of 2 without a sign."""


def unpacked(ctx: Context, stored: relax.Expr, dtype: str, shape: Shape) -> relax.Expr:
    """The values, in the wider type, that `stored` encodes."""
    bits = bits_of(dtype)
    each, mask = 8 // bits, literal(2**bits - 1, "uint8")
    every = np.arange(2**bits, dtype=np.uint8).view(numpy_dtype(dtype))
    flat = (prod(shape),)
    if flat == (0,):
        return ctx.empty(shape, WIDER[dtype])

    def compute(data: te.Tensor, values: te.Tensor) -> te.Tensor:
        def element(i: Any) -> Any:
            shift = (i % each * bits).astype("uint8")
            return values(tirx.bitwise_and(data(i // each) >> shift, mask).astype("int32"))

        return te.compute(flat, element, name="unpacked")

    bytes_ = ctx.reshape(stored, stored_shape(dtype, flat))
    return ctx.reshape(ctx.te("unpacked", compute, bytes_, ctx.const(every)), shape)


def packed(ctx: Context, held: relax.Expr, dtype: str) -> relax.Expr:
    """The uint8 that encode `held`, values of `dtype` in the wider type."""
    shape, bits = ctx.shape(held), bits_of(dtype)
    each, count = 8 // bits, prod(shape)
    if count == 0:
        return ctx.empty(stored_shape(dtype, shape), "uint8")

    def compute(data: te.Tensor) -> te.Tensor:
        def code(i: Any, k: int) -> Any:
            value = _code(data(i * each + k), dtype).astype("uint8") << literal(k * bits, "uint8")
            if count % each == 0:
                return value
            return tirx.if_then_else(i * each + k < count, value, literal(0, "uint8"))

        def element(i: Any) -> Any:
            whole = code(i, 0)
            for k in range(1, each):
                whole = tirx.bitwise_or(whole, code(i, k))
            return whole

        return te.compute((-(-count // each),), element, name="packed")

    made = ctx.te("packed", compute, ctx.reshape(held, (count,)))
    return ctx.reshape(made, stored_shape(dtype, shape))


def narrowed(value: Any, dtype: str, saturate: bool = True, round_mode: str = "up") -> Any:
    """One number, float32 or int32, as the value that `dtype` has for it, in the wider type.

    Integers lose their high bits. Floats go to the nearest value, ties to even, those beyond the
    largest to it or, without `saturate`, to infinity or NaN as the type has it; powers of 2 are
    rounded "up", "down" or to the "nearest".
    """
    if not is_float(WIDER[dtype]):
        bits = bits_of(dtype)
        left = literal(32 - bits, "int32")
        if dtype.startswith("u"):
            return tirx.bitwise_and(value, literal(2**bits - 1, "int32")).astype(WIDER[dtype])
        return ((value << left) >> left).astype(WIDER[dtype])
    if dtype == SCALE:
        return _power_of_two(value, saturate, round_mode)
    info = ml_dtypes.finfo(numpy_dtype(dtype))  # type: ignore[no-untyped-call]
    smallest, largest = float(info.smallest_normal), literal(float(info.max), "float32")
    magnitude = tirx.min(tirx.abs(value), literal(2 * float(info.max), "float32"))
    exponent = _float(tirx.bitwise_and(_bits(magnitude), literal(0x7F800000, "uint32")))
    unit = tirx.max(exponent, literal(smallest, "float32")) * literal(2.0**-info.nmant, "float32")
    near = tirx.nearbyint(magnitude / unit) * unit
    beyond = literal(float(_overflow(dtype)), "float32")
    clipped = select(near > largest, largest if saturate else beyond, near)
    signed = _float(
        tirx.bitwise_or(
            _bits(clipped), tirx.bitwise_and(_bits(value), literal(0x80000000, "uint32"))
        )
    )
    if _single_zero(dtype):
        signed = select(clipped == literal(0, "float32"), clipped, signed)
    missing = np.array(np.nan, numpy_dtype(dtype)).astype(np.float32)
    return select(tirx.isnan(value), literal(float(missing), "float32"), signed)


def _power_of_two(value: Any, saturate: bool, round_mode: str) -> Any:
    bits, one = _bits(tirx.abs(value)), literal(1, "uint32")
    exponent = bits >> literal(23, "uint32")
    rest = tirx.bitwise_and(bits, literal(0x7FFFFF, "uint32"))
    least = {"up": 1, "nearest": 0x400000, "down": 0x800000}[round_mode]
    raised = select(rest >= literal(least, "uint32"), exponent + one, exponent)
    if saturate:
        raised = tirx.min(raised, literal(254, "uint32"))
    power = select(
        raised == literal(0, "uint32"),
        literal(0x400000, "uint32"),
        raised << literal(23, "uint32"),
    )
    special = exponent == literal(255, "uint32")
    nan = literal(0x7FC00000, "uint32")
    return _float(select(tirx.any(special, raised > literal(254, "uint32")), nan, power))


def _code(held: Any, dtype: str) -> Any:
    """The bits, int32, of a value of `dtype` that is held in the wider type."""
    if not is_float(WIDER[dtype]):
        return tirx.bitwise_and(held.astype("int32"), literal(2 ** bits_of(dtype) - 1, "int32"))
    nan = literal(int(np.array(np.nan, numpy_dtype(dtype)).view(np.uint8)), "int32")
    if dtype == SCALE:
        return select(tirx.isnan(held), nan, (_bits(held) >> literal(23, "uint32")).astype("int32"))
    info = ml_dtypes.finfo(numpy_dtype(dtype))  # type: ignore[no-untyped-call]
    infinity = literal(2.0**info.maxexp, "float32")
    bits = _bits(tirx.min(tirx.abs(held), infinity))
    least = _bits(literal(float(info.smallest_normal), "float32"))
    lowest = int(np.float32(info.smallest_normal).view(np.uint32)) >> (23 - info.nmant)
    normal = (bits >> literal(23 - info.nmant, "uint32")).astype("int32")
    normal = normal - literal(lowest - 2**info.nmant, "int32")
    tiny = literal(2.0**info.nmant / float(info.smallest_normal), "float32")
    below = (tirx.abs(held) * tiny).astype("int32")
    code = select(bits >= least, normal, below)
    sign = (_bits(held) >> literal(31, "uint32")).astype("int32") << literal(
        bits_of(dtype) - 1, "int32"
    )
    return select(tirx.isnan(held), nan, tirx.bitwise_or(code, sign))


def _overflow(dtype: str) -> np.ndarray:
    """What is beyond the largest value: infinity or NaN, or the largest where it has neither."""
    with np.errstate(over="ignore"):
        return np.array(np.inf, np.float32).astype(numpy_dtype(dtype)).astype(np.float32)


def _single_zero(dtype: str) -> bool:
    return dtype.endswith("fnuz")


def _bits(value: Any) -> Any:
    return tirx.reinterpret("uint32", value)


def _float(bits: Any) -> Any:
    return tirx.reinterpret("float32", bits)
