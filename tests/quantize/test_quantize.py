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
def test_faces_are_found_again() -> None:
    photos = faces.photos()
    model = quantize_model(faces.MODEL, {"input": photos[:6]}).model
    verdict = faces.judge(
        faces.detections(faces.MODEL, photos[6:]), faces.detections(model, photos[6:])
    )
    assert verdict.kept >= 0.97 * verdict.wanted
    assert verdict.new <= 0.03 * verdict.wanted


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
