"""What is kept of a pair of tensors over all samples, in memory that does not grow with them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from edgec.arrays import Array
from edgec.debugquant.match import Grid
from edgec.debugquant.run import Values

BINS = 64
"""Of a histogram, between the ends of the grid; one more on each side holds what is beyond."""


@dataclass
class Errors:
    """Sums of squares for each channel: of the error, and of the float values that it is in."""

    signal: Array = field(default_factory=lambda: np.zeros(0))
    noise: Array = field(default_factory=lambda: np.zeros(0))

    def add(self, wanted: Array, given: Array) -> None:
        """Count in float64 values [values, channels]; those that are not finite are left out."""
        finite = np.isfinite(wanted) & np.isfinite(given)
        signal = np.where(finite, wanted, 0)
        noise = np.where(finite, given, 0) - signal
        self.signal = _grown(self.signal, np.square(signal).sum(axis=0))
        self.noise = _grown(self.noise, np.square(noise).sum(axis=0))

    @property
    def sqnr_db(self) -> float:
        """Signal to quantization noise ratio: 10 log10(sum x^2 / sum (q - x)^2)."""
        return decibels(float(self.signal.sum()), float(self.noise.sum()))

    def channels_db(self) -> list[float]:
        """The same of each channel."""
        return [decibels(float(s), float(n)) for s, n in zip(self.signal, self.noise, strict=True)]

    def worst(self, count: int) -> list[int]:
        """The channels of the lowest ratios, those that are zeros left out."""
        ratios = self.channels_db()
        able = [i for i in range(len(ratios)) if self.signal[i] > 0 and ratios[i] < math.inf]
        return sorted(able, key=lambda i: ratios[i])[:count]


@dataclass
class Measure:
    """A pair's errors, ranges and, on a `grid`, what the float values would be there.

    `below` and `above` count the float values that the grid cuts off, of `values`. `histogram` has
    `BINS` + 2 counts of float and of quantized values.
    """

    channel_axis: int
    grid: Grid | None
    accumulated: Errors = field(default_factory=Errors)
    local: Errors = field(default_factory=Errors)
    float_range: tuple[float, float] = (math.inf, -math.inf)
    quantized_range: tuple[float, float] = (math.inf, -math.inf)
    largest_error: float = 0.0
    values: int = 0
    below: int = 0
    above: int = 0
    histogram: Array = field(default_factory=lambda: np.zeros((2, BINS + 2), np.int64))

    def add(self, values: Values) -> None:
        """Count in the values of one sample, which may differ in shape from the last."""
        wanted, given, local = (
            a.astype(np.float64) for a in (values.float, values.quantized, values.local)
        )
        if not wanted.size:
            return
        rows = [_by_channel(a, self.channel_axis) for a in (wanted, given, local)]
        self.accumulated.add(rows[0], rows[1])
        self.local.add(rows[0], rows[2])
        self.float_range = _widened(self.float_range, wanted)
        self.quantized_range = _widened(self.quantized_range, given)
        with np.errstate(invalid="ignore"):
            difference = np.nan_to_num(np.abs(given - wanted), nan=0.0, posinf=0.0)
        self.largest_error = max(self.largest_error, float(difference.max()))
        self.values += wanted.size
        if self.grid is not None:
            self._place(wanted, given, self.grid)

    def _place(self, wanted: Array, given: Array, grid: Grid) -> None:
        """Count what is beyond the ends of `grid` by more than half of a step, and where."""
        half = grid.step / 2
        self.below += int((wanted < grid.low - half).sum())
        self.above += int((wanted > grid.high + half).sum())
        for row, values in zip(self.histogram, (wanted, given), strict=True):
            with np.errstate(invalid="ignore"):
                place = np.floor((values - grid.low) / (grid.high - grid.low) * BINS)
            beyond = np.where(values > grid.high + half, BINS + 1, np.minimum(place, BINS - 1) + 1)
            place = np.where(values < grid.low - half, 0, np.maximum(beyond, 1))
            row += np.bincount(place[np.isfinite(values)].astype(np.intp), minlength=BINS + 2)


def decibels(signal: float, noise: float) -> float:
    """10 log10(signal / noise); infinite where there is no noise."""
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def _by_channel(values: Array, axis: int) -> Array:
    """`values` as [others, channels]."""
    if values.ndim < 2:
        return values.reshape(-1, 1)
    return np.moveaxis(values, axis, -1).reshape(-1, values.shape[axis])


def _grown(total: Array, more: Array) -> Array:
    """The sum of vectors, the shorter one continued by zeros: channels may be a free dimension."""
    if total.size < more.size:
        total, more = more, total
    total[: more.size] += more
    return total


def _widened(ends: tuple[float, float], values: Array) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if not finite.size:
        return ends
    return min(ends[0], float(finite.min())), max(ends[1], float(finite.max()))
