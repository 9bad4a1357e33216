"""Calibration data, statistics and calibrators, the cache of them, and integers at the border."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from command import Edgec

from edgec.errors import DataError, UsageError
from edgec.quantize.calibrators import CALIBRATORS, range_of
from edgec.quantize.formulas import grid
from edgec.quantize.overrides import read_overrides
from edgec.quantize.profiles import resolve
from edgec.quantize.quantizer import QuantizeOptions, quantize_model
from edgec.quantize.statistics import BINS, Histogram, Statistics

MODELS = Path(__file__).resolve().parents[2] / "models"
DIGITS = MODELS / "digits_cnn.onnx"


def run(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(["logits"], {"image": images})[0]


def statistics(*samples: np.ndarray) -> Statistics:
    found = Statistics(histogram=Histogram())
    for sample in samples:
        found.add(sample)
    return found


def test_histogram_grows_with_the_values_and_loses_none() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.standard_normal(1000) * 10.0**i for i in range(-2, 4)]
    histogram = Histogram()
    for part in parts:
        histogram.add(part)
    values = np.concatenate(parts)
    assert histogram.counts.shape == (BINS,)
    assert histogram.counts.sum() == values.size
    assert np.abs(values).max() <= histogram.limit < 4 * np.abs(values).max()
    again = np.histogram(values, BINS, (-histogram.limit, histogram.limit))[0]
    assert np.abs(histogram.counts - again).sum() <= 4


@pytest.mark.parametrize("profile", ["portable", "x86"])
@pytest.mark.parametrize("name", CALIBRATORS)
def test_calibrators_hold_ordinary_values_and_clip_rare_ones(name: str, profile: str) -> None:
    rng = np.random.default_rng(1)
    ordinary = [rng.standard_normal(50_000).astype(np.float32) for _ in range(4)]
    rare = ordinary[0].copy()
    rare[:3] = 60
    low, high = range_of(name, statistics(rare, *ordinary[1:]), resolve(profile))
    assert -8 < low < -2.5
    assert (high == 60) == (name == "minmax")
    assert high > 3
    if name != "mse":
        assert (high < 50) == (name != "minmax")
    empty, infinite = statistics(), statistics(np.array([np.inf, 1.0]))
    for nothing in (empty, infinite):
        assert np.isnan(range_of(name, nothing, resolve(profile))).all()


def test_mse_errs_less_than_minmax() -> None:
    rng = np.random.default_rng(2)
    values = rng.standard_t(3, 100_000).astype(np.float32)
    profile = resolve("portable")

    def error(name: str) -> float:
        held = grid(*range_of(name, statistics(values), profile), "int8", symmetric=True)
        return float(((held.dequantize(held.quantize(values)) - values) ** 2).mean())

    assert error("mse") < 0.75 * error("minmax")


def test_statistics_are_kept_by_model_and_data(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EDGEC_CACHE_DIR", str(tmp_path))
    images = np.load(MODELS / "digits_test.npz")["image"]
    events: list[object] = []
    first = quantize_model(
        DIGITS, {"image": images[:9]}, QuantizeOptions(calibrator="mse"), events.append
    )
    assert len(events) == 9
    for data, again in ((images[:9], 9), (images[9:19], 19)):
        made = quantize_model(
            DIGITS, {"image": data}, QuantizeOptions(calibrator="mse"), events.append
        )
        assert len(events) == again
        assert (made.plan.activations == first.plan.activations) == (again == 9)


def test_readers_folders_and_damaged_samples(tmp_path: Path) -> None:
    images = np.load(MODELS / "digits_test.npz")["image"]
    wanted = quantize_model(DIGITS, {"image": images[:8]}).plan.activations
    reader = tmp_path / "reader.py"
    reader.write_text(
        "import numpy as np\n"
        f"images = np.load({str(MODELS / 'digits_test.npz')!r})['image'][:8]\n"
        "def good():\n    yield from ({'image': x[None]} for x in images)\n"
        "def wide():\n    yield {'image': images[:1].astype('float64')}\n"
        "def named():\n    yield {'picture': images[:1]}\n"
        "def broken():\n    raise RuntimeError('no camera')\n"
        "def empty():\n    return []\n"
        "listed = [images[0]]\n"
    )
    assert quantize_model(DIGITS, [f"{reader}:good"]).plan.activations == wanted
    for name, what in (
        ("wide", "float64"),
        ("named", "no input 'picture'"),
        ("broken", "no camera"),
        ("empty", "no samples"),
        ("listed", "no dict"),
    ):
        with pytest.raises(DataError, match=what):
            quantize_model(DIGITS, [f"{reader}:{name}"])
    with pytest.raises(UsageError, match="has no 'absent'"):
        quantize_model(DIGITS, [f"{reader}:absent"])
    folder = tmp_path / "arrays"
    folder.mkdir()
    np.savez(folder / "a.npz", image=images[:3])
    np.save(folder / "b.npy", images[3:8])
    assert quantize_model(DIGITS, [str(folder)]).plan.activations == wanted


def test_bytes_of_a_camera_go_in_and_integers_come_out() -> None:
    images = np.load(MODELS / "digits_test.npz")["image"]
    pixels = np.rint(images * 255).astype(np.uint8)
    options = QuantizeOptions(profile="x86", io_dtype="uint8", normalize=("image=0,255",))
    made = quantize_model(DIGITS, {"image": pixels}, options)
    assert made.model.graph.node[0].op_type == "DequantizeLinear"
    given = run(made.model, pixels)
    assert given.dtype == np.uint8
    wanted = run(onnx.load(DIGITS), pixels.astype(np.float32) / 255)
    assert (given.argmax(1) == wanted.argmax(1)).mean() >= 0.98
    note = next(note for note in made.notes if note.startswith("input 'image'"))
    assert note.endswith("0.00392156886 * (value - 0)")


def test_symmetry_granularity_and_overrides(tmp_path: Path, edgec: Edgec) -> None:
    images = np.load(MODELS / "digits_test.npz")["image"]
    both = [
        quantize_model(DIGITS, {"image": images}, QuantizeOptions(symmetric=s)).plan
        for s in (True, False)
    ]
    assert [each.activations["relu1"].zero for each in both] == [0, -128]
    single = quantize_model(DIGITS, {"image": images}, QuantizeOptions(per_channel=False)).plan
    assert {weight.scale.ndim for weight in single.weights.values()} == {0}
    file = tmp_path / "overrides.json"
    file.write_text(json.dumps({"ranges": {"relu1": [0, 12.7]}, "float": ["conv3"]}))
    options = QuantizeOptions(overrides=read_overrides(file))
    plan = quantize_model(DIGITS, {"image": images}, options).plan
    assert plan.activations["relu1"].scale == pytest.approx(0.1)
    assert plan.left["conv3"] == "it is excluded"
    assert "conv2" in plan.units
    words = ("quantize", DIGITS, "--calib", MODELS / "digits_test.npz", "-o", tmp_path / "q.onnx")
    for text in ("[]", "{", '{"ranges": {"relu1": [1]}}', '{"ranges": {"nothing": [0, 1]}}'):
        file.write_text(text)
        assert edgec(*words, "--overrides", file).code == 2


def test_data_that_say_too_little_are_told_and_go_on() -> None:
    """Few samples, a tensor or a channel that is zero on all, weights of zeros, and values so large
    that what they are multiplied to is not finite."""
    random = np.random.default_rng(0)
    images = np.load(MODELS / "digits_test.npz")["image"][:16]
    model = onnx.load(DIGITS)
    [weights] = [t for t in model.graph.initializer if t.name == "conv2.weight"]
    values = onnx.numpy_helper.to_array(weights).copy()
    values[[3, 5]] = 0
    weights.CopyFrom(onnx.numpy_helper.from_array(values, weights.name))
    coloured = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]>
        m (float[1,3,8,8] x) => (float[1,2,8,8] y) { y = Conv <kernel_shape = [1,1]> (x, w) }"""
    )
    kernel = random.standard_normal((2, 3, 1, 1)).astype(np.float32)
    coloured.graph.initializer.append(onnx.numpy_helper.from_array(kernel, "w"))
    colours = random.standard_normal((8, 3, 8, 8)).astype(np.float32)
    colours[:, 1] = 0
    for source, data, told in (
        (DIGITS, {"image": images[:3]}, "calibrated with 3 samples only"),
        (DIGITS, {"image": 0 * images}, "tensor 'image' is zero on all samples"),
        (coloured, {"x": colours}, "channels of input 'x' are zero on all samples (1)"),
        (model, {"image": images}, "2 of 32 channels are zero; their scale is the bias's"),
        (DIGITS, {"image": 0 * images + 3e38}, "is not finite on the samples"),
    ):
        result = quantize_model(source, data)
        assert any(told in note for note in result.notes), (told, result.notes)
        onnx.checker.check_model(result.model)
    assert not any("channels" in n for n in quantize_model(DIGITS, {"image": images}).notes)


def test_errors_of_data_say_what_to_do() -> None:
    images = np.load(MODELS / "digits_test.npz")["image"][:16]
    broken = images.copy()
    broken[9, 0, 3, 3] = np.inf
    for data, where, hint in (
        ({"picture": images}, "", "inputs: image"),
        ({"image": images[:, :, :, :7]}, "['image']", "samples stacked on axis 0"),
        ({"image": images.astype(np.float64)}, "['image']", "array.astype('float32')"),
        ({"image": (images * 255).astype(np.uint8)}, "['image']", "--normalize image=MEAN,STD"),
        ({"image": broken}, "input 'image', sample 9", "repair the sample"),
        ({"image": images[:0]}, "['image']", ""),
    ):
        with pytest.raises(DataError) as caught:
            quantize_model(DIGITS, data)
        assert caught.value.exit_code == 12
        assert where in caught.value.where
        assert hint in caught.value.hint
