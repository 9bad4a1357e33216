"""Images of quantized elements made larger, to the bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx.parser
import pytest
from lower.many_nodes import RUNNABLE

from edgec.flips import find_flips
from edgec.program import Tensor
from edgec.qdq.meaning import meaning_of
from integer.contract import Array, Scaled, numbers_of, quantized
from integer.models import Model
from integer.running import outputs


def doubled(x: Array, axis: int) -> Array:
    """Four times the values at twice as many places, between those of `x`: three parts of the
    nearest, one of the next; the edge is its own neighbour."""
    x = np.moveaxis(x, axis, -1)
    before = np.concatenate([x[..., :1], x[..., :-1]], -1)
    after = np.concatenate([x[..., 1:], x[..., -1:]], -1)
    pairs = np.stack([3 * x + before, 3 * x + after], -1)
    return np.moveaxis(pairs.reshape(*x.shape[:-1], -1), -1, axis)


@pytest.mark.parametrize("name", RUNNABLE)
@pytest.mark.parametrize("to", [Scaled(0.0371, 100), Scaled(0.0123, 7)], ids=["same", "other"])
def test_means_of_neighbours(name: str, to: Scaled, session_cache: Path) -> None:
    """Every other mean of four is half-way between two integers: ties go to even."""
    by, model = Scaled(0.0371, 100), Model((1, 20, 5, 6))
    sizes = model.constant([1, 1, 2, 2], "float32")
    y = model.node("Resize", model.through("x", by), "", sizes, mode="linear")
    y = model.through(y, to)
    x = (np.random.default_rng(1).standard_normal(model.shape) * 2).astype(np.float32)
    sixteenths = doubled(doubled(quantized(x, by).astype(np.int64) - by.zero, 2), 3)
    steps = (sixteenths / 16).astype(np.float32) * np.float32(by.scale / to.scale)
    elements = np.clip(np.rint(steps).astype(np.int64) + to.zero, *to.limits).astype(to.dtype)
    expected = numbers_of(elements, to)
    made = outputs(model.proto(y, expected.shape), {"x": x}, name, session_cache)
    np.testing.assert_array_equal(made, expected)


@pytest.mark.parametrize(
    ("scale", "attributes", "flips"),
    [
        (2, {"mode": "linear"}, False),
        (2, {"mode": "linear", "coordinate_transformation_mode": "align_corners"}, True),
        (3, {"mode": "linear"}, True),
        (3, {"mode": "nearest"}, False),
        (2, {"mode": "cubic"}, True),
    ],
)
def test_means_that_are_exact(scale: int, attributes: dict[str, str], flips: bool) -> None:
    """Of bytes, by powers of a half: the proof gives them no leave to be another element."""
    by, model = Scaled(0.0371, 100), Model((1, 2, 5, 6))
    sizes = model.constant([1, 1, scale, scale], "float32")
    y = model.node("Resize", model.through("x", by), "", sizes, **attributes)
    proto = model.proto(model.through(y, by), (1, 2, 5 * scale, 6 * scale))
    found = find_flips(meaning_of(proto, [Tensor("x", "float32", model.shape)]))
    assert bool(found) == flips


@pytest.mark.parametrize(("zero", "flips"), [("uint8", False), ("float8e4m3fn", True)])
def test_only_bytes_that_are_integers_have_exact_means(zero: str, flips: bool) -> None:
    """Floats of eight bits have fractions."""
    model = onnx.parser.parse_model(f"""
        <ir_version: 10, opset_import: ["" : 21]>
        g ({zero}[1, 1, 4, 4] x) => (uint8[1, 1, 8, 8] y)
        <float one = {{1}}, {zero} zero = {{0}}, uint8 z = {{9}}, float[4] s = {{1, 1, 2, 2}}>
        {{ a = DequantizeLinear(x, one, zero)  b = Resize<mode = "linear">(a, , s)
           y = QuantizeLinear(b, one, z) }}""")
    assert find_flips(model) == (frozenset(["y"]) if flips else frozenset())
