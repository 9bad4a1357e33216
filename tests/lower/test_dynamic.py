"""Dynamic quantization: integer kernels, exact sums, and what is held against what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import oracle
import pytest
from onnx import TensorProto, helper
from packed_models import Packed

from edgec.compare import MOST_TOLERANCES, Moved, compare
from edgec.compiler import Options, compile_model
from edgec.emit.golden import tolerances
from edgec.errors import VerifyError
from edgec.flips import NUDGES, find_flips, nudged
from edgec.graph import load
from edgec.lower import dynamic
from edgec.lower.context import literal
from edgec.lower.lowering import lower_graph
from edgec.program import Tensor
from edgec.targets import host

from .many_nodes import EXTREMES
from .running import run_model


def quantized(made: Packed, x: str) -> list[str]:
    """Codes, scale and zero point of a new DynamicQuantizeLinear."""
    outputs = [f"q{len(made.nodes)}_{i}" for i in range(3)]
    made.nodes.append(helper.make_node("DynamicQuantizeLinear", [x], outputs))
    return outputs


def scaled(made: Packed, sums: str, scale: str, factor: float) -> str:
    """int32 sums as float32, as ONNX Runtime's tools write it."""
    whole = made.node("Mul", [scale, made.constant(np.float32(factor))])
    return made.node("Mul", [made.node("Cast", [sums], to=TensorProto.FLOAT), whole])


def product(
    made: Packed, x: str, shape: tuple[int, ...], dtype: str = "int8", zero: Any = None
) -> str:
    """Of `x`, quantized, by weights of `shape` and type, with their zero point, if any."""
    codes, scale, origin = quantized(made, x)
    weights = made.random.integers(-100, 101, shape) + (128 if dtype == "uint8" else 0)
    inputs = [codes, made.constant(weights.astype(dtype)), origin]
    inputs += [] if zero is None else [made.constant(np.asarray(zero, dtype))]
    return scaled(made, made.node("MatMulInteger", inputs), scale, 0.1 / shape[0])


def convolution(
    made: Packed, x: str, shape: tuple[int, ...], groups: int = 1, stride: int = 1
) -> str:
    codes, scale, origin = quantized(made, x)
    weights = made.constant(made.random.integers(-128, 128, shape).astype(np.int8))
    attrs = {"pads": [1] * 4, "group": groups, "strides": [stride] * 2}
    return scaled(made, made.node("ConvInteger", [codes, weights, origin], **attrs), scale, 0.01)


def model_of_all() -> onnx.ModelProto:
    made = Packed()
    made.output(product(made, made.input((1, 256)), (256, 96)), (1, 96))
    made.output(product(made, made.input((17, 67)), (67, 40), "uint8", 128), (17, 40))
    zeros = np.arange(64) % 3
    made.output(product(made, made.input((2, 3, 64)), (64, 64), "int8", zeros), (2, 3, 64))
    made.output(convolution(made, made.input((1, 16, 9, 9)), (32, 16, 3, 3)), (1, 32, 9, 9))
    made.output(convolution(made, made.input((1, 3, 11, 11)), (24, 3, 3, 3), 1, 2), (1, 24, 6, 6))
    made.output(convolution(made, made.input((1, 32, 8, 8)), (32, 1, 3, 3), 32), (1, 32, 8, 8))
    return made.model()


def test_agrees_with_onnx_runtime(tmp_path: Path) -> None:
    result = compile_model(model_of_all(), tmp_path / "m.edgec", Options(targets=EXTREMES))
    verified = [variant["verified"] for variant in result.manifest["variants"]]
    assert verified == ["device"] * len(EXTREMES)


