"""Functions of single quantized elements, each the nearest element to the exact value."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from lower.many_nodes import RUNNABLE

from integer.contract import Array, Scaled, convolved, numbers_of, quantized, requantized
from integer.models import Model
from integer.running import outputs

BY, TO = Scaled(0.0471, 131), Scaled(0.0209, 17)


def expected(elements: Array, function: np.vectorize) -> Array:
    """What a function of float64 makes of quantized elements."""
    exact = function((elements.astype(np.float64) - BY.zero) * np.float64(np.float32(BY.scale)))
    whole = np.rint(exact / np.float64(np.float32(TO.scale))) + TO.zero
    return numbers_of(np.clip(whole, *TO.limits).astype(TO.dtype), TO)


@pytest.mark.parametrize("name", RUNNABLE)
@pytest.mark.parametrize("width", [7, 300])
def test_every_byte(name: str, width: int, session_cache: Path) -> None:
    """x * sigmoid(x), of two nodes."""
    model = Model((3, width))
    a = model.through("x", BY)
    y = model.through(model.node("Mul", a, model.node("Sigmoid", a)), TO)
    x = (np.random.default_rng(width).uniform(-7, 7, model.shape)).astype(np.float32)
    swish = np.vectorize(lambda v: v / (1 + math.exp(-v)))
    made = outputs(model.proto(y, model.shape), {"x": x}, name, session_cache)
    np.testing.assert_array_equal(made, expected(quantized(x, BY), swish))


@pytest.mark.parametrize("name", RUNNABLE)
def test_behind_a_convolution(name: str, session_cache: Path) -> None:
    """In blocks of channels, and in the convolution's own kernel."""
    numbers = np.random.default_rng(5)
    model, x_by = Model((1, 16, 5, 6)), Scaled(0.021, 90)
    weights = numbers.integers(-127, 128, (24, 16, 1, 1), np.int8)
    scale = np.array(0.002, np.float32)
    c = model.node("Conv", model.through("x", x_by), model.weights(weights, scale))
    y = model.through(model.node("Tanh", model.through(c, BY)), TO)
    x = (numbers.standard_normal(model.shape) * 2).astype(np.float32)
    sums = convolved(quantized(x, x_by).astype(np.int64) - x_by.zero, weights, 1, 0, 1)
    step = np.float64(np.float32(x_by.scale)) * np.float64(scale)
    elements = requantized(sums, np.array(step), BY)
    made = outputs(model.proto(y, (1, 24, 5, 6)), {"x": x}, name, session_cache)
    np.testing.assert_array_equal(made, expected(elements, np.vectorize(math.tanh)))
