"""Predicts the time of candidates from those that were measured.

A Gaussian process over features: candidates that differ little take about as long, and the less is
known of one, the wider its error. Its correlation is exponential in the distance, whose scale is
the one of a few that makes the measurements most likely (Rasmussen and Williams, "Gaussian
Processes for Machine Learning", 2006, sections 2.2 and 5.4.1). A space has some hundred candidates:
numpy solves that in milliseconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

SCALES = (1.0, 2.0, 4.0, 8.0)
"""Distances over which the correlation falls to 1/e, in features' deviations."""

_NOISE = 0.01
"""Variance of a measurement, in that of all of them."""


class CostModel:
    """Fitted to `features` [n, d] and `costs` [n], such as logarithms of times; n is at least 1.

    `scales` are those to choose the correlation's from; `scale` is the one chosen.
    """

    def __init__(
        self, features: np.ndarray, costs: np.ndarray, scales: Sequence[float] = SCALES
    ) -> None:
        spread = features.std(axis=0)
        self._weights = np.divide(1.0, spread, out=np.ones_like(spread), where=spread > 0)
        self._features = features
        self._mean = float(costs.mean())
        self._deviation = max(float(costs.std()), 1e-3)
        scaled = (costs - self._mean) / self._deviation
        distances = self._distances(features)
        self.scale, self._inverse = max(
            ((scale, _inverse(distances, scale)) for scale in scales),
            key=lambda pair: _likelihood(pair[1], scaled),
        )
        self._factors = self._inverse @ scaled

    def predict(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Expected cost and its standard deviation, [m] each, of candidates [m, d]."""
        near = np.exp(-self._distances(features) / self.scale)
        known = ((near @ self._inverse) * near).sum(axis=1)
        deviation = np.sqrt(np.maximum(1.0 - known, 1e-12))
        return self._mean + self._deviation * (near @ self._factors), self._deviation * deviation

    def _distances(self, features: np.ndarray) -> np.ndarray:
        """From each of `features` to each of those fitted, [m, n]."""
        result = np.zeros((len(features), len(self._features)))
        for mine, its, weight in zip(features.T, self._features.T, self._weights, strict=True):
            if mine.any() or its.any():
                result += weight * np.abs(mine[:, None] - its[None, :])
        return result


def expected_gain(expected: np.ndarray, deviation: np.ndarray, best: float) -> np.ndarray:
    """How far candidates are expected to get below `best`, counting those as 0 that do not (Jones,
    Schonlau and Welch, "Efficient Global Optimization", 1998)."""
    z = (best - expected) / deviation
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    below = np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in z])
    return np.asarray((best - expected) * below + deviation * density)


def _inverse(distances: np.ndarray, scale: float) -> np.ndarray:
    return np.linalg.inv(np.exp(-distances / scale) + _NOISE * np.eye(len(distances)))


def _likelihood(inverse: np.ndarray, costs: np.ndarray) -> float:
    """The logarithm, constants apart."""
    return float(np.linalg.slogdet(inverse)[1] - costs @ inverse @ costs)