@pytest.mark.parametrize("least", [-3.0, 0.0, 2.0])
@pytest.mark.parametrize("spread", [0.0, 5.0])
def test_codes_scale_and_zero_point_are_those_of_onnx_runtime(least: float, spread: float) -> None:
    """Of numbers of one sign, too, and of equal ones."""
    made = Packed()
    names = quantized(made, made.input((5, 33)))
    model = made.model()
    for name, dtype, shape in zip(names, (2, 1, 2), ((5, 33), (), ()), strict=True):
        model.graph.output.append(helper.make_tensor_value_info(name, dtype, shape))
    x = (least + spread * made.random.random((5, 33))).astype(np.float32)
    for expected, actual in zip(oracle.run(model, {"x0": x}), run_model(model, x), strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_products_and_convolutions_are_sums_of_bytes() -> None:
    lowered = lower_graph(load(model_of_all()), "m", [], host())
    products = [f for f in lowered.kernels.values() if "edgec.dot4" in f.script()]
    assert len(products) == 6
    weights = [w for w in lowered.program.weights if w.nbytes > 4 * 96]
    assert sum(w.nbytes for w in weights) < 1.3 * (
        256 * 96 + 68 * 40 + 64 * 64 + 9 * 32 * 16 + 9 * 32 * 4 + 12 * 32
    )


@pytest.mark.parametrize("zero", [-128, 5])
def test_activations_with_a_sign(zero: int) -> None:
    made = Packed()
    x = helper.make_tensor_value_info("x", TensorProto.INT8, (3, 64))
    weights = made.constant(made.random.integers(-128, 128, (64, 32)).astype(np.int8))
    made.node("MatMulInteger", ["x", weights, made.constant(np.int8(zero))])
    model = made.model()
    model.graph.input.append(x)
    model.graph.output.append(helper.make_tensor_value_info("t0", TensorProto.INT32, (3, 32)))
    data = made.random.integers(-128, 128, (3, 64)).astype(np.int8)
    np.testing.assert_array_equal(run_model(model, data)[0], oracle.run(model, {"x": data})[0])


def test_weights_beyond_int8_keep_their_zero_point(tmp_path: Path) -> None:
    """-100 - 100 is no int8: the bytes are multiplied as they are, as of a computed factor."""
    made = Packed()
    made.output(product(made, made.input((2, 64)), (64, 32), "int8", 100), (2, 32))
    lowered = lower_graph(load(made.model()), "m", [], host())
    assert any("edgec.dot4" in function.script() for function in lowered.kernels.values())
    result = compile_model(made.model(), tmp_path / "m.edgec")
    assert [variant["verified"] for variant in result.manifest["variants"]] == ["device"]


def test_flips_begin_where_computed_numbers_are_quantized() -> None:
    made = Packed()
    first = product(made, made.input((1, 64)), (64, 64))
    made.output(first, (1, 64))
    made.output(made.node("Neg", [product(made, first, (64, 32))]), (1, 32))
    model = made.model()
    names = [output.name for output in model.graph.output]
    assert find_flips(model) == {names[1]}


def test_sums_of_floats_flip_what_is_quantized_next_but_exact_numbers_do_not() -> None:
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17]>
        g (float[1,4] x, float[4,4] w, float s, uint8 z, int8[4,4] v)
            => (float[1,4] given, float[1,4] summed, float[1,4] whole, float[1,4] plain) {
            q = QuantizeLinear(x, s, z)
            given = DequantizeLinear(q, s, z)
            plain = MatMul(given, w)
            relu = Relu(plain)
            p = QuantizeLinear(relu, s, z)
            summed = DequantizeLinear(p, s, z)
            n = MatMulInteger(q, v, z)
            f = Cast<to=1>(n)
            m = Mul(f, s)
            o = QuantizeLinear(m, s, z)
            whole = DequantizeLinear(o, s, z)
        }""")
    assert find_flips(model) == {"summed"}


def test_golden_data_allow_what_a_flip_moves() -> None:
    tensors = [Tensor(name, "float32", (4,)) for name in ("plain", "flipped")]
    expected = {tensor.name: np.ones(4, np.float32) for tensor in tensors}
    plain, flipped = tolerances(tensors, expected, {"flipped": 0.1})
    assert plain.atol < 1e-3
    assert flipped.atol == pytest.approx(0.1)


def two_products() -> onnx.ModelProto:
    """The second quantizes what the first computes."""
    made = Packed()
    first = made.node("Tanh", [product(made, made.input((24, 256)), (256, 128))])
    made.output(product(made, first, (128, 96)), (24, 96))
    return made.model()


def test_a_nudge_moves_no_code_by_more_than_one(tmp_path: Path) -> None:
    model = two_products()
    (codes,) = (n.output[0] for n in model.graph.node[1:] if n.op_type == "DynamicQuantizeLinear")
    model.graph.output.append(helper.make_tensor_value_info(codes, TensorProto.UINT8, (24, 128)))
    x = {"x0": np.random.default_rng(1).standard_normal((24, 256)).astype(np.float32)}
    plain, those = oracle.run(model, x)
    moved, others = oracle.run(nudged(model), {**x, **NUDGES[0]})
    flips = np.abs(those.astype(int) - others)
    assert flips.max() == 1
    assert 0 < flips.mean() < 0.1
    report = compare({"y": plain}, {"y": moved})[0]
    assert report.error > MOST_TOLERANCES
    assert compare({"y": plain}, {"y": moved}, moved={"y": [Moved(moved, 1.0)]})[0].ok


def plant(monkeypatch: pytest.MonkeyPatch, bug: str) -> None:
    """Break what takes zero points off, in this process, where kernels are written."""
    right = dynamic._without_zero

    def wrong(ctx: Any, sums: Any, zero: Any, weights: np.ndarray) -> Any:
        if weights.size != 96:
            return right(ctx, sums, zero, weights)
        if bug == "zero point":
            zero = ctx.map("bug", lambda z: z + literal(1, "int32"), zero)
        elif bug == "one column":
            weights = np.where(np.arange(96) == 7, 0, weights).astype(np.int32)
        made = right(ctx, sums, zero, weights)
        if bug != "scale":
            return made
        return ctx.map("bug", lambda v: v + v // literal(32, "int32"), made)

    monkeypatch.setattr(dynamic, "_without_zero", wrong)


@pytest.mark.parametrize("bug", ["", "zero point", "one column", "scale"])
def test_a_wrong_kernel_behind_a_flip_is_found(
    bug: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plant(monkeypatch, bug)
    model = two_products()
    assert find_flips(model) == {model.graph.output[0].name}
    if not bug:
        compile_model(model, tmp_path / "m.edgec", reuse=False)
        return
    with pytest.raises(VerifyError, match="of the largest"):
        compile_model(model, tmp_path / "m.edgec", reuse=False)


def test_behind_a_flip_errors_are_bounded_in_size_and_in_number() -> None:
    wanted = np.ones((4, 8), np.float32)
    once = wanted.copy()
    once[1, 2] += np.float32(0.02)
    moved = {"y": [Moved(once, 2.0)]}
    for error, places, right in ((0.039, 1, True), (0.041, 1, False), (0.02, 4, True),
                                 (0.021, 4, False)):  # fmt: skip
        off = wanted.copy()
        off.flat[:places] -= np.float32(error)
        assert compare({"y": wanted}, {"y": off}, moved=moved)[0].ok is right, error
    assert not compare({"y": wanted}, {"y": wanted * np.nan}, moved=moved)[0].ok
    far = {"y": [Moved(wanted * 3, 2.0)]}
    assert not compare({"y": wanted}, {"y": wanted * np.float32(1.6)}, moved=far)[0].ok
