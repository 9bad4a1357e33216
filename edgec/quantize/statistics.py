"""What is kept of a tensor over all samples, in memory that does not grow with them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from edgec.arrays import Array

BINS = 4096
"""Of a histogram: as many on either side of zero."""


@dataclass
class Histogram:
    """How many values lie in each of `BINS` equal parts of `-limit` to `limit`.

    Where a value lies beyond, `limit` doubles and neighbouring parts become one.
    """

    limit: float = 0.0
    counts: Array = field(default_factory=lambda: np.zeros(BINS, np.int64))

    def add(self, values: Array) -> None:
        """Count in finite `values`."""
        largest = float(np.abs(values).max(initial=0.0))
        if self.limit == 0.0:
            self.limit = 2.0 ** math.ceil(math.log2(largest)) if largest else 0.0
        while largest > self.limit:
            self._widen()
        if self.limit:
            ends = (-self.limit, self.limit)
            self.counts += np.histogram(values, BINS, ends)[0]
        else:
            self.counts[BINS // 2] += values.size

    @property
    def centres(self) -> Array:
        """The middle of each part."""
        return np.asarray((np.arange(BINS) + 0.5) * (2 * self.limit / BINS) - self.limit)

    def _widen(self) -> None:
        self.limit *= 2
        merged = self.counts.reshape(-1, 2).sum(axis=1)
        self.counts = np.pad(merged, BINS // 4)


@dataclass
class Statistics:
    """The least and the largest value so far, and the sums over the samples of those of each.

    `finite` is false once a value was not. `histogram` is kept where a calibrator needs it.
    """

    low: float = math.inf
    high: float = -math.inf
    lows: float = 0.0
    highs: float = 0.0
    samples: int = 0
    finite: bool = True
    histogram: Histogram | None = None

    def add(self, values: Array) -> None:
        """Count in the values of one sample."""
        if not values.size or not self.finite:
            return
        low, high = float(values.min()), float(values.max())
        self.finite = math.isfinite(low) and math.isfinite(high)
        if not self.finite:
            return
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.lows, self.highs = self.lows + low, self.highs + high
        self.samples += 1
        if self.histogram is not None:
            self.histogram.add(values)
