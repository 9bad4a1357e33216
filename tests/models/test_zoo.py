"""The zoo's models are valid, always the same, well scaled, and what their names say."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import build
from cost import cost
from nets.layers import Moments

MODELS = Path(build.__file__).parent
BATCH = 3

INTERFACES = {
    "mobilenet_v2": ({"image": (3, 3, 224, 224)}, {"logits": (3, 1000)}),
    "resnet18": ({"image": (3, 3, 224, 224)}, {"logits": (3, 1000)}),
    "squeezenet": ({"image": (3, 3, 224, 224)}, {"logits": (3, 1000)}),
    "ds_cnn": ({"mfcc": (3, 1, 49, 10)}, {"probabilities": (3, 12)}),
    "mobilenet_v1": ({"image": (3, 3, 96, 96)}, {"probabilities": (3, 2)}),
    "resnet8": ({"image": (3, 3, 32, 32)}, {"probabilities": (3, 10)}),
    "autoencoder": ({"spectrum": (3, 640)}, {"rebuilt": (3, 640)}),
    "unet": ({"image": (3, 3, 128, 128)}, {"mask": (3, 1, 128, 128)}),
    "bert_tiny": (
        {"input_ids": (3, 128), "attention_mask": (3, 128), "token_type_ids": (3, 128)},
        {"last_hidden_state": (3, 128, 128), "pooler_output": (3, 128)},
    ),
    "encoder": ({"tokens": (3, 128, 384)}, {"encoded": (3, 128, 384)}),
    "gru_keyword": ({"mfcc": (3, 49, 10)}, {"logits": (3, 12)}),
    "lstm_keyword": (
        {"frames": (3, 10, 40), "h": (1, 3, 128), "c": (1, 3, 128)},
        {"logits": (3, 12), "h_next": (1, 3, 128), "c_next": (1, 3, 128)},
    ),
}

# Well-known figures: parameters without running statistics, and MACs.
KNOWN = {
    "mobilenet_v2": (3_504_872, 300.8e6),
    "resnet18": (11_689_512, 1814e6),
    "squeezenet": (1_235_496, 349.2e6),
    "ds_cnn": (None, 2.66e6),
    "mobilenet_v1": (None, 7.49e6),
    "resnet8": (None, 12.5e6),
    "autoencoder": (None, 264e3),
}

every_model = pytest.mark.parametrize("name", build.ZOO)


@functools.cache
def built(name: str) -> onnx.ModelProto:
    return build.ZOO[name]()


def feed(name: str) -> dict[str, np.ndarray]:
    random = np.random.RandomState(1)
    values: dict[str, np.ndarray] = {}
    for tensor, shape in INTERFACES[name][0].items():
        if tensor == "input_ids":
            values[tensor] = random.randint(0, 30522, shape)
        elif tensor == "token_type_ids":
            values[tensor] = (np.arange(128) >= 70).astype(np.int64)[None].repeat(BATCH, 0)
        elif tensor == "attention_mask":
            values[tensor] = (np.arange(128) < [[128], [100], [60]]).astype(np.int64)
        else:
            values[tensor] = random.standard_normal(shape).astype(np.float32)
    return values


def run(model: onnx.ModelProto, name: str) -> dict[str, np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    names = [output.name for output in model.graph.output]
    return dict(zip(names, session.run(names, feed(name)), strict=True))


def test_every_model_has_its_interface_stated_here() -> None:
    assert INTERFACES.keys() == build.ZOO.keys()


@every_model
def test_two_builds_are_the_same_bytes(name: str) -> None:
    digests = {
        hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()
        for model in (built(name), build.ZOO[name]())
    }
    assert len(digests) == 1


@every_model
def test_model_is_valid_at_opset_17_with_a_symbolic_batch(name: str) -> None:
    model = built(name)
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    assert model.ir_version == 8
    for value in (*model.graph.input, *model.graph.output):
        symbols = [dim.dim_param for dim in value.type.tensor_type.shape.dim if dim.dim_param]
        assert symbols == ["N"]
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)


@every_model
def test_onnxruntime_gives_the_stated_outputs(name: str) -> None:
    inputs, outputs = INTERFACES[name]
    assert [value.name for value in built(name).graph.input] == list(inputs)
    found = run(built(name), name)
    assert {tensor: value.shape for tensor, value in found.items()} == outputs
    assert all(np.isfinite(value).all() for value in found.values())


@every_model
def test_layers_keep_about_unit_deviation_and_depend_on_the_input(name: str) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(built(name))
    outputs = {value.name for value in model.graph.output}
    # Layers are named; what merely follows from them (Relu, scores, masks) is numbered.
    layers = [
        node.output[0]
        for node in model.graph.node
        if not re.fullmatch(r"[A-Za-z]+_\d+|.*\.matmul", node.name)
        and node.op_type not in ("Sigmoid", "Softmax", "Tanh", "GRU", "LSTM", "Flatten")
        and node.output[0] not in outputs
    ]
    model.graph.output.extend(onnx.ValueInfoProto(name=layer) for layer in layers)
    found = run(model, name)
    deviations = {layer: float(found[layer].std()) for layer in layers}
    assert all(0.5 < deviation < 2 for deviation in deviations.values()), deviations
    first = found[model.graph.output[0].name]
    assert first.std(axis=0).mean() > 0.1 * first.std()


@pytest.mark.parametrize("name", KNOWN)
def test_cost_is_the_known_one(name: str) -> None:
    parameters, macs = KNOWN[name]
    found = cost(built(name))
    assert found.macs == pytest.approx(macs, rel=2e-3)
    if parameters is not None:
        running = sum(
            int(np.prod(weight.dims))
            for weight in built(name).graph.initializer
            if weight.name.endswith(("running_mean", "running_var"))
        )
        assert found.parameters - running == parameters


@pytest.mark.parametrize(
    ("name", "operators"),
    [
        ("mobilenet_v2", {"Conv": 52, "BatchNormalization": 52, "Clip": 35, "Add": 10}),
        ("resnet18", {"Conv": 20, "BatchNormalization": 20, "Relu": 17, "Add": 8}),
        ("squeezenet", {"Conv": 26, "Concat": 8, "MaxPool": 3, "BatchNormalization": 0}),
        ("autoencoder", {"Gemm": 10, "BatchNormalization": 9}),
        ("unet", {"ConvTranspose": 1, "Resize": 2, "Concat": 3}),
        ("bert_tiny", {"LayerNormalization": 0, "Erf": 2, "Softmax": 2, "Sqrt": 5, "Gelu": 0}),
        ("encoder", {"LayerNormalization": 12, "Erf": 6, "Softmax": 6}),
        ("gru_keyword", {"GRU": 2}),
        ("lstm_keyword", {"LSTM": 1}),
    ],
)
def test_operators_are_those_an_exporter_writes(name: str, operators: dict[str, int]) -> None:
    found = Counter(node.op_type for node in built(name).graph.node)
    assert {op: found[op] for op in operators} == operators


def test_padding_mask_of_bert_hides_the_tokens_behind_it() -> None:
    session = onnxruntime.InferenceSession(built("bert_tiny").SerializeToString())
    values = feed("bert_tiny")
    before = session.run(None, values)[0]
    values["input_ids"][2, 60:] = 7
    after = session.run(None, values)[0]
    np.testing.assert_allclose(after[2, :60], before[2, :60], atol=1e-5)
    values["input_ids"][2, :60] = 7
    assert np.abs(session.run(None, values)[0][2, :60] - before[2, :60]).max() > 0.5


def test_streaming_lstm_in_two_pieces_is_one_over_the_whole() -> None:
    whole = onnx.ModelProto()
    whole.CopyFrom(built("lstm_keyword"))
    whole.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 20
    random = np.random.RandomState(2)
    frames = random.standard_normal((2, 20, 40)).astype(np.float32)
    h = c = np.zeros((1, 2, 128), np.float32)
    session = onnxruntime.InferenceSession(whole.SerializeToString())
    expected = session.run(None, {"frames": frames, "h": h, "c": c})
    session = onnxruntime.InferenceSession(built("lstm_keyword").SerializeToString())
    fresh = session.run(None, {"frames": frames[:, 10:], "h": h, "c": c})
    for piece in (frames[:, :10], frames[:, 10:]):
        logits, h, c = session.run(None, {"frames": piece, "h": h, "c": c})
    for found, value in zip((logits, h, c), expected, strict=True):
        np.testing.assert_allclose(found, value, atol=1e-5)
    assert np.abs(fresh[0] - logits).max() > 0.01


def test_moments_follow_a_function_of_a_normal_variable() -> None:
    samples = np.random.RandomState(3).normal(0.3, 1.5, 1_000_000)
    exact = Moments(np.array([0.3]), np.array([2.25])).through(lambda v: np.maximum(v, 0))
    rectified = np.maximum(samples, 0)
    assert exact.mean[0] == pytest.approx(rectified.mean(), rel=0.01)
    assert exact.variance[0] == pytest.approx(rectified.var(), rel=0.02)


def test_path_builds_what_is_absent_or_out_of_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "CACHE", tmp_path / "cache")
    file = build.path("resnet8")
    assert onnx.load(file) == built("resnet8")
    file.write_bytes(b"kept")
    assert build.path("resnet8").read_bytes() == b"kept"
    os.utime(file, (1, 1))
    assert onnx.load(build.path("resnet8")) == built("resnet8")
    assert [entry.name for entry in file.parent.iterdir()] == ["resnet8.onnx"]


def test_command_line_writes_the_model_it_is_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "new" / "tiny.onnx"
    command = [sys.executable, MODELS / "build.py", "gru_keyword", "-o", file]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert printed.strip() == str(file)
    assert onnx.load(file) == built("gru_keyword")


def test_command_line_lists_the_zoo_and_refuses_other_names() -> None:
    command = [sys.executable, MODELS / "build.py"]
    listed = subprocess.run([*command, "list"], check=True, capture_output=True, text=True).stdout
    assert [line.split()[0] for line in listed.splitlines()] == list(build.ZOO)
    refused = subprocess.run([*command, "alexnet"], capture_output=True, text=True)
    assert refused.returncode == 2
    assert "alexnet" in refused.stderr
