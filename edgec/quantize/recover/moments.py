"""What is kept of the rows that a product reads: means and second moments, float and quantized."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgec.arrays import Array
from edgec.quantize.formulas import Grid
from edgec.quantize.recover.unfold import rows
from edgec.quantize.units import Unit


@dataclass
class Moments:
    """Sums over `count` rows, by group: of rows x [groups, inputs] and x' (quantized), and where
    `second` is asked for of x'^T x' and x'^T x [groups, inputs, inputs]."""

    second: bool
    count: int = 0
    plain: Array | float = 0.0
    quantized: Array | float = 0.0
    h: Array | float = 0.0
    g: Array | float = 0.0

    def add(self, unit: Unit, values: Array, grid: Grid, random: np.random.Generator) -> None:
        """Count in what `unit` reads in one sample, and its quantization to `grid`."""
        x = rows(unit, values, random)
        given = grid.dequantize(grid.quantize(x))
        self.count += x.shape[1]
        self.plain = self.plain + x.sum(axis=1, dtype=np.float64)
        self.quantized = self.quantized + given.sum(axis=1, dtype=np.float64)
        if self.second:
            turned = given.transpose(0, 2, 1)
            self.h = self.h + (turned @ given).astype(np.float64)
            self.g = self.g + (turned @ x).astype(np.float64)
