"""Whole models in TF32: what is allowed them, and what they say of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command import Edgec

from edgec import tf32
from edgec.compiler import compile_model
from edgec.errors import VerifyError
from edgec.options import Options
from edgec.program import Tensor
from edgec.proof import start_golden
from edgec.standard import Standard
from edgec.verify import verify

from .conftest import ROOT

DIGITS = ROOT / "models" / "digits_cnn.onnx"
IMAGE = [Tensor("image", "float32", (1, 1, 8, 8))]
PRODUCTS = """<ir_version: 10, opset_import: ["" : 17]>
product (float[1, 4] a, float[4, 3] b, float[1, 3] c, double[1, 4] d)
    => (float[1, 3] y, double[1, 1] z, float[1, 4] same) {
    y = Gemm (a, b, c)
    t = Transpose (d)
    z = MatMul (d, t)
    same = Relu (a)
}"""


def test_the_yardstick_rounds_factors_to_ten_bits() -> None:
    model = onnx.parser.parse_model(PRODUCTS)
    assert tf32.find_factors(model) == {"a", "b"}
    assert tf32.products(model, {"a", "b"}) == {"y"}
    a = np.array([[1 + 2**-10, 1 + 2**-12, -(1 + 3 * 2**-12), 3]], np.float32)
    d = np.full((1, 4), 1 + 2.0**-40)
    given = {"a": a, "b": np.eye(4, 3, dtype=np.float32), "c": np.zeros((1, 3), np.float32), "d": d}
    with Standard(model, tf32=True) as standard:
        outputs, _ = standard.run(given)
        moved = standard.moved(given)
    np.testing.assert_array_equal(outputs["y"], a[:, :3])
    [narrow] = moved["y"]
    np.testing.assert_array_equal(
        narrow.result, np.array([[1 + 2**-10, 1, -(1 + 2**-10)]], np.float32)
    )
    assert moved.keys() == {"y"}


class Narrow:
    """The digits model, each factor rounded to `bits` bits of mantissa."""

    def __init__(self, bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
        model = onnx.load(DIGITS)
        with monkeypatch.context() as patch:
            patch.setattr(tf32, "_SPLIT", 2.0 ** (23 - bits) + 1)
            self.model = tf32.narrowed(model, tf32.find_factors(model))

    def run(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        with Standard(self.model) as engine:
            return engine.run(inputs)[0]


def test_ten_bits_are_allowed_where_they_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """bfloat16's seven are not."""
    module = Narrow(10, monkeypatch)
    assert verify(module, DIGITS, specs=IMAGE, tf32=True).ok
    with pytest.raises(VerifyError, match="values are wrong"):
        verify(module, DIGITS, specs=IMAGE)
    with pytest.raises(VerifyError, match="would be right"):
        verify(Narrow(7, monkeypatch), DIGITS, specs=IMAGE, tf32=True)


def test_a_model_in_tf32_is_proved_on_the_twin(tmp_path: Path) -> None:
    options = Options(targets=("cuda",), tf32=True)
    made = compile_model(DIGITS, tmp_path / "m.edgec", options)
    [variant] = made.manifest["variants"]
    assert variant["gpu"]["tf32"]
    assert variant["verified"] == "host-twin"


def test_golden_data_allow_tf32_on_a_gpu_only() -> None:
    logits = [Tensor("logits", "float32", (1, 10))]
    golden = start_golden(DIGITS, IMAGE, logits, (), tf32=True).result()
    [strict], [wide] = golden.tolerances(), golden.tolerances(tf32=True)
    largest = np.abs(golden.expected["logits"]).max()
    assert strict.atol < 1.01e-4 * largest < wide.atol < 2e-2 * largest


def test_where_there_is_no_tf32_that_is_said(edgec: Edgec, tmp_path: Path) -> None:
    done = edgec("compile", DIGITS, "--tf32", "-o", tmp_path / "m.edgec")
    assert done.code == 0
    assert "no TF32, which takes a GPU since Ampere, sm_80" in done.err
