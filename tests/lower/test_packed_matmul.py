"""Products with matrices of few bits: every form, every instruction set, what is stored, how."""

from __future__ import annotations

import re
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from packed_models import Packed

from edgec import targets
from edgec.compiler import Options, compile_model
from edgec.graph import load
from edgec.lower.extract import Lowered
from edgec.lower.kernels import generate, lower
from edgec.lower.lowering import lower_graph
from edgec.lower.packed_matmul import _run
from edgec.lower.packed_weight import Codes, Stored, centred, codes_of, spread
from edgec.passes import LEVELS
from edgec.rewrite import optimize
from edgec.targets.cpu import schedule

from .many_nodes import EXTREMES

TARGETS = [targets.resolve(name) for name in ("x86-64-v2", "x86-64-v3", "x86-64-v4", "aarch64")]
NARROW = ("int2", "uint2", "int4", "uint4", "int8", "uint8")
FORMS = (
    # kind, rows, inner, columns, axis, block, zero
    ("int4", 1, 256, 96, 0, 32, "none"),
    ("uint4", 1, 128, 64, 0, 16, "each"),
    ("uint4", 17, 96, 80, 0, 32, "same"),
    ("int2", 5, 300, 104, 1, 0, "none"),
    ("uint2", 2, 64, 80, 0, 64, "each"),
    ("int8", 29, 256, 48, 1, 0, "none"),
    ("uint8", 3, 160, 40, 0, 32, "each"),
    ("int4", 4, 67, 65, 1, 0, "each"),  # an odd sum: one code to an element
    ("int4", 3, 100, 64, 0, 32, "none"),  # a last block of 4
    ("int8", 2, 80, 64, -1, 0, "same"),
    ("float16", 1, 129, 64, 0, 0, "none"),
    ("float16", 19, 96, 100, 0, 0, "none"),
    ("bfloat16", 9, 96, 64, 0, 0, "none"),
    ("bfloat16", 1, 129, 64, 0, 0, "none"),
)


def products() -> onnx.ModelProto:
    """Each of `FORMS`, with a tail; the last ones transposed, by Gemm, and with a batch."""
    made = Packed()
    for kind, rows, inner, columns, axis, block, zero in FORMS:
        weight = made.weight(kind, (inner, columns), axis, block, zero)
        product = made.node("MatMul", [made.input((rows, inner)), weight])
        bias = made.constant(made.random.standard_normal(columns).astype(np.float32))
        made.output(made.node("Relu", [made.node("Add", [product, bias])]), (rows, columns))
    weight = made.node("Transpose", [made.weight("int4", (80, 64), 1, 32, "each")], perm=[1, 0])
    made.output(made.node("MatMul", [made.input((3, 2, 64)), weight]), (3, 2, 80))
    weight = made.weight("uint4", (72, 64), 0, 0, "each")
    bias = made.constant(made.random.standard_normal((7, 72)).astype(np.float32))
    gemm = made.node("Gemm", [made.input((64, 7)), weight, bias], transA=1, transB=1, alpha=0.5)
    made.output(gemm, (7, 72))
    made.output(made.node("MatMul", [made.input((96,)), made.weight("int4", (96, 64))]), (64,))
    return made.model()


def lowered(model: onnx.ModelProto, target: targets.Target) -> Lowered:
    """The model's program, after the passes."""
    graph = load(model)
    optimize(graph, LEVELS[2])
    return lower_graph(graph, "m", [], target)


def product_of(kind: str, rows: int, inner: int, columns: int, *form: int | str) -> Packed:
    """One product by a weight of that form."""
    made = Packed()
    weight = made.weight(kind, (inner, columns), *form)
    made.output(made.node("MatMul", [made.input((rows, inner)), weight]), (rows, columns))
    return made


def test_agrees_with_onnx_runtime(tmp_path: Path) -> None:
    result = compile_model(products(), tmp_path / "m.edgec", Options(targets=EXTREMES))
    verified = [variant["verified"] for variant in result.manifest["variants"]]
    assert verified == ["device"] * len(EXTREMES)


