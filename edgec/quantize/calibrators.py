"""Calibrators: what range of a tensor to hold, from its statistics. Each with its equation.

`lo` and `hi` are the least and the largest value `x` of all samples.

    minmax          [lo, hi]
    moving-average  the means over the samples of their least and of their largest value
    percentile      all but one value in 10,000 at either end
    mse             [a lo, b hi] with the least sum of (x - dequantize(quantize(x)))^2: the best
                    a = b in 0.2..1, then the best b beside that a, then the best a beside that b
    entropy         [-t, t] within [lo, hi], t with the least Kullback-Leibler divergence of the
                    values clipped at t from their histogram in 128 steps

Those that clip hold what lies within more finely, and lose what lies beyond.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from edgec.arrays import Array
from edgec.quantize.formulas import grid
from edgec.quantize.profiles import Profile
from edgec.quantize.statistics import BINS, Histogram, Statistics

Range = tuple[float, float]

TAIL = 1e-4
"""The share of values that percentile leaves out at either end."""

FRACTIONS = np.linspace(1.0, 0.2, 81)
STEPS = 128


def range_of(calibrator: str, statistics: Statistics, profile: Profile) -> Range:
    """The range to hold; NaN where the values were not finite, or there were none."""
    if not statistics.finite or not statistics.samples:
        return math.nan, math.nan
    return CALIBRATORS[calibrator](statistics, profile)


def _minmax(found: Statistics, profile: Profile) -> Range:
    return found.low, found.high


def _moving_average(found: Statistics, profile: Profile) -> Range:
    return found.lows / found.samples, found.highs / found.samples


def _percentile(found: Statistics, profile: Profile) -> Range:
    histogram = _histogram(found)
    share = histogram.counts.cumsum() / histogram.counts.sum()
    width = 2 * histogram.limit / BINS
    first = int(np.searchsorted(share, TAIL, side="right"))
    last = int(np.searchsorted(share, 1 - TAIL))
    low, high = first * width - histogram.limit, (last + 1) * width - histogram.limit
    return max(low, found.low), min(high, found.high)


def _mse(found: Statistics, profile: Profile) -> Range:
    histogram = _histogram(found)
    filled = histogram.counts > 0
    values = histogram.centres[filled].astype(np.float32)
    counts = histogram.counts[filled]

    def error(ends: Range) -> float:
        held = grid(*ends, profile.activations, symmetric=profile.symmetric)
        off = held.dequantize(held.quantize(values)) - values
        return float((counts * off.astype(np.float64) ** 2).sum())

    lows, highs = (FRACTIONS * found.low).tolist(), (FRACTIONS * found.high).tolist()
    low, high = min(zip(lows, highs, strict=True), key=error)
    if not profile.symmetric:
        high = min(highs, key=lambda end: error((low, end)))
        low = min(lows, key=lambda end: error((end, high)))
    return low, high


def _entropy(found: Statistics, profile: Profile) -> Range:
    counts = _histogram(found).counts
    sides = counts[BINS // 2 :] + counts[: BINS // 2][::-1]
    last = int(np.flatnonzero(sides).max(initial=0)) + 1
    if last <= STEPS:
        return found.low, found.high
    best = min(range(STEPS, last + STEPS, STEPS // 4), key=lambda bins: _divergence(sides, bins))
    limit = min(best, BINS // 2) * (2 * _histogram(found).limit / BINS)
    return max(found.low, -limit), min(found.high, limit)


def _divergence(sides: Array, bins: int) -> float:
    """Of the first `bins`, with all beyond in the last, from the same in `STEPS` steps."""
    bins = min(bins, sides.size)
    kept = sides[:bins].astype(np.float64)
    clipped = kept.copy()
    clipped[-1] += sides[bins:].sum()
    step = np.arange(bins) * STEPS // bins
    filled = kept > 0
    sums = np.bincount(step, kept, STEPS)
    numbers = np.bincount(step, filled, STEPS)
    spread = np.where(filled, (sums / np.maximum(numbers, 1))[step], 0.0)
    p, q = clipped / clipped.sum(), spread / max(spread.sum(), 1.0)
    both = (p > 0) & (q > 0)
    missed = float(p[(p > 0) & (q == 0)].sum())
    return float((p[both] * np.log(p[both] / q[both])).sum()) + missed


def _histogram(found: Statistics) -> Histogram:
    if found.histogram is None:
        raise ValueError("no histogram was kept")
    return found.histogram


CALIBRATORS: dict[str, Callable[[Statistics, Profile], Range]] = {
    "minmax": _minmax,
    "moving-average": _moving_average,
    "percentile": _percentile,
    "entropy": _entropy,
    "mse": _mse,
}

WITH_HISTOGRAM = frozenset(("percentile", "entropy", "mse"))
"""Calibrators that need one."""
