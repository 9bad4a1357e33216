"""Products of two computed operands, and of one with a bias behind it, against the contract."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lower.many_nodes import RUNNABLE

from integer.contract import Scaled, numbers_of, quantized, requantized
from integer.models import Model
from integer.running import outputs

FEW = settings(
    max_examples=3,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
MANY = settings(FEW, max_examples=60, derandomize=False)


@st.composite
def scaled(draw: st.DrawFn) -> Scaled:
    """A scale, often a power of two, and a zero point, often at an end."""
    dtype = draw(st.sampled_from(["uint8", "int8"]))
    limits = np.iinfo(dtype)
    zero = draw(st.sampled_from([int(limits.min), int(limits.max), 0, 3]))
    return Scaled(draw(st.sampled_from([0.5, 0.0625, 0.1, 0.0123])), zero, dtype)


@st.composite
def products(draw: st.DrawFn) -> dict[str, object]:
    """A product of two and all that quantizes it."""
    return {
        "batches": draw(st.sampled_from([((), ()), ((2,), (2,)), ((2, 3), (3,)), ((), (2,))])),
        "sizes": tuple(draw(st.integers(1, 40)) for _ in range(3)),
        "transposed": draw(st.booleans()),
        "a": draw(scaled()),
        "b": draw(scaled()),
        "y": draw(st.none() | scaled()),
        "seed": draw(st.integers(0, 99)),
    }


@pytest.mark.parametrize("name", RUNNABLE)
@FEW
@given(drawn=products())
def test_products_of_two(name: str, session_cache: Path, drawn: dict[str, object]) -> None:
    check(drawn, name, session_cache)


@pytest.mark.nightly
@pytest.mark.parametrize("name", RUNNABLE)
@MANY
@given(drawn=products())
def test_many_products_of_two(name: str, session_cache: Path, drawn: dict[str, object]) -> None:
    check(drawn, name, session_cache)


def check(drawn: dict[str, object], name: str, cache: Path) -> None:
    numbers = np.random.default_rng(drawn["seed"])
    rows, terms, columns = drawn["sizes"]
    a_by, b_by, y_by = drawn["a"], drawn["b"], drawn["y"]
    batches = drawn["batches"]
    shapes = (*batches[0], rows, terms), (*batches[1], terms, columns)
    a, b = (
        (numbers.standard_normal(shape) * 60 * by.scale).astype(np.float32)
        for shape, by in zip(shapes, (a_by, b_by), strict=True)
    )
    exact = (quantized(a, a_by).astype(np.int64) - a_by.zero) @ (
        quantized(b, b_by).astype(np.int64) - b_by.zero
    )
    scale = np.float64(np.float32(a_by.scale)) * np.float64(np.float32(b_by.scale))
    given = np.swapaxes(b, -1, -2).copy() if drawn["transposed"] else b
    model = Model(a.shape, y=given.shape)
    right = model.through("y", b_by)
    if drawn["transposed"]:
        *lead, last, end = range(b.ndim)
        right = model.node("Transpose", right, perm=[*lead, end, last])
    y = model.node("MatMul", model.through("x", a_by), right)
    if y_by is None:
        expected = exact.astype(np.float32) * np.float32(scale)
    else:
        y_by = Scaled(terms * y_by.scale, y_by.zero, y_by.dtype)
        y = model.through(y, y_by)
        expected = numbers_of(requantized(exact, np.array(scale), y_by), y_by)
    feeds, threads = {"x": a, "y": given}, 1 + drawn["seed"] % 3
    made = outputs(model.proto(y, expected.shape), feeds, name, cache, threads, share=1.0)
    np.testing.assert_array_equal(made, expected)


@pytest.mark.parametrize("name", RUNNABLE)
def test_a_bias_behind_a_product(name: str, session_cache: Path) -> None:
    """It is added to the sum, before anything is rounded."""
    numbers = np.random.default_rng(4)
    model, by, to = Model((5, 3, 20)), Scaled(0.0123, 9), Scaled(0.61, 100)
    weights = numbers.integers(-128, 128, (20, 33)).astype(np.int8)
    bias = numbers.integers(-9999, 9999, 33).astype(np.int32)
    scales = numbers.uniform(0.01, 0.02, 33).astype(np.float32)
    scale = np.float64(np.float32(by.scale)) * scales.astype(np.float64)
    product = model.node("MatMul", model.through("x", by), model.weights(weights, scales, 1))
    behind = model.node("Add", model.weights(bias, scale.astype(np.float32)), product)
    y = model.through(model.node("Relu", behind), to)
    x = numbers.standard_normal(model.shape).astype(np.float32)
    exact = (quantized(x, by).astype(np.int64) - by.zero) @ weights.astype(np.int64) + bias
    expected = numbers_of(requantized(exact, scale, to, low=0.0), to)
    made = outputs(model.proto(y, expected.shape), {"x": x}, name, session_cache)
    np.testing.assert_array_equal(made, expected)
