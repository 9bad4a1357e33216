"""Softmax and LayerNormalization of quantized elements, to the bit, on every instruction set."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lower.many_nodes import RUNNABLE

from edgec.compiler import emit_forms
from edgec.options import Options
from integer.contract import Array, Scaled, normalized, numbers_of, softmaxed
from integer.draws import FEW, MANY, scaled
from integer.models import Model
from integer.running import all_outputs

SHAPES = [(3, 128), (2, 5, 7), (1, 2, 9, 33), (40, 1), (2, 300), (130,), (1, 4, 1000)]
SCALES = (3e-7, 0.0117, 0.125, 9.0, 4e9)


@dataclass(frozen=True)
class Row:
    """An operator, what it reads, and what the result is held in."""

    op: str
    shape: tuple[int, ...]
    by: Scaled
    to: Scaled
    gain: float


@st.composite
def row(draw: st.DrawFn) -> Row:
    op = draw(st.sampled_from(["Softmax", "LayerNormalization"]))
    gain = draw(st.sampled_from([0.0, 1.0, 1e4])) if op == "LayerNormalization" else 1.0
    step = (gain or 1.0) * draw(st.sampled_from([1 / 256, 1 / 128, 0.0217, 1e-4]))
    shape = draw(st.sampled_from(SHAPES))
    return Row(op, shape, scaled(draw, draw(st.sampled_from(SCALES))), scaled(draw, step), gain)


@pytest.mark.parametrize("name", RUNNABLE)
@FEW
@given(drawn=st.lists(row(), min_size=12, max_size=12), seed=st.integers(0, 99))
def test_rows(name: str, session_cache: Path, drawn: list[Row], seed: int) -> None:
    check(drawn, seed, name, session_cache)


@pytest.mark.nightly
@pytest.mark.parametrize("name", RUNNABLE)
@MANY
@given(drawn=st.lists(row(), min_size=12, max_size=12), seed=st.integers(0, 99))
def test_many_rows(name: str, session_cache: Path, drawn: list[Row], seed: int) -> None:
    check(drawn, seed, name, session_cache)


EVERY = tuple(
    Row(op, (65, 256), Scaled(scale, 0), Scaled(step, 0 if op == "Softmax" else 128), 1.0)
    for op, step in (("Softmax", 1 / 256), ("LayerNormalization", 1 / 64))
    for scale in (0.01, 0.11)
)
"""Of every byte; where steps are powers of two results lie half-way between two elements."""


def check(drawn: Sequence[Row], seed: int, name: str, cache: Path) -> None:
    """All in one model."""
    model, feeds, expected = written([*drawn, *EVERY], seed)
    made = all_outputs(model, feeds, name, cache, threads=1 + seed % 3)
    for key, values in expected.items():
        np.testing.assert_array_equal(made[key], values)
    with tempfile.TemporaryDirectory() as folder:
        [path] = emit_forms(model, ["onnx"], Path(folder) / "integers.onnx", Options())
        left = {node.op_type for node in onnx.load(path).graph.node}
    assert not left & {"Softmax", "LayerNormalization", "Exp"}


def written(
    rows: Sequence[Row], seed: int
) -> tuple[onnx.ModelProto, dict[str, Array], dict[str, Array]]:
    """A model of all `rows`, its inputs, and what its outputs have to be."""
    numbers = np.random.default_rng(seed)
    model = Model((1,))
    feeds: dict[str, Array] = {"x": np.ones(1, np.float32)}
    expected: dict[str, Array] = {}
    for place, each in enumerate(rows):
        x = elements(numbers, each.shape, each.by)
        feeds[f"a{place}"] = numbers_of(x, each.by)
        data, size = model.through(f"a{place}", each.by), each.shape[-1]
        if each.op == "Softmax":
            y = model.node("Softmax", data)
            made = softmaxed(x, each.by, each.to)
        else:
            gain = (each.gain * numbers.uniform(-1, 2, size)).astype(np.float32)
            bias = numbers.uniform(-0.5, 0.5, size).astype(np.float32)
            parameters = (model.constant(values, "float32") for values in (gain, bias))
            y = model.node("LayerNormalization", data, *parameters, epsilon=1e-3)
            made = normalized(x, each.by, gain, bias, 1e-3, each.to)
        expected[model.through(y, each.to)] = numbers_of(made, each.to)
    y = model.node("Abs", "x")
    model.others = {key: value.shape for key, value in feeds.items() if key != "x"}
    return model.proto(y, (1,), **{k: v.shape for k, v in expected.items()}), feeds, expected


def elements(numbers: np.random.Generator, shape: tuple[int, ...], by: Scaled) -> Array:
    """Rows of all bytes, of few of them, and of one."""
    low, high = by.limits
    made = numbers.integers(low, high, shape, endpoint=True)
    near = np.clip(by.zero + numbers.integers(-3, 4, shape), low, high)
    kinds = numbers.integers(0, 3, (*shape[:-1], 1))
    return np.select([kinds == 0, kinds == 1], [made, near], by.zero).astype(by.dtype)
