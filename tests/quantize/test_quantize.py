"""`edgec quantize`: standard models that lose little, and errors that say what is wrong."""

from __future__ import annotations

from pathlib import Path

import faces
import numpy as np
import onnx
import onnxruntime
import pytest
from command import Edgec

from edgec import targets
from edgec.quantize.profiles import resolve
from edgec.quantize.quantizer import QuantizeOptions, quantize_model
from edgec.quantize.recover.recovery import Recovery

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
@pytest.mark.parametrize(
    ("profile", "recovery"), [("portable", Recovery()), ("x86", Recovery()), ("host", None)]
)
def test_faces_are_found_again(profile: str, recovery: Recovery | None) -> None:
    """All photos, each half judged by ranges of the other. With what the command does by default,
    for a target, also where each detection counts for one other only."""
    photos = faces.photos()
    wanted = faces.detections(faces.MODEL, photos)
    verdicts = []
    for half, other in ((slice(0, 6), slice(6, 12)), (slice(6, 12), slice(0, 6))):
        options = QuantizeOptions(profile=profile, recovery=recovery)
        model = quantize_model(faces.MODEL, {"input": photos[half]}, options).model
        assert model.opset_import[0].version == 13
        verdicts.append(faces.judge(wanted[other], faces.detections(model, photos[other])))
    total = sum(verdict.wanted for verdict in verdicts)
    assert total == 604
    assert sum(verdict.kept for verdict in verdicts) >= 0.99 * total
    assert sum(verdict.new for verdict in verdicts) <= 0.01 * total
    if recovery is None:
        assert sum(verdict.paired for verdict in verdicts) >= 0.99 * total
        assert sum(verdict.unpaired for verdict in verdicts) <= 0.01 * total


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


def test_compile_quantizes_for_its_target(edgec: Edgec, tmp_path: Path) -> None:
    data, output = MODELS / "digits_test.npz", tmp_path / "q.edgec"
    words = ("compile", MODELS / "digits_cnn.onnx", "--quantize", "w8a8", "-MD", "-o", output)
    assert edgec(*words).code == 12
    done = edgec(*words, "--calib", data)
    assert done.code == 0, done.err
    assert str(data) in (tmp_path / "q.edgec.d").read_text()
    images = np.load(data)["image"]
    labels = np.load(MODELS / "digits_labels.npy")[: len(images)]
    assert edgec("run", output, "--input", data, "--output", tmp_path / "out").code == 0
    logits = np.load(tmp_path / "out" / "logits.npy").reshape(len(images), -1)
    assert (logits.argmax(1) == labels).mean() >= 0.98
    card = edgec("inspect", output).out
    assert "digits_cnn" in card


def test_recurrent_layers_count_as_floats_in_the_share() -> None:
    node = onnx.helper.make_node("GRU", ["x", "w", "r"], ["", "h"], hidden_size=16)
    rng = np.random.default_rng(0)
    weights = {"w": (1, 48, 8), "r": (1, 48, 16), "f": (16, 4)}
    graph = onnx.helper.make_graph(
        [node, onnx.helper.make_node("MatMul", ["h", "f"], ["y"])],
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [5, 1, 8])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 1, 4])],
        [
            onnx.numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)
            for name, shape in weights.items()
        ],
    )
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8
    )
    made = quantize_model(model, ["random"])
    assert made.share == (64, 64 + 5 * 48 * (8 + 16))
    assert "GRU" in made.plan.left["h"]


def test_a_target_quantizes_what_its_kernels_have() -> None:
    for name in targets.names():
        assert resolve(name).name == "edgec"
    images = np.load(MODELS / "digits_test.npz")["image"]
    plans = {
        name: quantize_model(
            MODELS / "digits_transformer.onnx", {"image": images}, QuantizeOptions(profile=name)
        )
        for name in ("x86", "host")
    }
    assert plans["host"].plan.left["Erf_0"] == "Erf is computed in floats"
    for made in plans.values():
        assert "MatMul_0" in made.plan.units
        assert made.share is not None
        assert made.share[0] == made.share[1]


def test_a_target_weighs_channels_in_integers() -> None:
    """Squeeze and excitation; what only a table would compute stays within its product's kernel."""
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[1,16,6,6] x) => (float[1,16,6,6] y) {
          c = Conv(x, v)
          p = GlobalAveragePool(c)
          d = Conv(p, w)
          s = Sigmoid(d)
          m = Mul(c, s)
          e = Conv(m, u)
          h = HardSwish(e)
          y = Conv(h, t)
        }
    """)
    rng = np.random.default_rng(0)
    for name in "vwut":
        values = rng.standard_normal((16, 16, 1, 1)).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    del model.graph.value_info[:]
    plan = quantize_model(model, ["random"], QuantizeOptions(profile="host")).plan
    assert {"s", "m", "p"} <= set(plan.units)
    assert plan.left["h"] == "HardSwish is computed in floats"
