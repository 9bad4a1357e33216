"""Convolutions by weights of few bits: every form, every instruction set, what is stored, how."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from packed_models import Packed

from edgec import targets
from edgec.compiler import Options, compile_model
from edgec.graph import load
from edgec.lower.extract import Lowered
from edgec.lower.lowering import lower_graph
from edgec.passes import LEVELS
from edgec.rewrite import optimize
from edgec.targets.cpu import schedule

from .many_nodes import EXTREMES

TARGETS = [targets.resolve(name) for name in ("x86-64-v2", "x86-64-v4", "aarch64")]
FORMS = (
    # kind, channels in and out, kernel, size, axis, block, zero, stride
    ("int4", 64, 80, 1, 7, 0, 0, "none", 1),
    ("uint4", 32, 48, 3, 9, 0, 0, "each", 2),
    ("int4", 64, 96, 1, 10, 1, 32, "none", 1),
    ("uint4", 64, 32, 3, 10, 1, 16, "each", 1),
    ("int2", 48, 32, 3, 6, 1, 48, "none", 2),
    ("int8", 32, 40, 3, 9, -1, 0, "same", 1),
    ("float16", 64, 72, 1, 10, 0, 0, "none", 1),
    ("bfloat16", 64, 40, 3, 7, 0, 0, "none", 2),
)


def convolution(made: Packed, form: tuple[Any, ...], tail: bool = True) -> None:
    """Of an input of its own; with bias and a tail, which another convolution reads."""
    kind, channels, out, kernel, size, axis, block, zero, stride = form
    weight = made.weight(kind, (out, channels, kernel, kernel), axis, block, zero)
    bias = made.constant(made.random.standard_normal(out).astype(np.float32))
    inputs = [made.input((1, channels, size, size)), weight, *([bias] if tail else [])]
    border = kernel // 2
    y = made.node("Conv", inputs, pads=[border] * 4, strides=[stride] * 2)
    side = (size + 2 * border - kernel) // stride + 1
    made.output(made.node("Relu", [y]) if tail else y, (1, out, side, side))


def model_of(*forms: tuple[Any, ...], tail: bool = True) -> onnx.ModelProto:
    made = Packed()
    for form in forms:
        convolution(made, form, tail)
    return made.model()


def lowered(model: onnx.ModelProto, target: targets.Target) -> Lowered:
    """The model's program, after the passes."""
    graph = load(model)
    optimize(graph, LEVELS[2])
    return lower_graph(graph, "m", [], target)


def test_agrees_with_onnx_runtime(tmp_path: Path) -> None:
    result = compile_model(model_of(*FORMS), tmp_path / "m.edgec", Options(targets=EXTREMES))
    verified = [variant["verified"] for variant in result.manifest["variants"]]
    assert verified == ["device"] * len(EXTREMES)


@pytest.mark.parametrize(
    ("form", "nbytes"),
    [
        (("int4", 64, 96, 3, 8, 0, 0, "none", 1), 64 * 96 * 9 // 2 + 4 * 96),
        (("int2", 64, 96, 1, 8, 1, 32, "none", 1), 64 * 96 // 4 + 4 * 2 * 96),
        (("uint8", 64, 96, 1, 8, 0, 0, "each", 1), 64 * 96 + 5 * 96),
        (("bfloat16", 64, 96, 3, 8, 0, 0, "none", 1), 64 * 96 * 9 * 2),
    ],
)
def test_weights_take_the_bits_they_have(form: tuple[Any, ...], nbytes: int) -> None:
    weights = lowered(model_of(form, tail=False), TARGETS[0]).program.weights
    assert sum(weight.nbytes for weight in weights) == nbytes


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_each_convolution_is_one_kernel_in_vectors(target: targets.Target) -> None:
    program = lowered(model_of(*FORMS), target)
    packed = {n: f for n, f in program.kernels.items() if "packed" in f.script()}
    assert len(packed) == len(FORMS)
    assert len(program.program.steps) == 3 * len(FORMS)  # an image into blocks, and out of them
    for function in packed.values():
        text = schedule(function, target, strict=True).script()
        assert "_init" in text
        assert "T.vectorized" in text


def test_first_convolutions_and_grouped_ones_are_computed_as_floats() -> None:
    made = Packed()
    convolution(made, ("int8", 3, 256, 3, 8, 0, 0, "none", 1))
    weight = made.weight("int8", (512, 1, 3, 3), 0)
    y = made.node("Conv", [made.input((1, 512, 8, 8)), weight], pads=[1] * 4, group=512)
    made.output(y, (1, 512, 8, 8))
    weights = lowered(made.model(), TARGETS[0]).program.weights
    assert {weight.dtype for weight in weights} == {np.dtype(np.float32)}


def test_scales_of_single_taps_are_multiplied_beforehand() -> None:
    made = Packed()
    weight = made.weight("int8", (32, 48, 3, 3), 3, 1)
    y = made.node("Conv", [made.input((1, 48, 8, 8)), weight])
    made.output(y, (1, 32, 6, 6))
    (stored,) = lowered(made.model(), TARGETS[0]).program.weights
    assert stored.dtype == np.float32
