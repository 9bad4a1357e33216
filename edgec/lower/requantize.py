"""From floats to quantized elements, the end of every integer kernel."""

from __future__ import annotations

from typing import Any

from tvm import tirx

from edgec.lower.context import literal
from edgec.lower.dot import to_nearest


def requantized(value: Any, zero: int, low: int, high: int, dtype: str) -> Any:
    """rint(value) + zero, within `low` and `high`, as `dtype`; `value` is a float32.

    Ties go to even. What is beyond the limits is cut off before the conversion, for it may be
    beyond int32.
    """
    inside = tirx.min(
        tirx.max(value, literal(low - zero, "float32")), literal(high - zero, "float32")
    )
    return (to_nearest(inside) + literal(zero, "int32")).astype(dtype)


def saturated(value: Any, zero: int, low: int, high: int, dtype: str) -> Any:
    """The same of a `value` whose nearest integer is an int32. Processors saturate integers while
    they make them narrower, at no cost of its own."""
    nearest = to_nearest(value)
    inside = tirx.min(
        tirx.max(nearest, literal(low - zero, "int32")), literal(high - zero, "int32")
    )
    return (inside + literal(zero, "int32")).astype(dtype)
