"""Models in half precision: what they are held to."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import oracle
import pytest
from onnx import TensorProto, numpy_helper, parser

from edgec.compare import compare
from edgec.compiler import compile_model
from edgec.errors import VerifyError
from edgec.graph import load
from edgec.halves import find_halves, in_float32, rounded
from edgec.options import Options
from edgec.passes import PASSES
from edgec.proof import start_golden
from edgec.rewrite import optimize, parse
from edgec.standard import Standard
from edgec.verify import verify

DIGITS = Path(__file__).parents[1] / "models" / "digits_cnn.onnx"


def model_of(text: str, dtype: type = np.float16, **constants: float) -> onnx.ModelProto:
    """A model with initializers of `dtype`, which has no numbers in ONNX's text."""
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> m {text}')
    model.graph.initializer.extend(
        numpy_helper.from_array(np.array(value).astype(dtype), name)
        for name, value in constants.items()
    )
    return model


HALF = """(float16[1, 9] x) => (float16[1, 9] y, float[1, 9] z) {
    a = Div (x, k)
    f = Cast <to = 1> (a)
    z = Sin (f)
    b = Mul (a, t)
    y = Mul (b, t)
}"""  # fmt: skip


def digits_in_half(options: str = "") -> onnx.ModelProto:
    graph = load(DIGITS)
    optimize(graph, parse(f"fuse-conv-bn,convert-to-float16{options}", PASSES))
    return graph.to_onnx()


def test_halves_are_what_is_computed_in_them() -> None:
    half = TensorProto.FLOAT16
    assert find_halves(model_of(HALF, k=3, t=7)) == dict.fromkeys("xaby", half)
    weights_alone = model_of(
        "(float[2, 2] x) => (float[2, 2] y) { v = Cast <to = 1> (w)  y = Mul (x, v) }", w=2
    )
    assert find_halves(weights_alone) == {}
    inside = model_of("""(bool c, float[2] x) => (float[2] y) {
        y = If (c) <
            then_branch = p () => (float[2] q) { h = Cast <to = 16> (x) q = Cast <to = 1> (h) },
            else_branch = e () => (float[2] r) { r = Abs(x) }
        > }""")
    assert find_halves(inside) == {"h": TensorProto.BFLOAT16}
    bits = model_of("(float16[4] x) => (float16[4] y) { y = Abs(x) }")
    bits.graph.node[0].op_type = "BitCast"
    assert find_halves(bits) == {}


def test_the_wide_model_rounds_nothing_and_the_other_once_an_operator() -> None:
    model = model_of(HALF, k=3, t=7)
    halves = find_halves(model)
    wide = in_float32(model)
    x = (np.arange(9, dtype=np.float16) + np.float16(0.3))[None]
    f = x.astype(np.float32)
    y, z = oracle.run(wide, {"x": f})
    np.testing.assert_allclose(y, f / 3 * 49, rtol=1e-6)
    np.testing.assert_allclose(z, np.sin(f / 3), rtol=1e-5)
    each = (x / np.float16(3)) * np.float16(7) * np.float16(7)
    y, z = oracle.run(rounded(wide, halves), {"x": f})
    np.testing.assert_array_equal(y, each.astype(np.float32))
    np.testing.assert_allclose(z, np.sin((x / np.float16(3)).astype(np.float32)), rtol=1e-5)


@pytest.mark.parametrize("options", ["", "{keep_io=false}"])
def test_a_model_in_float16_is_right(options: str, tmp_path: Path) -> None:
    made = compile_model(digits_in_half(options), tmp_path / "m.edgec")
    assert [variant["verified"] for variant in made.manifest["variants"]] == ["device"]


def test_a_model_in_bfloat16_is_held_to_onnx_runtime() -> None:
    model = model_of(HALF.replace("float16", "bfloat16"), ml_dtypes.bfloat16, k=3, t=7)
    with Standard(model) as standard:
        assert not standard.warning
        x = np.linspace(1, 9, 9).astype(ml_dtypes.bfloat16)[None]
        outputs, _ = standard.run({"x": x})
        assert outputs["y"].dtype == ml_dtypes.bfloat16
        np.testing.assert_allclose(outputs["y"].astype(float), x.astype(float) / 3 * 49, rtol=5e-3)


class Spoilt:
    """What the model says, rounded as it says, each output moved by several of its errors."""

    def __init__(self, model: onnx.ModelProto, times: float) -> None:
        self.model, self.times = model, times

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        with Standard(self.model) as standard:
            meant, _ = standard.run(inputs)
            return {
                name: meant[name] + np.float32(self.times) * (moved.result - meant[name])
                for name, (moved,) in standard.moved(inputs).items()
            }


@pytest.mark.parametrize("times", [1.0, 3.9, 4.2])
def test_four_times_the_error_of_half_precision_is_too_much(times: float) -> None:
    model = digits_in_half()
    if times < 4:
        (report,) = verify(Spoilt(model, times), model).tensors
        assert report.ok
        assert "rounding inside the model moves it" in report.warning
        return
    with pytest.raises(VerifyError, match=r"of the largest, .* would be right"):
        verify(Spoilt(model, times), model)


def test_overflow_is_wrong_and_told() -> None:
    model = model_of("""(float[1, 64] x) => (float[1, 64] y) {
        h = Cast <to = 10> (x)  m = Mul (h, k)  s = Mul (m, k)  f = Cast <to = 1> (s)
        y = Tanh (f) }""", k=6e4)  # fmt: skip
    x = np.linspace(1, 2, 64, dtype=np.float32)[None]
    with Standard(model) as standard:
        meant, _ = standard.run({"x": x})
        (report,) = compare(meant, {"y": meant["y"] * np.nan}, moved=standard.moved({"x": x}))
    assert "NaN or infinite" in report.problem


def test_golden_data_allow_what_half_precision_moves(tmp_path: Path) -> None:
    made = compile_model(
        digits_in_half(), tmp_path / "m.edgec", Options(targets=("host",)), reuse=False
    )
    ((lowered, _),) = made.lowered.values()
    program = lowered.program
    golden = start_golden(digits_in_half(), program.inputs, program.outputs, ()).result()
    (allowed,) = golden.tolerances()
    largest = np.abs(golden.expected["logits"]).max()
    assert 2e-4 * largest < allowed.atol < 2e-2 * largest
