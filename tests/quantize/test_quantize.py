"""`edgec quantize`: standard models that lose little, and errors that say what is wrong."""

from __future__ import annotations

from pathlib import Path

import faces
import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import Edgec

from edgec.quantize.quantizer import QuantizeOptions, quantize_model

MODELS = Path(__file__).resolve().parents[2] / "models"


@pytest.mark.parametrize("profile", ["portable", "x86"])
@pytest.mark.parametrize("name", ["digits_cnn", "digits_transformer"])
def test_trained_digits_are_still_told(name: str, profile: str) -> None:
    images = np.load(MODELS / "digits_test.npz")["image"]
    labels = np.load(MODELS / "digits_labels.npy")[: len(images)]
    result = quantize_model(
        MODELS / f"{name}.onnx", {"image": images[:32]}, QuantizeOptions(profile=profile)
    )
    assert len(result.plan.weights) >= 4
    session = onnxruntime.InferenceSession(
        result.model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    [logits] = session.run(None, {"image": images})
    assert (logits.argmax(-1) == labels).mean() >= 0.98
    kinds = {tensor.data_type for tensor in result.model.graph.initializer}
    assert (onnx.TensorProto.UINT8 in kinds) == (profile == "x86")


@pytest.mark.skipif(not faces.MODEL.exists(), reason="../shared is not there")
@pytest.mark.parametrize("profile", ["portable", "x86"])
def test_faces_are_found_again(profile: str) -> None:
    """All photos, each half judged by ranges of the other."""
    photos = faces.photos()
    wanted = faces.detections(faces.MODEL, photos)
    verdicts = []
    for half, other in ((slice(0, 6), slice(6, 12)), (slice(6, 12), slice(0, 6))):
        options = QuantizeOptions(profile=profile)
        model = quantize_model(faces.MODEL, {"input": photos[half]}, options).model
        assert model.opset_import[0].version == 13
        verdicts.append(faces.judge(wanted[other], faces.detections(model, photos[other])))
    total = sum(verdict.wanted for verdict in verdicts)
    assert total == 604
    assert sum(verdict.kept for verdict in verdicts) >= 0.99 * total
    assert sum(verdict.new for verdict in verdicts) <= 0.01 * total


@pytest.mark.parametrize("profile", ["portable", "x86"])
@pytest.mark.parametrize("name", ["digits_cnn", "digits_transformer"])
def test_openvino_loads_it_and_agrees(name: str, profile: str) -> None:
    openvino = pytest.importorskip("openvino")
    images = np.load(MODELS / "digits_test.npz")["image"]
    model = quantize_model(
        MODELS / f"{name}.onnx", {"image": images}, QuantizeOptions(profile=profile)
    ).model
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU")
    given = compiled({"image": images})["logits"]
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    [wanted] = session.run(None, {"image": images})
    assert np.abs(given - wanted).max() < 0.15 * np.abs(wanted).max()
    assert (given.argmax(1) == wanted.argmax(1)).mean() >= 0.98


def test_errors(edgec: Edgec, tmp_path: Path) -> None:
    model = MODELS / "digits_cnn.onnx"
    for array, what in (
        (np.full((2, 1, 8, 8), np.nan, np.float32), "64 NaN"),
        (np.zeros((2, 1, 8, 7), np.float32), "does not fit"),
        (np.zeros((0, 1, 8, 8), np.float32), "no samples"),
    ):
        np.savez(tmp_path / "bad.npz", image=array)
        done = edgec("quantize", model, "--calib", tmp_path / "bad.npz", "-o", tmp_path / "q.onnx")
        assert done.code == 12
        assert what in done.err
    words = ("quantize", model, "--calib", MODELS / "digits_test.npz", "-o", tmp_path / "q.onnx")
    assert edgec(*words, "--exclude", "nothing").code == 2
    assert edgec(*words, "--profile", "nothing").code == 2
    assert edgec(*words).code == 0
    again = ("quantize", tmp_path / "q.onnx", *words[2:])
    assert "the model is quantized already" in edgec(*again).err
