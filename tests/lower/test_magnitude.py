"""Bounds of the sums that are quantized without limits in floats."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
import pytest

from edgec.lower.magnitude import magnitude


def node(op: str, *inputs: Any, dtype: Any = None) -> gs.Variable:
    """The result of a node; arrays are constants."""
    tensors = [
        each if isinstance(each, gs.Tensor) else gs.Constant(f"{op}{i}", np.asarray(each))
        for i, each in enumerate(inputs)
    ]
    made = gs.Variable(op, dtype)
    gs.Node(op, op, inputs=tensors, outputs=[made])
    return made


BYTES = gs.Variable("x", np.uint8)
WEIGHTS = np.array([[[[-128, 127]]], [[[-100, -100]]]], np.int8)


def test_a_sum_scaled_and_clipped() -> None:
    sums = node("ConvInteger", BYTES, WEIGHTS, np.uint8(128), dtype=np.int32)
    assert magnitude(sums) == 255 * 255
    biased = node("Add", sums, np.array([[[[-70]], [[7]]]], np.int32))
    scaled = node("Mul", node("Cast", biased), np.array([0.5, -2.0], np.float32))
    assert magnitude(node("Clip", scaled, np.float32(0))) == 2 * (255 * 255 + 70)


@pytest.mark.parametrize("rows", [1, 7])
def test_no_product_is_beyond_its_bound(rows: int) -> None:
    numbers = np.random.default_rng(rows)
    weights = numbers.integers(-128, 128, (9, 5), np.int8)
    x = numbers.choice([0, 255], (rows, 9)).astype(np.int64)
    sums = node("MatMulInteger", BYTES, weights, np.uint8(77), dtype=np.int32)
    assert np.abs((x - 77) @ weights.astype(np.int64)).max() <= magnitude(sums)


def test_operands_of_two_scales() -> None:
    left, right = (node("DequantizeLinear", BYTES, np.float32(s), np.uint8(3)) for s in (0.5, 2))
    assert magnitude(node("Add", left, right)) == 255 * 2.5


@pytest.mark.parametrize(
    "tensor",
    [
        gs.Variable("y", np.float32),
        node("Mul", gs.Variable("y", np.float32), np.float32(0.5)),
        node("Cast", gs.Variable("y", np.float32)),
        node("Mul", node("Cast", BYTES), np.float32(np.nan)),
        node("MatMulInteger", BYTES, gs.Variable("w", np.int8), dtype=np.int32),
        node("Exp", BYTES),
    ],
)
def test_what_is_not_known_is_not_bounded(tensor: gs.Tensor) -> None:
    assert magnitude(tensor) >= 2**31 or math.isinf(magnitude(tensor))


def test_integers_are_bounded_by_their_kind() -> None:
    assert magnitude(BYTES) == 255
    assert magnitude(gs.Variable("z", np.int8)) == 128
    assert magnitude(gs.Variable("z", np.int32)) == 2**31
