"""From sums to quantized elements, the tail of every integer kernel.

    q = saturate(rint(float32(sum + bias) * multiplier) + zero)

The product is rounded once, to float32; rint takes ties to even; the zero point is added as an
integer. What is beyond the limits is cut off before the conversion: it may be beyond int32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import relax, tirx

from edgec.lower.context import Context, literal
from edgec.lower.dot import to_nearest


@dataclass(frozen=True, eq=False)
class Requantization:
    """How the int32 sums of an operator become elements of its output, by output channel.

    `bias` int32 [O] is added to the sums, `multipliers` float32 [O] are the scales of both
    operands over the output's. `dtype` is "uint8" or "int8", `zero` its zero point, `low` and
    `high` the least and the largest element there may be, a Relu's or Clip's limits included.
    With `dtype` "float32" the product itself is the result; then the rest means nothing.
    """

    bias: np.ndarray
    multipliers: np.ndarray
    dtype: str
    zero: int = 0
    low: int = 0
    high: int = 255


def requantized(value: Any, zero: int, low: int, high: int, dtype: str) -> Any:
    """A float32, in units of the output's scale, as an element of the output."""
    inside = tirx.min(
        tirx.max(value, literal(low - zero, "float32")), literal(high - zero, "float32")
    )
    return (to_nearest(inside) + literal(zero, "int32")).astype(dtype)


def requantize(
    ctx: Context, sums: relax.Expr, bias: np.ndarray, multipliers: np.ndarray, r: Requantization
) -> relax.Expr:
    """Emit the tail: `bias` int32 and `multipliers` float32 broadcast against the sums."""

    def element(value: Any, offset: Any, factor: Any) -> Any:
        product = (value + offset).astype("float32") * factor
        if r.dtype == "float32":
            return product
        return requantized(product, r.zero, r.low, r.high, r.dtype)

    return ctx.map("requantize", element, sums, ctx.const(bias), ctx.const(multipliers))
