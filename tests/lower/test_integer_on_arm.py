"""Integer kernels for Arm under QEMU against integer arithmetic of numpy's, to the bit."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
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
from edgec.targets import Target

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

SHAPES = ((1, 64, 96), (9, 30, 64), (17, 40, 10), (3, 4, 64, 37))
"""Of products: rows, terms and columns."""


@dataclass(frozen=True)
class Case:
    """`build(ctx, *inputs)`, and what is exact of `seen`, a view of what the kernels write."""

    build: Callable[..., relax.Expr]
    inputs: Sequence[np.ndarray]
    exact: np.ndarray
    seen: Callable[[np.ndarray], np.ndarray] = lambda made: made


Emulation = Callable[[str, int], dict[Hashable, tuple[Case, list[np.ndarray]]]]


def plain(w: Window, channels: int) -> Callable[[np.ndarray], np.ndarray]:
    """An image in blocks as [1, C, H, W]."""
    return lambda made: np.moveaxis(made, -1, 2).reshape(1, -1, *w.sizes)[:, :channels]


def convolution(layer: tuple[int, int, int, Window], least: int, target: Target) -> Case:
    inputs, outputs, groups, w = layer
    numbers = np.random.default_rng(inputs)
    x = numbers.choice([0, 1, 127, 128, 254, 255], (1, inputs, *image_sizes(w))).astype(np.uint8)
    weights = numbers.choice([least, 127, -1, 0, 3, 50], (outputs, inputs // groups, *w.kernel))
    weights = weights.astype(np.int8)
    return Case(
        lambda ctx, image: integer_conv.sums(ctx, image, ZERO, weights, w, groups),
        [blocked(x, 4 if inputs < 4 else target.channel_block)],
        convolved(x, integer_conv.ungrouped(weights, groups), w),
        plain(w, outputs),
    )


def product(shape: tuple[int, ...], least: int) -> Case:
    *rows, inner, columns = shape
    numbers = np.random.default_rng(inner)
    a = numbers.choice([0, 1, 127, 128, 254, 255], (*rows, inner)).astype(np.uint8)
    weights = numbers.choice([least, 127, -1, 0, 3, 50], (inner, columns)).astype(np.int8)
    return Case(
        lambda ctx, left: integer_matmul.sums(ctx, left, ZERO, weights),
        [a],
        (a.astype(np.int64) - ZERO) @ weights.astype(np.int64),
    )


def narrow() -> Case:
    inputs, outputs, w = NARROW[0]
    x = np.random.default_rng(inputs).integers(0, 256, (1, inputs, 13, 10)).astype(np.uint8)
    weights = np.random.default_rng(outputs).integers(-127, 128, (outputs, inputs, *w.kernel))
    weights = weights.astype(np.int8)
    return Case(
        lambda ctx, image: narrow_sums(ctx, image, weights, w),
        [x],
        convolved(x, weights, w),
        plain(w, outputs),
    )


def end(name: str) -> Case:
    """Ties, numbers beyond int16 and int32, and infinities."""
    zero, low, high, clip, dtype = ENDS[name]
    ties = np.arange(-300, 300, 0.5)
    far = [3e4, 4e4, 7e4, 3e9, np.inf, 254.5, 255.5]
    x = np.array([*ties, *far, *(-f for f in far), 0, 0], np.float32).reshape(-1, 16)

    def quantized(ctx: Context, values: relax.Expr) -> relax.Expr:
        def element(v: Any) -> Any:
            if clip is not None:
                v = minimum(maximum(v, literal(clip[0], "float32")), literal(clip[1], "float32"))
            return requantized(v, zero, low, high, dtype)

        return ctx.map("quantize", element, values)

    inside = x if clip is None else np.minimum(np.maximum(x, clip[0]), clip[1])
    exact = np.clip(np.rint(inside.astype(np.float64)) + zero, low, high)
    return Case(quantized, [x], exact.astype(dtype))


@pytest.fixture(scope="module")
def emulation(tmp_path_factory: pytest.TempPathFactory) -> Emulation:
    """What QEMU made of every case, by target and least weight: all of those in one program."""
    if not all(map(shutil.which, ("qemu-aarch64", "qemu-arm"))):
        pytest.skip("QEMU's user mode is not installed")

    @functools.cache
    def run(name: str, least: int) -> dict[Hashable, tuple[Case, list[np.ndarray]]]:
        target = targets.resolve(name)
        cases: dict[Hashable, Case] = {
            **{("layer", i): convolution(layer, least, target) for i, layer in enumerate(LAYERS)},
            **{("product", shape): product(shape, least) for shape in SHAPES},
            **{("end", each): end(each) for each in ENDS},
            "narrow": narrow(),
        }
        expressions = [(case.build, case.inputs) for case in cases.values()]
        made = emulated(expressions, target, tmp_path_factory.mktemp(name), CPUS[name])
        return dict(zip(cases, zip(cases.values(), made, strict=True), strict=True))

    return run


def check(emulation: Emulation, name: str, least: int, key: Hashable) -> None:
    case, every = emulation(name, least)[key]
    assert len(every) == len(CPUS[name])
    for made in every:
        np.testing.assert_array_equal(case.seen(made), case.exact)


@pytest.mark.parametrize("layer", range(len(LAYERS)))
@pytest.mark.parametrize(("name", "least"), CASES)
def test_convolutions(emulation: Emulation, name: str, layer: int, least: int) -> None:
    check(emulation, name, least, ("layer", layer))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("name", "least"), CASES)
def test_products(emulation: Emulation, name: str, shape: tuple[int, ...], least: int) -> None:
    check(emulation, name, least, ("product", shape))


@pytest.mark.parametrize("name", CPUS)
def test_narrow_images(emulation: Emulation, name: str) -> None:
    check(emulation, name, -127, "narrow")


@pytest.mark.parametrize("name", CPUS)
@pytest.mark.parametrize("each", ENDS)
def test_ends(emulation: Emulation, each: str, name: str) -> None:
    check(emulation, name, -127, ("end", each))
    case, every = emulation(name, -127)["end", each]
    assert every[0].dtype == case.exact.dtype
