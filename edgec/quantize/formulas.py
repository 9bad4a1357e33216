"""Integers that stand for floats: the formulas, each with its equation.

`x` is a float, `q` its integer, `s` a scale of float32, `z` a zero point. `lo <= 0 <= hi` is the
range that has to be held, `rint` rounds half to even, and `[a, b]` are the integers of a type.

    affine      x ~ s (q - z)       q = clip(rint(x / s) + z, a, b)
    asymmetric  s = (hi - lo) / (b - a)             z = clip(a + rint(-lo / s), a, b)
    symmetric   s = max(hi / b, -lo / -a)           z = 0
    weights     s = max |w| / b, for each channel   z = 0, q in [-b, b]
    bias        s = s_x s_w of the operands         z = 0, q of int32

Zero is always held exactly: it is what padding adds, and what ReLU gives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from edgec.program import dtype_of

Array = np.ndarray[Any, Any]

LEAST_SCALE = 2.0**-100
"""The product of two scales is still a normal number of float32."""

BIAS_LIMIT = 1 << 28
"""The largest bias in steps of its scale: what is left of int32 holds the sum of products."""


@dataclass(frozen=True)
class Grid:
    """The numbers `scale * (q - zero)` that the integers of `dtype`, named as in ONNX, stand for.

    Of an activation: one scale and zero point for the whole tensor.
    """

    scale: float
    zero: int
    dtype: str

    def quantize(self, values: Array) -> Array:
        """`values` of float32 to integers of `dtype`, as QuantizeLinear does."""
        steps = np.rint(values / np.float32(self.scale)) + np.float32(self.zero)
        return np.asarray(np.clip(steps, *limits(self.dtype))).astype(dtype_of(self.dtype))

    def dequantize(self, integers: Array) -> Array:
        """The float32 that `integers` stand for."""
        centred = integers.astype(np.int64) - self.zero
        return np.asarray(centred.astype(np.float32) * np.float32(self.scale))

    @property
    def range(self) -> tuple[float, float]:
        """The least and the largest number."""
        low, high = limits(self.dtype)
        return self.scale * (low - self.zero), self.scale * (high - self.zero)


@dataclass(frozen=True)
class QuantizedWeight:
    """Constant `integers`, and what a step of each channel along `axis` is worth.

    `scale` is a vector with an element for each channel, or a number of no axes.
    """

    integers: Array
    scale: Array
    axis: int

    def dequantize(self) -> Array:
        """The float32 that the integers stand for."""
        scale = along(self.scale, self.axis, self.integers.ndim)
        return np.asarray(self.integers.astype(np.float32) * scale)


def limits(dtype: str) -> tuple[int, int]:
    """The least and the largest integer of an element type."""
    info = ml_dtypes.iinfo(dtype_of(dtype))  # type: ignore[no-untyped-call]
    return int(info.min), int(info.max)


def grid(low: float, high: float, dtype: str, *, symmetric: bool) -> Grid:
    """The grid of an activation whose values lie between `low` and `high`."""
    least, most = limits(dtype)
    low, high = min(low, 0.0), max(high, 0.0)
    if symmetric:
        return Grid(_scale(max(high / most, low / least if least else 0.0)), 0, dtype)
    scale = _scale((high - low) / (most - least))
    return Grid(scale, int(np.clip(least + np.rint(-low / scale), least, most)), dtype)


def weight_scale(values: Array, axis: int | None, dtype: str) -> Array:
    """The scale of each channel of `values`, or of all where there is no `axis`; 0 where all of
    them are 0."""
    others = None if axis is None else tuple(i for i in range(values.ndim) if i != axis)
    largest = np.abs(values).max(axis=others, initial=0.0)
    return np.asarray(largest.astype(np.float64) / limits(dtype)[1])


def quantize_weight(values: Array, scale: Array, axis: int | None, dtype: str) -> QuantizedWeight:
    """`values` to the nearest multiples of `scale`."""
    most = limits(dtype)[1]
    scale = np.asarray(scale, np.float32)
    steps = np.rint(values / along(scale, axis or 0, values.ndim))
    integers = np.clip(steps, -most, most).astype(dtype_of(dtype))
    return QuantizedWeight(integers, scale, axis or 0)


def least_weight_scale(bias: Array | None, x_scale: float, scale: Array) -> Array:
    """`scale`, enlarged where a step of it would be too small for the bias to be counted in.

    Channels that are all zeros have no scale yet: they get the least one, or 1 without a bias.
    """
    floor = np.zeros_like(scale)
    if bias is not None:
        counted = np.abs(np.asarray(bias, np.float64)) / (x_scale * BIAS_LIMIT)
        floor = counted if scale.ndim else np.asarray(counted.max(initial=0.0))
    enlarged = np.maximum(scale, floor)
    return np.where(enlarged > 0, np.maximum(enlarged, LEAST_SCALE), 1.0)


def bias_scale(x_scale: float, w_scale: Array) -> Array:
    """The scale of a bias, float32: the product, rounded once."""
    product = np.float64(np.float32(x_scale)) * w_scale.astype(np.float64)
    return np.asarray(product, np.float32)


def quantize_bias(bias: Array, scale: Array) -> Array:
    """`bias` in steps of `scale`, int32."""
    steps = np.rint(bias.astype(np.float64) / scale.astype(np.float64))
    bounds = np.iinfo(np.int32)
    return np.asarray(np.clip(steps, bounds.min, bounds.max)).astype(np.int32)


def along(scale: Array, axis: int, rank: int) -> Array:
    """A vector `scale` laid along `axis` of `rank` axes; a number as it is."""
    return scale.reshape([-1 if i == axis else 1 for i in range(rank)]) if scale.ndim else scale


def _scale(value: float) -> float:
    """`value` as a float32 that is a normal number; 1 for 0."""
    return float(np.float32(max(value, LEAST_SCALE) if value > 0 else 1.0))
