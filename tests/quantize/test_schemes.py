"""Schemes of weights alone: what other runtimes load, and how near it is to the float model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from command import Edgec

from edgec.errors import UsageError
from edgec.graph import load
from edgec.quantize.quantizer import QuantizeOptions, quantize_model
from edgec.quantize.schemes import SCHEMES
from edgec.quantize.weights import GROUP, float8, half, linear, logarithmic

MODELS = Path(__file__).resolve().parents[2] / "models"
INT4, INT2 = onnx.TensorProto.INT4, onnx.TensorProto.INT2


def logits(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(["logits"], {"image": images})[0]


def sqnr(wanted: np.ndarray, given: np.ndarray) -> float:
    return float(10 * np.log10((wanted**2).sum() / ((wanted - given) ** 2).sum()))


@pytest.mark.parametrize(
    ("scheme", "formula", "least", "opset"),
    [
        ("w8a16", "linear", 38, 17),
        ("w8a16", "power-of-two", 30, 17),
        ("w8a16", "float8e4m3fn", 25, 19),
        ("w8a16", "float8e5m2", 20, 19),
        ("w4a16", "linear", 17, 21),
        ("w4a16", "power-of-two", 13, 21),
        ("w4a16", "logarithmic", 10, 21),
        ("w2a16", "linear", 2, 25),
        ("fp16", "linear", 65, 17),
        ("bf16", "linear", 48, 17),
        ("dynamic", "linear", 36, 17),
    ],
)
@pytest.mark.parametrize("name", ["digits_cnn", "digits_transformer"])
def test_loads_and_tells_digits(
    name: str, scheme: str, formula: str, least: float, opset: int
) -> None:
    images = np.load(MODELS / "digits_test.npz")["image"]
    labels = np.load(MODELS / "digits_labels.npy")[: len(images)]
    made = quantize_model(
        MODELS / f"{name}.onnx", [], QuantizeOptions(scheme=scheme, formula=formula)
    )
    given = logits(made.model, images)
    wanted = logits(onnx.load(MODELS / f"{name}.onnx"), images)
    assert sqnr(wanted, given) >= least
    if scheme != "w2a16":
        assert (given.argmax(1) == labels).mean() >= 0.98
    assert max(opset, 17) <= made.model.opset_import[0].version <= max(opset, 18)
    assert len(made.plan.units) >= 3
    assert len(made.model.SerializeToString()) < 0.75 * (MODELS / f"{name}.onnx").stat().st_size


@pytest.mark.parametrize(("scheme", "kind"), [("w4a16", INT4), ("w2a16", INT2)])
def test_narrow_codes_survive_loading_and_saving(scheme: str, kind: int, tmp_path: Path) -> None:
    made = quantize_model(MODELS / "digits_cnn.onnx", [], QuantizeOptions(scheme=scheme)).model
    onnx.checker.check_model(made, full_check=True)
    graph = load(made)
    for node in graph.nodes():
        for tensor in node.inputs:
            _ = getattr(tensor, "values", None)
    graph.save(tmp_path / "again.onnx")
    again = onnx.load(tmp_path / "again.onnx")
    codes = {t.name: t.raw_data for t in made.graph.initializer if t.data_type == kind}
    assert len(codes) == 3
    assert {t.name: t.raw_data for t in again.graph.initializer if t.data_type == kind} == codes


def test_groups_and_channels() -> None:
    values = np.random.default_rng(0).standard_normal((8, 2 * GROUP)).astype(np.float32)
    grouped = linear(values, "int4", 0, 1)
    assert grouped.scale is not None
    assert (grouped.scale.shape, grouped.axis, grouped.block) == ((8, 2), 1, GROUP)
    odd = linear(values[:, :-1], "int4", 0, 1)
    assert odd.scale is not None
    assert (odd.scale.shape, odd.axis, odd.block) == ((8,), 0, 0)
    assert sqnr(values, grouped.dequantize()) > sqnr(values[:, :-1], odd.dequantize())
    eight = linear(values, "int8", 0, 1)
    assert sqnr(values, eight.dequantize()) > 40
    shifts = linear(values, "int8", 0, 1, power_of_two=True).scale
    assert shifts is not None
    np.testing.assert_array_equal(np.log2(shifts), np.round(np.log2(shifts)))


def test_zeros_and_large_weights_have_codes() -> None:
    zeros = np.zeros((4, GROUP), np.float32)
    for codes in (linear(zeros, "int2", 0, 1), float8(zeros, "float8e5m2", 0)):
        assert not codes.dequantize().any()
    assert np.isfinite(half(np.full(3, 1e6, np.float32), "float16").dequantize()).all()
    codes, table = logarithmic(np.array([0, 1, -1, 0.5, -0.25, 1e-9], np.float32))
    np.testing.assert_array_equal(table[codes.astype(int)], [0, 1, -1, 0.5, -0.25, 0])


def test_what_does_not_go_together_is_refused(edgec: Edgec) -> None:
    model = MODELS / "digits_cnn.onnx"
    for options in (
        QuantizeOptions(scheme="w3"),
        QuantizeOptions(scheme="w4a16", formula="float8e5m2"),
        QuantizeOptions(scheme="w8a16", formula="logarithmic"),
        QuantizeOptions(scheme="w8a8", formula="power-of-two"),
        QuantizeOptions(scheme="fp16", formula="cubic"),
        QuantizeOptions(scheme="w4a16", io_dtype="uint8"),
        QuantizeOptions(calibrator="guess"),
    ):
        with pytest.raises(UsageError):
            quantize_model(model, {"image": np.zeros((1, 1, 8, 8), np.float32)}, options)
    assert set(SCHEMES) == {"w8a8", "w8a16", "w4a16", "w2a16", "fp16", "bf16", "dynamic"}
    assert edgec("quantize", model).code == 12
