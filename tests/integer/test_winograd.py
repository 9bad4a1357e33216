"""Winograd's filtering in integers: its sums to the bit, and where they are taken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lower.integer_running import compiled
from tvm import relax, tirx

from edgec import targets
from edgec.lower import integer_winograd
from edgec.lower.context import Context, literal
from edgec.lower.window import Window
from integer import test_contract
from integer.contract import Scaled

LAYERS = {
    "whole tiles": (1, 32, 32, (8, 12), (1, 1, 1, 1), 77),
    "rest below and beside": (1, 16, 48, (7, 9), (1, 1, 1, 1), 0),
    "no border": (1, 48, 16, (11, 6), (0, 0, 0, 0), 255),
    "uneven borders": (1, 16, 16, (5, 10), (2, 0, 0, 2), 255),
    "uneven channels": (1, 20, 33, (9, 6), (1, 1, 1, 1), 128),
    "several images": (2, 16, 16, (6, 5), (0, 1, 1, 0), 1),
    "many columns": (1, 16, 16, (5, 85), (1, 1, 1, 1), 200),
    "smaller than a tile": (1, 16, 16, (1, 2), (1, 1, 1, 1), 3),
    "all rows at once": (1, 16, 16, (30, 4), (1, 1, 1, 1), 9),
}
"""Images, channels in and out, height and width, borders above, left, below and right, and what is
in them."""


def convolved(x: np.ndarray, weights: np.ndarray, border: tuple[int, ...], zero: int) -> np.ndarray:
    """Exact sums over windows of `x` [N, C, H, W] with `zero` around it."""
    top, left, below, right = border
    pads = [(0, 0), (0, 0), (top, below), (left, right)]
    wide = np.pad(x.astype(np.int64), pads, constant_values=zero)
    view = np.lib.stride_tricks.sliding_window_view(wide, (3, 3), axis=(2, 3))
    return np.einsum("nchwij,ocij->nohw", view, weights.astype(np.int64))


def blocked(x: np.ndarray, lanes: int) -> np.ndarray:
    """An image in blocks; lanes beyond its channels hold what they must not add."""
    batch, channels, *space = x.shape
    whole = np.full((batch, -(-channels // lanes) * lanes, *space), 201, np.uint8)
    whole[:, :channels] = x
    return np.ascontiguousarray(np.moveaxis(whole.reshape(batch, -1, lanes, *space), 2, -1))


def window(space: tuple[int, ...], border: tuple[int, ...]) -> Window:
    sizes = tuple(n + border[a] + border[a + 2] - 2 for a, n in enumerate(space))
    return Window((3, 3), (1, 1), (1, 1), border[:2], border[2:], sizes)


def summed(
    x: np.ndarray,
    weights: np.ndarray,
    border: tuple[int, ...],
    zero: int,
    name: str,
    folder: Path,
    end: Callable[[Any], Any] = lambda total: total,
) -> np.ndarray:
    """The sums of the kernel for the target `name`, channels whole again, and `end` of each."""
    target, w = targets.resolve(name), window(x.shape[2:], border)
    given = blocked(x, target.channel_block)
    kernel = compiled(
        lambda ctx, image: ctx.map("end", end, integer_winograd.sums(ctx, image, zero, weights, w)),
        [given],
        target,
        folder,
    )
    made = np.moveaxis(kernel(given), -1, 2)
    return made.reshape(x.shape[0], -1, *w.sizes)[:, : weights.shape[0]]


OTHERS = ("x86-64-v2", "x86-64-v3", "x86-64-v4")
CASES = [*((layer, "host") for layer in LAYERS), *(("uneven channels", name) for name in OTHERS)]
"""With every instruction for products of words."""


@pytest.mark.parametrize(("layer", "name"), CASES)
def test_sums_are_exact(layer: str, name: str, tmp_path: Path) -> None:
    """Where every element and weight is at an end, or any."""
    if not targets.runs_here(targets.resolve(name)):
        pytest.skip(f"this machine does not run {name}")
    batch, inputs, outputs, space, border, zero = LAYERS[layer]
    numbers = np.random.default_rng(inputs)
    x = numbers.choice([0, 255, 255, 0, 17], (batch, inputs, *space)).astype(np.uint8)
    weights = numbers.choice([-128, 127, -128, 127, 1], (outputs, inputs, 3, 3)).astype(np.int8)
    weights[: outputs // 2] = numbers.integers(-128, 128, weights[: outputs // 2].shape)
    made = summed(x, weights, border, zero, name, tmp_path)
    np.testing.assert_array_equal(made, convolved(x, weights, border, zero))


def test_a_test_of_the_sign_behind_it_sees_the_sum(tmp_path: Path) -> None:
    """LLVM takes products not to wrap, and would see the sign of what is multiplied."""
    x = np.random.default_rng(5).integers(0, 256, (1, 32, 8, 8)).astype(np.uint8)
    weights = np.random.default_rng(6).integers(-128, 128, (32, 32, 3, 3)).astype(np.int8)
    border = (1, 1, 1, 1)
    made = summed(
        x, weights, border, 0, "host", tmp_path, lambda total: tirx.max(total, literal(0, "int32"))
    )
    assert 0.2 < (made > 0).mean() < 0.8
    np.testing.assert_array_equal(made, np.maximum(convolved(x, weights, border, 0), 0))


LARGEST = (1 << 25) // 255
"""What the weights of a sum may add up to."""


def nearly_too_large(sign: int, more: int) -> np.ndarray:
    """Weights of 128 channels that add up to `LARGEST` and so many more."""
    weights = np.full((1, 128, 3, 3), sign * (LARGEST // (128 * 9)), np.int8)
    weights.reshape(-1)[: LARGEST % (128 * 9) + more] += sign
    assert abs(weights.sum(dtype=int)) == LARGEST + more
    return weights


@pytest.mark.parametrize("sign", [-1, 1])
def test_the_largest_sums_are_exact(sign: int, tmp_path: Path) -> None:
    x = np.full((1, 128, 5, 6), 255, np.uint8)
    weights = nearly_too_large(sign, 0)
    made = summed(x, weights, (1, 1, 1, 1), 255, "host", tmp_path)
    np.testing.assert_array_equal(made, np.full_like(made, sign * 255 * LARGEST))


def pays(
    weights: np.ndarray, size: int, dots: str = "words", stride: int = 1, lanes: int = 16
) -> bool:
    """Whether a convolution of a square image is taken."""
    blocks = -(-weights.shape[1] // lanes)
    image = relax.Var("x", relax.TensorType((1, blocks, size, size, lanes), "uint8"))
    w = Window((3, 3), (stride, stride), (1, 1), (1, 1), (1, 1), (size // stride,) * 2)
    return integer_winograd.pays(Context(relax.BlockBuilder(), 16, dots=dots), image, weights, w)


def test_where_it_is_taken() -> None:
    weights = np.ones((64, 64, 3, 3), np.int8)
    assert pays(weights, 56)
    assert not pays(weights, 56, dots="unsigned")
    assert not pays(weights, 56, stride=2)
    assert not pays(np.ones((64, 4, 3, 3), np.int8), 56, lanes=4)
    assert not pays(weights, 16), "too few products are saved for the weights"
    assert not pays(np.ones((64, 16, 3, 3), np.int8), 56), "transforms do"
    assert not pays(np.ones((256, 256, 3, 3), np.int8), 56), "weights are too large"
    for sign in (-1, 1):
        assert pays(nearly_too_large(sign, 0).repeat(64, axis=0), 56)
        assert not pays(nearly_too_large(sign, 1).repeat(64, axis=0), 56)


def test_targets_with_products_of_words() -> None:
    names = {
        "x86-64-v2": "unsigned",
        "x86-64-v3": "words",
        "x86-64-v3+avxvnni": "unsigned",
        "x86-64-v4": "words",
        "x86-64-v4+avx512vnni": "words",
    }
    assert {name: targets.resolve(name).dots for name in names} == names


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_whole_layer(threads: int, session_cache: Path) -> None:
    """With its end behind it, against the contract."""
    layer = {
        "channels": 64,
        "outputs": 48,
        "groups": 1,
        "size": 31,
        "kernel": 3,
        "stride": 1,
        "pad": 1,
        "x": Scaled(0.0625, 127, "int8"),
        "y": Scaled(50.0, 3, "int8"),
        "scales": 0.25,
        "per_channel": True,
        "bias": True,
        "activation": "Relu",
        "seed": 5,
        "threads": threads,
    }
    assert pays(np.full((48, 64, 3, 3), -128, np.int8), layer["size"])
    test_contract.check(layer, "host", session_cache)
