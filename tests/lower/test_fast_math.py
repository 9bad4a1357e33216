"""exp, tanh and erf written out: accurate over the whole range, and exact where they must be."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx
import pytest

import edgec

ULPS = 10
SPECIAL = [0.0, -0.0, math.inf, -math.inf, math.nan, 1e-38, -1e-38, 1e-45]
LIMITS = [88.5, 88.7, 88.8, 89.5, 200.0, -86.0, -88.0, -95.0, -103.0, -104.5, -200.0]

EXACT: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "Exp": np.exp,
    "Tanh": np.tanh,
    "Erf": np.vectorize(math.erf, otypes=[np.float64]),
}


@pytest.fixture(scope="module")
def made() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Numbers, and each function of them."""
    x = np.concatenate([np.linspace(-12, 12, 8000), np.linspace(-87, 88, 2000), SPECIAL, LIMITS])
    x = x.astype(np.float32)
    outputs = ", ".join(f"float[{x.size}] {op}" for op in EXACT)
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 21]> g (float[{x.size}] x) => ({outputs}) '
        f"{{ {' '.join(f'{op} = {op}(x)' for op in EXACT)} }}"
    )
    return x, edgec.compile(model).run({"x": x})


@pytest.mark.parametrize("op", EXACT)
def test_within_a_few_units_in_the_last_place(
    op: str, made: tuple[np.ndarray, dict[str, np.ndarray]]
) -> None:
    x, exact = made[0], EXACT[op]
    actual = made[1][op].astype(np.float64)
    with np.errstate(over="ignore", under="ignore"):
        expected = exact(x.astype(np.float64))
        rounded = expected.astype(np.float32)
    assert np.array_equal(np.isnan(actual), np.isnan(x))
    assert np.array_equal(np.isinf(actual), np.isinf(rounded))
    finite = np.isfinite(rounded)
    spacing = np.spacing(np.abs(rounded[finite])).astype(np.float64)
    assert np.max(np.abs(actual[finite] - expected[finite]) / spacing) <= ULPS
