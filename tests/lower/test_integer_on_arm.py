"""Integer kernels for Arm under QEMU against integer arithmetic of numpy's, to the bit."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tvm import relax

from edgec import targets
from edgec.lower import integer_conv, integer_matmul
from edgec.lower.context import Context, literal
from edgec.lower.elementwise import maximum, minimum
from edgec.lower.requantize import requantized
from edgec.lower.window import Window

from .integer_emulated import emulated
from .test_integer_kernels import (
    ENDS,
    LAYERS,
    NARROW,
    ZERO,
    blocked,
    convolved,
    image_sizes,
    narrow_sums,
)

CPUS = {
    "rpi4": ("cortex-a72",),
    "rpi5": ("cortex-a76", "max"),
    "armv7": ("cortex-a9",),
    "jetson-orin-nano": ("cortex-a76",),
    "jetson-xavier": ("max",),
}
"""Of each way to multiply bytes a target, and what QEMU runs it on."""

CASES = [(name, -127) for name in CPUS] + [("rpi4", -128), ("armv7", -128)]
"""Targets, and the least weight: twice -128 times -128 does not fit into 16 bits."""


@pytest.fixture(autouse=True)
def qemu() -> None:
    if not all(map(shutil.which, ("qemu-aarch64", "qemu-arm"))):
        pytest.skip("QEMU's user mode is not installed")


@pytest.mark.parametrize("layer", LAYERS, ids=range(len(LAYERS)))
@pytest.mark.parametrize(("name", "least"), CASES)
def test_convolutions(
    name: str, layer: tuple[int, int, int, Window], least: int, tmp_path: Path
) -> None:
    inputs, outputs, groups, w = layer
    target, numbers = targets.resolve(name), np.random.default_rng(inputs)
    x = numbers.choice([0, 1, 127, 128, 254, 255], (1, inputs, *image_sizes(w))).astype(np.uint8)
    weights = numbers.choice([least, 127, -1, 0, 3, 50], (outputs, inputs // groups, *w.kernel))
    weights = weights.astype(np.int8)
    given = blocked(x, 4 if inputs < 4 else target.channel_block)
    exact = convolved(x, integer_conv.ungrouped(weights, groups), w)
    for made in emulated(
        lambda ctx, image: integer_conv.sums(ctx, image, ZERO, weights, w, groups),
        [given],
        target,
        tmp_path,
        CPUS[name],
    ):
        image = np.moveaxis(made, -1, 2).reshape(1, -1, *w.sizes)[:, :outputs]
        np.testing.assert_array_equal(image, exact)


@pytest.mark.parametrize("shape", [(1, 64, 96), (9, 30, 64), (17, 40, 10), (3, 4, 64, 37)], ids=str)
@pytest.mark.parametrize(("name", "least"), CASES)
def test_products(name: str, shape: tuple[int, ...], least: int, tmp_path: Path) -> None:
    *rows, inner, columns = shape
    target, numbers = targets.resolve(name), np.random.default_rng(inner)
    a = numbers.choice([0, 1, 127, 128, 254, 255], (*rows, inner)).astype(np.uint8)
    weights = numbers.choice([least, 127, -1, 0, 3, 50], (inner, columns)).astype(np.int8)
    exact = (a.astype(np.int64) - ZERO) @ weights.astype(np.int64)
    for made in emulated(
        lambda ctx, left: integer_matmul.sums(ctx, left, ZERO, weights),
        [a],
        target,
        tmp_path,
        CPUS[name],
    ):
        np.testing.assert_array_equal(made, exact)


@pytest.mark.parametrize("name", ["rpi4", "rpi5", "armv7"])
def test_narrow_images(name: str, tmp_path: Path) -> None:
    inputs, outputs, w = NARROW[0]
    x = np.random.default_rng(inputs).integers(0, 256, (1, inputs, 13, 10)).astype(np.uint8)
    weights = np.random.default_rng(outputs).integers(-127, 128, (outputs, inputs, *w.kernel))
    weights = weights.astype(np.int8)
    (made,) = emulated(
        lambda ctx, image: narrow_sums(ctx, image, weights, w),
        [x],
        targets.resolve(name),
        tmp_path,
        CPUS[name][:1],
    )
    made = np.moveaxis(made, -1, 2).reshape(1, -1, *w.sizes)[:, :outputs]
    np.testing.assert_array_equal(made, convolved(x, weights, w))


@pytest.mark.parametrize("name", ["rpi4", "armv7"])
@pytest.mark.parametrize("end", ENDS)
def test_ends(end: str, name: str, tmp_path: Path) -> None:
    """Ties, numbers beyond int16 and int32, and infinities."""
    zero, low, high, clip, dtype = ENDS[end]
    ties = np.arange(-300, 300, 0.5)
    far = [3e4, 4e4, 7e4, 3e9, np.inf, 254.5, 255.5]
    x = np.array([*ties, *far, *(-f for f in far), 0, 0], np.float32).reshape(-1, 16)

    def quantized(ctx: Context, values: relax.Expr) -> relax.Expr:
        def element(v: Any) -> Any:
            if clip is not None:
                v = minimum(maximum(v, literal(clip[0], "float32")), literal(clip[1], "float32"))
            return requantized(v, zero, low, high, dtype)

        return ctx.map("quantize", element, values)

    (made,) = emulated(quantized, [x], targets.resolve(name), tmp_path, CPUS[name][:1])
    inside = x if clip is None else np.minimum(np.maximum(x, clip[0]), clip[1])
    exact = np.clip(np.rint(inside.astype(np.float64)) + zero, low, high)
    assert made.dtype == dtype
    np.testing.assert_array_equal(made, exact)