@pytest.mark.parametrize(
    ("kind", "block", "zero", "nbytes"),
    [
        ("int4", 32, "none", 80 * 32 + 2 * 80 * 4),
        ("uint4", 16, "each", 80 * 32 + 4 * 80 * 5),
        ("uint4", 32, "same", 80 * 32 + 2 * 80 * 4),
        ("int2", 0, "none", 80 * 16 + 80 * 4),
        ("uint8", 0, "each", 80 * 64 + 80 * 5),
    ],
)
def test_weights_take_the_bits_they_have(kind: str, block: int, zero: str, nbytes: int) -> None:
    made = product_of(kind, 1, 64, 80, 0 if block else 1, block, zero).model()
    weights = lowered(made, TARGETS[0]).program.weights
    assert sum(weight.nbytes for weight in weights) == nbytes


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_half_precision_is_stored_as_it_is(kind: str) -> None:
    (weight,) = lowered(product_of(kind, 1, 65, 64).model(), TARGETS[0]).program.weights
    assert weight.nbytes == 2 * 65 * 64


def test_models_in_half_precision_keep_their_weights() -> None:
    value = numpy_helper.from_array(np.ones((96, 64), np.float16), "w")
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]> '
        "g (float16[2, 96] x) => (float16[2, 64] y) { y = MatMul(x, w) }"
    )
    model.graph.initializer.append(value)
    (weight,) = lowered(model, TARGETS[0]).program.weights
    assert weight.nbytes == 2 * 96 * 64


def test_codes_in_wider_types_are_stored_in_their_own_bits() -> None:
    """As models of an opset without int4 have them."""
    made = Packed()
    codes = made.random.integers(-8, 8, (64, 80)).astype(np.int8)
    weight = made.node("DequantizeLinear", [made.constant(codes), made.constant(np.float32(0.1))])
    made.output(made.node("MatMul", [made.input((1, 64)), weight]), (1, 80))
    weights = lowered(made.model(), TARGETS[0]).program.weights
    assert sum(weight.nbytes for weight in weights) == 32 * 80 + 4 * 80


@pytest.mark.parametrize("axis", [0, 1])
def test_scales_that_change_with_every_term_are_multiplied_beforehand(axis: int) -> None:
    made = product_of("int8", 2, 64, 80, 0, 0) if axis == 0 else product_of("int8", 2, 64, 80, 1, 8)
    (weight,) = lowered(made.model(), TARGETS[0]).program.weights
    assert weight.dtype == np.float32


def test_weights_that_are_not_finite_are_widened_beforehand() -> None:
    made = Packed()
    values = np.full((64, 80), np.inf, np.float16)
    weight = made.node("Cast", [made.constant(values)], to=1)
    made.output(made.node("MatMul", [made.input((2, 64)), weight]), (2, 80))
    (stored,) = lowered(made.model(), TARGETS[0]).program.weights
    assert stored.dtype == np.float32


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_each_product_is_one_kernel_in_vectors(target: targets.Target) -> None:
    program = lowered(products(), target)
    assert len(program.program.steps) == len(FORMS) + 4  # one transposes its input
    for function in program.kernels.values():
        if "packed_part" in function.script():
            assert "packed_part_init" in schedule(function, target, strict=True).script()


@pytest.mark.parametrize(("kind", "widens"), [("int4", "vcvtdq2ps"), ("float16", "vcvtph2ps")])
def test_numbers_are_made_in_registers(kind: str, widens: str) -> None:
    """Whole vectors at a time, each for all rows of a tile."""
    target = targets.resolve("x86-64-v4")
    form = (0, 32) if kind == "int4" else ()
    kernels = lowered(product_of(kind, 8, 256, 96, *form).model(), target).kernels
    (function,) = kernels.values()
    module = lower(schedule(function, target, strict=True), "kernel", target, None)
    text = generate(module, target).inspect_source("asm")
    products = re.findall(r"vfmadd\w+\s.*zmm", text)
    made = re.findall(rf"{widens}\s.*zmm", text)
    assert 0 < 8 * len(made) <= len(products)
    assert not re.search(r"vpinsrd|vpextrd|vinsertps", text)


