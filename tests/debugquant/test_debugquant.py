"""`edgec debug-quant`: what is blamed for an error is what made it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from edgec.debugquant.debug import debug_quant
from edgec.debugquant.measure import BINS, Errors, Measure
from edgec.debugquant.page import page
from edgec.debugquant.report import DebugReport, TensorReport
from edgec.debugquant.run import Values
from edgec.errors import DataError, ModelError
from tests import oracle
from tests.conftest import Edgec

FLOAT = """
<ir_version: 8, opset_import: ["" : 17]>
m (float[1,2,4,4] x) => (float[1,2,4,4] y) {
    c1 = Conv <kernel_shape = [1,1]> (x, w1)
    r1 = Relu (c1)
    y = Conv <kernel_shape = [1,1]> (r1, w2)
}"""
"""What an engineer would write for it by hand; `r1` is cut off at 2.54, `w2` is coarse."""
QUANTIZED = """
<ir_version: 8, opset_import: ["" : 17]>
m (float[1,2,4,4] x) => (float[1,2,4,4] y) {
    c1 = Conv <kernel_shape = [1,1]> (x, w1)
    r1 = Relu (c1)
    r1_q = QuantizeLinear (r1, s, z)
    r1_d = DequantizeLinear (r1_q, s, z)
    w2_d = DequantizeLinear (w2_q, w2_s, z)
    y = Conv <kernel_shape = [1,1]> (r1_d, w2_d)
}"""
W1 = np.array([[1, 0], [0, 10]], np.float32).reshape(2, 2, 1, 1)
W2 = np.array([[1, 0.5], [0.26, 1]], np.float32).reshape(2, 2, 1, 1)


class Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, images: np.ndarray) -> None:
        self.left = iter([{"image": image[None]} for image in images])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.left, None)


def with_constants(text: str, **values: Any) -> onnx.ModelProto:
    model = parser.parse_model(text)
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()
    )
    return model


@pytest.fixture(scope="module")
def plain() -> onnx.ModelProto:
    return with_constants(FLOAT, w1=W1, w2=W2)


@pytest.fixture(scope="module")
def quantized() -> onnx.ModelProto:
    w2 = np.rint(W2 / 0.5).astype(np.int8)
    scales = {"s": np.float32(0.02), "w2_s": np.float32(0.5)}
    return with_constants(QUANTIZED, w1=W1, w2_q=w2, z=np.int8(0), **scales)


@pytest.fixture(scope="module")
def data() -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(1).uniform(-1, 1, (5, 2, 4, 4)).astype(np.float32)}


@pytest.fixture(scope="module")
def ort_int8(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path, bool], Path]:
    """A digits model as ONNX Runtime quantizes it."""

    def make(model: Path, asymmetric: bool) -> Path:
        path = tmp_path_factory.mktemp("ort") / "int8.onnx"
        images = np.load(model.parent / "digits_test.npz")["image"][:16]
        quantize_static(
            model,
            path,
            Reader(images),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8 if asymmetric else QuantType.QInt8,
            weight_type=QuantType.QInt8,
            per_channel=asymmetric,
        )
        return path

    return make


def by_name(report: DebugReport) -> dict[str, TensorReport]:
    return {each.name: each for each in report.tensors}


def ratio(wanted: np.ndarray, given: np.ndarray) -> float:
    wanted, given = wanted.astype(np.float64), given.astype(np.float64)
    return float(10 * np.log10((wanted**2).sum() / ((given - wanted) ** 2).sum()))


def test_every_number_is_that_of_its_definition(
    plain: onnx.ModelProto, quantized: onnx.ModelProto, data: dict[str, np.ndarray]
) -> None:
    found = by_name(debug_quant(plain, quantized, data))
    assert list(found) == ["x", "c1", "r1", "y"]
    assert found["x"].sqnr_db == found["c1"].local_db == math.inf

    r1 = np.maximum(np.einsum("oi,nihw->nohw", W1[:, :, 0, 0], data["x"]), 0)
    r1_given = np.clip(np.rint(r1 / np.float32(0.02)), -128, 127) * np.float32(0.02)
    assert found["r1"].grid == "int8 -2.56..2.54"
    assert found["r1"].sqnr_db == pytest.approx(ratio(r1, r1_given), abs=1e-3)
    assert found["r1"].local_db == found["r1"].sqnr_db
    assert found["r1"].above == pytest.approx((r1 > 2.55).mean())
    assert found["r1"].below == 0
    assert [c.index for c in found["r1"].worst_channels] == [1, 0]

    w2_given = np.rint(W2 / 0.5) * 0.5
    y, y_given, y_local = (
        np.einsum("oi,nihw->nohw", w[:, :, 0, 0], values)
        for w, values in ((W2, r1), (w2_given, r1_given), (w2_given, r1_given))
    )
    assert found["y"].sqnr_db == pytest.approx(ratio(y, y_given), abs=1e-3)
    assert found["y"].local_db == pytest.approx(ratio(y, y_local), abs=1e-3)
    assert found["y"].weight_db == pytest.approx(ratio(W2, w2_given), abs=1e-3)
    assert found["y"].is_output
    assert found["y"].largest_error == pytest.approx(np.abs(y - y_given).max(), rel=1e-4)


def test_a_layer_is_not_blamed_for_those_before(
    plain: onnx.ModelProto, data: dict[str, np.ndarray]
) -> None:
    """Only c1 is wrong: what reads it passes that on, and adds nothing."""
    worse = onnx.ModelProto()
    worse.CopyFrom(plain)
    worse.graph.initializer[0].CopyFrom(numpy_helper.from_array(W1 * np.float32(1.1), "w1"))
    found = by_name(debug_quant(plain, worse, data))
    assert found["c1"].local_db == pytest.approx(20, abs=1e-3)
    assert found["y"].sqnr_db == pytest.approx(20, abs=1e-3)
    assert found["y"].local_db > 100


def test_weights_of_other_sizes_are_noted(
    plain: onnx.ModelProto, quantized: onnx.ModelProto, data: dict[str, np.ndarray]
) -> None:
    smoothed = onnx.ModelProto()
    smoothed.CopyFrom(quantized)
    for tensor in smoothed.graph.initializer:
        if tensor.name == "w2_s":
            tensor.CopyFrom(numpy_helper.from_array(np.float32(5), "w2_s"))
    notes = [debug_quant(plain, each, data).notes for each in (quantized, smoothed)]
    assert not any("not the float model's" in note for note in notes[0])
    assert any("the weights of 1 layers are not the float model's" in note for note in notes[1])


def test_what_was_folded_is_not_compared_with_what_it_was(
    digits: Path, ort_int8: Callable[[Path, bool], Path], tmp_path: Path
) -> None:
    """`conv1` names the result of the convolution before its BatchNormalization in the one model,
    and what comes out behind that in the optimised other one."""
    from edgec.optimizer import optimize

    optimised = tmp_path / "optimised.onnx"
    onnx.save(optimize(digits), optimised)
    images = np.load(digits.parent / "digits_test.npz")
    quantize_static(
        optimised,
        tmp_path / "int8.onnx",
        Reader(images["image"][:16]),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
    )
    report = debug_quant(digits, tmp_path / "int8.onnx", {"image": images["image"][:8]})
    found = by_name(report)
    assert {each.op for each in report.tensors} >= {"Conv", "Gemm", "MaxPool"}
    assert min(each.sqnr_db for each in report.tensors) > 20
    assert sum(each.weight_db is not None for each in report.tensors) == 4
    assert found["logits"].weight_db == pytest.approx(43, abs=5)
    assert report.unmatched == 0


@pytest.mark.parametrize("asymmetric", [True, False])
@pytest.mark.parametrize("name", ["digits_cnn", "digits_transformer"])
def test_models_of_another_quantizer(
    digits: Path, ort_int8: Callable[[Path, bool], Path], name: str, asymmetric: bool
) -> None:
    model = digits.with_name(f"{name}.onnx")
    int8 = ort_int8(model, asymmetric)
    images = np.load(digits.parent / "digits_test.npz")["image"][:8]
    report = debug_quant(model, int8, {"image": images})
    assert report.unmatched == 0
    assert report.samples == 8
    wanted, given = (
        np.concatenate([oracle.run(onnx.load(path), {"image": image[None]})[0] for image in images])
        for path in (model, int8)
    )
    assert by_name(report)["logits"].sqnr_db == pytest.approx(ratio(wanted, given), abs=0.01)
    inner = [each for each in report.tensors if each.op]
    assert all(20 < each.local_db < 60 for each in inner if each.grid)


def test_the_command(
    edgec: Edgec, digits: Path, ort_int8: Callable[[Path, bool], Path], tmp_path: Path
) -> None:
    int8 = ort_int8(digits, True)
    words = ("debug-quant", digits, int8, "--calib", digits.with_name("digits_test.npz"))
    done = edgec(*words, "--worst", 2, "--html", tmp_path / "page.html")
    assert done.code == 0, done.err
    assert len(re.findall(r"^\S+ +(?:Conv|Gemm|MaxPool|Relu|Batch\w+) ", done.out, re.M)) == 2
    assert re.search(r"^output logits: \d\d\.\d dB$", done.out, re.M)
    assert "<svg" in (tmp_path / "page.html").read_text()
    reader = tmp_path / "reader.py"
    reader.write_text(
        "import numpy as np\n"
        f"images = np.load({str(digits.with_name('digits_test.npz'))!r})['image']\n"
        "def some():\n"
        "    return ({'image': image[None]} for image in images[:5])\n"
    )
    assert edgec(*words[:-1], f"{reader}:some", "--json").result["samples"] == 5
    result = edgec(*words, "--samples", 40, "--json").result
    assert result["samples"] == 40
    assert result["tensors"][-1]["name"] == "logits"
    assert len(result["tensors"][-1]["histogram"][0]) == BINS + 2


def test_names_are_data(data: dict[str, np.ndarray]) -> None:
    evil = '<script>alert("x")</script>'
    models = []
    for text in (FLOAT, QUANTIZED):
        w2 = (
            {"w2": W2}
            if text is FLOAT
            else {
                "w2_q": W2.astype(np.int8),
                "z": np.int8(0),
                "s": np.float32(1),
                "w2_s": np.float32(1),
            }
        )
        model = with_constants(text, w1=W1, **w2)
        for node in model.graph.node:
            node.name = f"{evil}{node.output[0]}"
            for names in (node.input, node.output):
                names[:] = [evil if name == "r1" else name for name in names]
        models.append(model)
    text = page(debug_quant(*models, data))
    assert "alert(" in text
    assert "<script" not in text


def test_errors(
    plain: onnx.ModelProto, quantized: onnx.ModelProto, data: dict[str, np.ndarray], digits: Path
) -> None:
    with pytest.raises(ModelError, match="the float model has no input 'x'"):
        debug_quant(digits, quantized, data)
    with pytest.raises(DataError, match=r"shape \[1, 3\] does not fit"):
        debug_quant(plain, quantized, {"x": np.zeros((1, 3), np.float32)})
    other = parser.parse_model(FLOAT.replace("c1", "a").replace("r1", "b").replace(" y", " o"))
    other.graph.initializer.extend(plain.graph.initializer)
    with pytest.raises(ModelError, match="no tensor of the quantized model is in the float one"):
        debug_quant(other, quantized, data)


def test_values_that_are_not_finite_are_left_out() -> None:
    errors = Errors()
    errors.add(np.array([[1.0], [np.nan], [np.inf]]), np.array([[1.1], [1.0], [np.inf]]))
    assert errors.sqnr_db == pytest.approx(20)
    measure = Measure(-1, None)
    measure.add(Values(*[np.full((2, 2), np.nan, np.float32)] * 3))
    assert measure.float_range == (math.inf, -math.inf)
