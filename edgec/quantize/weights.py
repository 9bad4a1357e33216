"""Weights alone in fewer bits: the formulas, each with its equation.

`w` is a weight, `q` its code, `s` the scale of its channel or of its group of `GROUP` terms of one
sum, `[a, b]` the integers of the type.

    linear          w ~ s q           q = clip(rint(w / s), a, b), s that which errs least
    power-of-two    w ~ 2^k q         k = ceil(log2 s): a shift instead of a product
    logarithmic     w ~ sign(c) s 2^-e          e in 0..6, or 0; c the code, 4 bits
    float8e4m3fn    w ~ s f           f the nearest number of that type to w / s, s = max |w| / 448
    float8e5m2      w ~ s f           the same, s = max |w| / 57344
    float16, bfloat16                 w ~ the nearest number of that type

The scale that errs least is the best of `TRIED` fractions of the one that just holds the largest
weight, by the sum of squares of the errors of each channel or group.
"""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np

from edgec.arrays import Array
from edgec.program import dtype_of
from edgec.quantize.formulas import limits

GROUP = 32
TRIED = np.linspace(1.0, 0.5, 26)
"""Fractions of the scale that holds the largest weight."""

LEVELS = 7
"""Magnitudes of the logarithmic formula; with both signs and zero they fit 4 bits."""


@dataclass(frozen=True)
class Codes:
    """Constant weights: `codes` times `scale`, as DequantizeLinear takes them.

    `axis` is that of the scales; with a `block`, so many codes along it share one, and `scale` has
    as many axes as `codes`. 16-bit floats have no scale.
    """

    codes: Array
    scale: Array | None = None
    axis: int = 0
    block: int = 0

    def dequantize(self) -> Array:
        """The float32 that the codes stand for."""
        values = self.codes.astype(np.float32)
        if self.scale is None:
            return values
        if self.block:
            return np.asarray(values * self.scale.repeat(self.block, self.axis))
        shape = [-1 if i == self.axis else 1 for i in range(values.ndim)]
        return np.asarray(values * (self.scale.reshape(shape) if self.scale.ndim else self.scale))


def linear(
    values: Array, dtype: str, outputs: int | None, summed: int, *, power_of_two: bool = False
) -> Codes:
    """`values` in integers of `dtype`, named as in ONNX.

    `outputs` is the axis that counts channels (None: all share a scale). Integers of less than 8
    bits have a scale for each `GROUP` along the axis `summed`, where groups divide it.
    """
    if limits(dtype)[1] < 127 and values.shape[summed] % GROUP == 0 and summed != outputs:
        shape = values.shape
        grouped = values.reshape(*shape[:summed], -1, GROUP, *shape[summed + 1 :])
        scale = _scale(grouped, (summed + 1,), dtype, power_of_two)
        codes = _codes(grouped, scale, dtype).reshape(shape)
        return Codes(codes, scale.squeeze(summed + 1), summed, GROUP)
    axes = tuple(i for i in range(values.ndim) if i != outputs)
    scale = _scale(values, axes, dtype, power_of_two)
    flat = scale.reshape(() if outputs is None else -1)
    return Codes(_codes(values, scale, dtype), flat, outputs or 0)


def float8(values: Array, dtype: str, outputs: int | None) -> Codes:
    """`values` as numbers of `dtype`, "float8e4m3fn" or "float8e5m2", with a scale per channel."""
    kind = np.dtype(getattr(ml_dtypes, {"float8e4m3fn": "float8_e4m3fn"}.get(dtype, "float8_e5m2")))
    axes = tuple(i for i in range(values.ndim) if i != outputs)
    largest = np.abs(values).max(axis=axes, keepdims=True, initial=0.0).astype(np.float64)
    most = float(ml_dtypes.finfo(kind).max)  # type: ignore[no-untyped-call]
    scale = np.where(largest > 0, largest / most, 1.0).astype(np.float32)
    codes = np.clip(values / scale, -most, most).astype(kind)
    return Codes(codes, scale.reshape(() if outputs is None else -1), outputs or 0)


def half(values: Array, dtype: str) -> Codes:
    """`values` as "float16", those too large as its largest number, or as "bfloat16"."""
    kind = dtype_of(dtype)
    most = float(ml_dtypes.finfo(kind).max)  # type: ignore[no-untyped-call]
    return Codes(np.clip(values, -most, most).astype(kind))


def logarithmic(values: Array) -> tuple[Array, Array]:
    """Codes, uint4 of the shape of `values`, and the 16 numbers of float32 that they stand for."""
    largest = float(np.abs(values).max(initial=0.0)) or 1.0
    magnitudes = largest * 2.0 ** -np.arange(LEVELS)
    table = np.concatenate([[0.0], magnitudes, [0.0], -magnitudes]).astype(np.float32)
    with np.errstate(divide="ignore"):
        exponent = np.rint(-np.log2(np.abs(values) / largest))
    small = np.abs(values) < magnitudes[-1] / 2
    codes = np.where(small, 0, 1 + np.clip(exponent, 0, LEVELS - 1))
    codes = np.where((values < 0) & ~small, codes + 1 + LEVELS, codes)
    return codes.astype(np.uint8).astype(ml_dtypes.uint4), table


def _scale(values: Array, axes: tuple[int, ...], dtype: str, power_of_two: bool) -> Array:
    """The scale that errs least along all other axes, float32, `axes` kept with size 1."""
    least, most = limits(dtype)
    high, low = values.max(axis=axes, keepdims=True), values.min(axis=axes, keepdims=True)
    widest = np.maximum(high / most, low / least).astype(np.float64)
    best = np.where(widest > 0, widest, 1.0)
    smallest = np.full(best.shape, np.inf)
    for fraction in TRIED:
        scale = np.where(widest > 0, widest * fraction, 1.0)
        if power_of_two:
            scale = 2.0 ** np.ceil(np.log2(scale))
        error = values - _steps(values, scale, dtype) * scale
        squares = (error.astype(np.float64) ** 2).sum(axis=axes, keepdims=True)
        best, smallest = np.where(squares < smallest, scale, best), np.minimum(squares, smallest)
    return np.asarray(best, np.float32)


def _steps(values: Array, scale: Array, dtype: str) -> Array:
    return np.asarray(np.clip(np.rint(values / scale), *limits(dtype)))


def _codes(values: Array, scale: Array, dtype: str) -> Array:
    return _steps(values, scale, dtype).astype(np.int8).astype(dtype_of(dtype))