@given(
    kind=st.sampled_from(NARROW),
    each=st.sampled_from([1, 2, 4, 8, 3]),
    data=st.data(),
)
@settings(max_examples=200, deadline=None)
def test_codes_are_found_again(kind: str, each: int, data: st.DataObject) -> None:
    """By the shifts that kernels use, in numpy."""
    limits = ml_dtypes.iinfo(getattr(ml_dtypes, kind, np.dtype(kind)))
    low, high = int(limits.min), int(limits.max)
    drawn = data.draw(st.lists(st.integers(low, high), min_size=2 * each, max_size=2 * each))
    numbers = np.array(drawn).astype("int8" if low else "uint8").reshape(each, 2)
    codes = codes_of(numbers, each)
    assert codes is not None
    elements = codes.pack(numbers, 0).astype(np.int64)
    assert elements.shape == (each // codes.each, 2)
    for k in range(each):
        code = elements[k // codes.each] >> (k % codes.each * codes.bits) & (1 << codes.bits) - 1
        if codes.kind == "int":
            code = (code ^ 1 << codes.bits - 1) - (1 << codes.bits - 1)
        np.testing.assert_array_equal(code, numbers[k])


def test_the_narrowest_codes_are_taken() -> None:
    def found(*numbers: int, run: int = 8) -> Codes | None:
        return codes_of(np.array(numbers, np.int16), run)

    assert found(-2, 1) == Codes("int", 2, 8)
    assert found(0, 3) == Codes("uint", 2, 8)
    assert found(-3, 1) == Codes("int", 4, 8)
    assert found(0, 15, run=12) == Codes("uint", 4, 4)
    assert found(0, 15, run=7) == Codes("int", 8, 1)
    assert found(0, 200, run=7) == Codes("uint", 8, 1)
    assert found(-1, 128) is None


@given(zero=st.integers(-8, 7), low=st.integers(-8, 7), block=st.sampled_from([1, 4]))
def test_zero_points_are_taken_off_where_that_needs_no_more_bits(
    zero: int, low: int, block: int
) -> None:
    codes = np.arange(low, 8, dtype=np.int8)[:, None].repeat(4, 1)
    codes = np.concatenate([codes, codes])[: 2 * block]
    zeros = np.full((2, 4), zero, np.int8)
    stored = Stored(codes, np.ones((2, 4), np.float32), zeros, (block, 1))
    numbers, left = centred(stored)
    taken = spread(left, (block, 1), codes.shape) if left is not None else 0
    np.testing.assert_array_equal(numbers.astype(int) - taken, codes.astype(int) - zero)
    moved = codes.astype(int) - zero
    if moved.min() >= -8 and moved.max() < 8 and codes.min() < -2:
        assert left is None


@given(inner=st.integers(1, 5000), group=st.integers(1, 256))
def test_runs_divide_their_groups(inner: int, group: int) -> None:
    run = _run(inner, min(group, inner))
    assert inner % run == 0
    assert min(group, inner) % run == 0


def test_a_batch_of_weights_is_multiplied_as_floats(tmp_path: Path) -> None:
    made = Packed()
    codes = made.random.integers(-8, 8, (2, 48, 64)).astype(ml_dtypes.int4)
    weight = made.node("DequantizeLinear", [made.constant(codes), made.constant(np.float32(0.1))])
    made.output(made.node("MatMul", [made.input((2, 3, 48)), weight]), (2, 3, 64))
    result = compile_model(made.model(), tmp_path / "m.edgec")
    assert result.manifest["variants"][0]["verified"] == "device"
    assert helper.np_dtype_to_tensor_dtype(codes.dtype) == onnx.TensorProto.INT4
