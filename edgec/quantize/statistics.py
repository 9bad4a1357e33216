"""What is kept of a tensor over all samples, in memory that does not grow with them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgec.arrays import Array


@dataclass
class Statistics:
    """The least and the largest value so far; `finite` is false once a value was not."""

    low: float = math.inf
    high: float = -math.inf
    samples: int = 0
    finite: bool = True

    def add(self, values: Array) -> None:
        """Count in the values of one sample."""
        if not values.size:
            return
        low, high = float(values.min()), float(values.max())
        self.finite = self.finite and math.isfinite(low) and math.isfinite(high)
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.samples += 1

    @property
    def range(self) -> tuple[float, float]:
        """The least and the largest value; NaN where there is no range to calibrate with."""
        if not self.finite or not self.samples:
            return math.nan, math.nan
        return self.low, self.high
