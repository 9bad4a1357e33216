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

_erf = np.vectorize(math.erf, otypes=[np.float64])


@pytest.mark.parametrize(
    ("op", "exact"), [("Exp", np.exp), ("Tanh", np.tanh), ("Erf", _erf)], ids=["exp", "tanh", "erf"]
)
def test_within_a_few_units_in_the_last_place(
    op: str, exact: Callable[[np.ndarray], np.ndarray]
) -> None:
    x = np.concatenate([np.linspace(-12, 12, 8000), np.linspace(-87, 88, 2000), SPECIAL, LIMITS])
    x = x.astype(np.float32)
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 21]> g (float[{x.size}] x) => (float[{x.size}] y) '
        f"{{ y = {op}(x) }}"
    )
    module = edgec.compile(model)
    actual = module.run({"x": x})["y"].astype(np.float64)
    with np.errstate(over="ignore", under="ignore"):
        expected = exact(x.astype(np.float64))
        rounded = expected.astype(np.float32)
    assert np.array_equal(np.isnan(actual), np.isnan(x))
    assert np.array_equal(np.isinf(actual), np.isinf(rounded))
    finite = np.isfinite(rounded)
    spacing = np.spacing(np.abs(rounded[finite])).astype(np.float64)
    assert np.max(np.abs(actual[finite] - expected[finite]) / spacing) <= ULPS
