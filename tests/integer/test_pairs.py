"""Sums, differences and products of two quantized tensors, to the bit, on every instruction set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lower.many_nodes import RUNNABLE

from integer.contract import (
    Array,
    Scaled,
    added,
    convolved,
    multiplied,
    numbers_of,
    requantized,
)
from integer.draws import FEW, MANY, scaled
from integer.models import Model
from integer.running import all_outputs

SHAPES = [
    ((3, 7), (3, 7)),
    ((2, 5, 33), (33,)),
    ((1, 20, 5, 6), (1, 20, 1, 1)),
    ((4, 1, 9), (1, 6, 9)),
    ((6, 1), (1, 130)),
]
"""Those of both operands; the fourth and the fifth are broadcast both."""
SCALES = (1.7e-18, 0.0117, 0.5, 31.0, 2.9e16)
KINDS = {
    "Add": added,
    "Sub": lambda *operands: added(*operands, sign=-1),
    "Mul": multiplied,
}


@dataclass(frozen=True)
class Pair:
    """Two operands, the second constant or not, and what the result is held in."""

    op: str
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    first: Scaled
    second: Scaled
    to: Scaled
    constant: bool


@st.composite
def pairs(draw: st.DrawFn) -> Pair:
    op = draw(st.sampled_from(list(KINDS)))
    first, second = (scaled(draw, draw(st.sampled_from(SCALES))) for _ in range(2))
    step = 90 * first.scale * second.scale if op == "Mul" else first.scale + second.scale
    to = scaled(draw, step * draw(st.sampled_from([0.5, 1.0, 2.3])))
    return Pair(op, draw(st.sampled_from(SHAPES)), first, second, to, draw(st.booleans()))


@pytest.mark.parametrize("name", RUNNABLE)
@FEW
@given(drawn=st.lists(pairs(), min_size=12, max_size=12), seed=st.integers(0, 99))
def test_pairs(name: str, session_cache: Path, drawn: list[Pair], seed: int) -> None:
    check(drawn, seed, name, session_cache)


@pytest.mark.nightly
@pytest.mark.parametrize("name", RUNNABLE)
@MANY
@given(drawn=st.lists(pairs(), min_size=12, max_size=12), seed=st.integers(0, 99))
def test_many_pairs(name: str, session_cache: Path, drawn: list[Pair], seed: int) -> None:
    check(drawn, seed, name, session_cache)


_GRID = ((256, 1), (256,))
EVERY = (
    Pair("Mul", _GRID, Scaled(0.25, 3), Scaled(0.5, 255), Scaled(32.0, 250), constant=False),
    *(
        Pair(
            op, _GRID, Scaled(0.0396, 100), Scaled(0.0418, 100), Scaled(0.044, 100), constant=False
        )
        for op in ("Add", "Sub")
    ),
)
"""Every pair of bytes. Every other product is half-way between two elements; of 222 sums the fused
multiply-add has another nearest element than the sum of two rounded products."""


def check(drawn: Sequence[Pair], seed: int, name: str, cache: Path) -> None:
    """All in one model, and channels that are weighted."""
    numbers = np.random.default_rng(seed)
    model = Model((1, 16, 5, 6))
    feeds: dict[str, Array] = {}
    expected: dict[str, Array] = {}
    for place, pair in enumerate([*drawn, *EVERY]):
        a, b = (
            elements(numbers, shape, by)
            for shape, by in zip(pair.shapes, (pair.first, pair.second), strict=True)
        )
        if pair in EVERY:
            a, b = np.broadcast_arrays(a, b)
        left = f"a{place}"
        feeds[left] = numbers_of(a, pair.first)
        if pair.constant:
            second = pair.second
            parameters = (second.scale, "float32"), (second.zero, second.dtype)
            given = [model.constant(*each) for each in ((b, second.dtype), *parameters)]
            right = model.node("DequantizeLinear", *given)
        else:
            right = model.through(f"b{place}", pair.second)
            feeds[f"b{place}"] = numbers_of(b, pair.second)
        y = model.through(model.node(pair.op, model.through(left, pair.first), right), pair.to)
        expected[y] = numbers_of(KINDS[pair.op](a, pair.first, b, pair.second, pair.to), pair.to)
    y, channels = weighted(numbers, model, feeds)
    model.others = {key: value.shape for key, value in feeds.items() if key != "x"}
    shapes = {key: value.shape for key, value in expected.items()}
    made = all_outputs(
        model.proto(y, channels.shape, **shapes), feeds, name, cache, threads=1 + seed % 3
    )
    for key, values in {y: channels, **expected}.items():
        np.testing.assert_array_equal(made[key], values)


def weighted(
    numbers: np.random.Generator, model: Model, feeds: dict[str, Array]
) -> tuple[str, Array]:
    """A convolution of x times z, one number for each channel, both in blocks: squeeze and
    excitation. The name of the result, and what it is to be."""
    x_by, w_by, c_by = Scaled(0.02, 90), Scaled(0.004, 0), Scaled(0.03, 131)
    weights, step = numbers.integers(-127, 128, (24, 16, 1, 1), np.int8), np.float32(0.002)
    c = model.node("Conv", model.through("x", x_by), model.weights(weights, step))
    c = model.through(c, c_by)
    y = model.through(model.node("Mul", c, model.through("z", w_by)), c_by)
    x, z = elements(numbers, model.shape, x_by), elements(numbers, (1, 24, 1, 1), w_by)
    feeds |= {"x": numbers_of(x, x_by), "z": numbers_of(z, w_by)}
    sums = convolved(x.astype(np.int64) - x_by.zero, weights, 1, 0, 1)
    image = requantized(sums, np.array(np.float64(x_by.scale) * np.float64(step)), c_by)
    return y, numbers_of(multiplied(image, c_by, z, w_by, c_by), c_by)


def elements(numbers: np.random.Generator, shape: tuple[int, ...], by: Scaled) -> Array:
    """Of every value, and those of both ends more often; each byte once where there are 256."""
    low, high = by.limits
    if math.prod(shape) == 256:
        return np.arange(low, high + 1).reshape(shape).astype(by.dtype)
    made = numbers.integers(low, high, shape, endpoint=True)
    ends = numbers.choice([low, high, by.zero], shape)
    return np.where(numbers.random(shape) < 0.3, ends, made).astype(by.dtype)
