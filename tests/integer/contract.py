"""What quantized operators compute, to the bit, in numpy: the contract that modules are held to.

    sum = exact integer sum of (x - x zero) * w, and the bias
    M   = float32(double(x scale) * double(w scale) / double(y scale))
    q   = saturate(int32(rint(float32(sum) * M)) + y zero)

float32(sum) and rint take ties to even, the product is rounded once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Scaled:
    """Scale, a float32, and zero point of a tensor of type `dtype`."""

    scale: float
    zero: int
    dtype: str = "uint8"

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", float(np.float32(self.scale)))

    @property
    def limits(self) -> tuple[int, int]:
        info = np.iinfo(self.dtype)
        return int(info.min), int(info.max)


def quantized(values: Array, to: Scaled) -> Array:
    """float32 -> elements, by a true division."""
    steps = np.rint(values.astype(np.float32) / np.float32(to.scale))
    return np.clip(steps.astype(np.int64) + to.zero, *to.limits).astype(to.dtype)


def numbers_of(elements: Array, by: Scaled) -> Array:
    """Elements -> float32."""
    return (elements.astype(np.int32) - by.zero).astype(np.float32) * np.float32(by.scale)


def requantized(
    sums: Array, scale: Array, to: Scaled, low: float = -np.inf, high: float = np.inf
) -> Array:
    """Exact int64 sums, a step of which is worth `scale` (float64), within float limits."""
    factor = (scale / np.float64(to.scale)).astype(np.float32)
    assert np.abs(sums).max(initial=0) < 2**31
    product = sums.astype(np.int32).astype(np.float32) * factor
    elements = np.rint(product).astype(np.float64) + to.zero
    bounds = [
        np.clip(np.rint(np.float32(limit) / np.float32(to.scale)) + to.zero, *to.limits)
        for limit in (low, high)
    ]
    return np.clip(np.clip(elements, *to.limits), *bounds).astype(to.dtype)


def added(a: Array, a_in: Scaled, b: Array, b_in: Scaled, to: Scaled, sign: int = 1) -> Array:
    """Each operand times its scale over the result's, both products rounded, then their sum, or of
    the `sign` -1 their difference."""
    terms = []
    for each, of in ((a, a_in), (b, b_in)):
        factor = np.float32(np.float64(of.scale) / np.float64(to.scale))
        terms.append((each.astype(np.int32) - of.zero).astype(np.float32) * factor)
    elements = np.rint(terms[0] + np.float32(sign) * terms[1]).astype(np.float64) + to.zero
    return np.clip(elements, *to.limits).astype(to.dtype)


def multiplied(a: Array, a_in: Scaled, b: Array, b_in: Scaled, to: Scaled) -> Array:
    """Exact products of elements less their zero points, requantized."""
    products = (a.astype(np.int64) - a_in.zero) * (b.astype(np.int64) - b_in.zero)
    return requantized(products, np.float64(a_in.scale) * np.float64(b_in.scale), to)


def softmaxed(x: Array, x_in: Scaled, to: Scaled) -> Array:
    """Over the last axis: powers from a table of integers, and one division for each row."""
    table = np.rint(65535 * np.exp(-np.float64(x_in.scale) * np.arange(256))).astype(np.int64)
    wide = x.astype(np.int64)
    powers = table[wide.max(-1, keepdims=True) - wide]
    totals = powers.sum(-1, keepdims=True)
    assert totals.max() < 2**31
    share = np.float32(1 / np.float64(to.scale)) / totals.astype(np.float32)
    elements = np.rint(powers.astype(np.float32) * share).astype(np.float64) + to.zero
    return np.clip(elements, *to.limits).astype(to.dtype)


def normalized(
    x: Array, x_in: Scaled, gain: Array, bias: Array, epsilon: float, to: Scaled
) -> Array:
    """Over the last axis: exact integers up to the variance, then one float32 operation after the
    other."""
    centre, terms = x.astype(np.int64) - x_in.zero, x.shape[-1]
    total = centre.sum(-1, keepdims=True)
    squares = (centre**2).sum(-1, keepdims=True)
    assert max(np.abs(total).max(), squares.max()) < 2**31
    variance = (terms * squares - total**2).astype(np.float32)
    least = np.float32(terms**2 * np.float64(np.float32(epsilon)) / np.float64(x_in.scale) ** 2)
    factor = np.float32(1) / np.sqrt(variance + least)
    value = (terms * centre - total).astype(np.float32) * factor
    value = value * (gain.astype(np.float64) / np.float64(to.scale)).astype(np.float32)
    value = value + (bias.astype(np.float64) / np.float64(to.scale)).astype(np.float32)
    elements = np.rint(value).astype(np.float64) + to.zero
    return np.clip(elements, *to.limits).astype(to.dtype)


def convolved(x: Array, weights: Array, stride: int, pad: int, groups: int) -> Array:
    """Exact sums of `x` [N, C, H, W] (centred, 0 outside) over windows of `weights`."""
    outputs, inputs, height, width = weights.shape
    wide = np.pad(x.astype(np.int64), [(0, 0), (0, 0), (pad, pad), (pad, pad)])
    view = np.lib.stride_tricks.sliding_window_view(wide, (height, width), axis=(2, 3))
    view = view[:, :, ::stride, ::stride]
    parts = []
    for group in range(groups):
        mine = view[:, group * inputs : (group + 1) * inputs]
        own = weights[group * outputs // groups : (group + 1) * outputs // groups]
        parts.append(np.einsum("nchwij,ocij->nohw", mine, own.astype(np.int64)))
    return np.concatenate(parts, axis=1)


def transposed(
    x: Array,
    weights: Array,
    groups: int,
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
    extra: Sequence[int],
) -> Array:
    """Exact sums of a transposed convolution of `x` [N, C, ...] (centred): each element adds
    itself times the weights [C, O / groups, ...] of its channel to the window that it meets."""
    rank, (inputs, outputs, *kernel) = x.ndim - 2, weights.shape
    inputs //= groups
    sizes = [
        s * (n - 1) + (k - 1) * d + 1 + o
        for s, n, k, d, o in zip(strides, x.shape[2:], kernel, dilations, extra, strict=True)
    ]
    whole = np.zeros((x.shape[0], groups * outputs, *sizes), np.int64)
    for tap in np.ndindex(*kernel):
        window = tuple(
            slice(k * d, k * d + s * (n - 1) + 1, s)
            for k, d, s, n in zip(tap, dilations, strides, x.shape[2:], strict=True)
        )
        for group in range(groups):
            mine = slice(group * inputs, (group + 1) * inputs)
            own = slice(group * outputs, (group + 1) * outputs)
            factors = weights[(mine, slice(None), *tap)].astype(np.int64)
            whole[(slice(None), own, *window)] += np.einsum("nc...,co->no...", x[:, mine], factors)
    ends = (size - after for size, after in zip(sizes, pads[rank:], strict=True))
    return whole[(..., *map(slice, pads[:rank], ends))]
