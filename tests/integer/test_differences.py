"""What is told of integers beside ONNX Runtime's own result of a quantized model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from command import Edgec
from onnx import TensorProto, helper, numpy_helper
from oracle import run

from edgec.program import Tensor
from edgec.qdq.differences import SAMPLES, difference, differences, step_of, summary
from edgec.qdq.meaning import meaning_of
from edgec.runtime.load import read_manifest

ROOT = Path(__file__).parents[2]
KWS = ROOT.parent / "shared/models/mlperf_tiny_kws_int8_qdq.onnx"


SHAPE = (1, 4, 40, 40)
STEP = 0.01


def layer(dequantized: bool) -> onnx.ModelProto:
    """A convolution whose sums are in halves of its result's steps (0.1 * 0.05 / 0.01), so that
    every other is in the middle of two; the output in integers, or in floats again."""
    random = np.random.default_rng(3)
    parts = {
        "s0": np.float32(0.1),
        "s1": np.float32(STEP),
        "zero": np.uint8(128),
        "w": random.integers(-9, 10, (4, 4, 1, 1)).astype(np.int8),
        "ws": np.full(4, 0.05, np.float32),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s0", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s0", "zero"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "ws"], ["v"], axis=0),
        helper.make_node("Conv", ["d", "v"], ["c"]),
        helper.make_node("QuantizeLinear", ["c", "s1", "zero"], ["p"]),
    ]
    output = helper.make_tensor_value_info("p", TensorProto.UINT8, SHAPE)
    if dequantized:
        nodes.append(helper.make_node("DequantizeLinear", ["p", "s1", "zero"], ["y"]))
        nodes.append(helper.make_node("Flatten", ["y"], ["flat"]))
        output = helper.make_tensor_value_info("flat", TensorProto.FLOAT, [1, 6400])
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [output],
        [numpy_helper.from_array(np.asarray(value), key) for key, value in parts.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_steps_are_counted() -> None:
    given = np.array([[0.0, 0.5, 1.0, 1.5]], np.float32)
    computed = np.array([[0.0, 1.0, 1.0000001, -0.5]], np.float32)
    found = difference("y", [given, given], [computed, given], 0.5)
    assert (found.values, found.differing, found.most) == (8, 2, 4)
    assert str(found) == "'y': 2 of 8 by 4 steps at most"
    of_largest = difference("y", [given], [computed], 0)
    assert (of_largest.differing, of_largest.in_steps) == (2, False)
    assert of_largest.most == pytest.approx(2 / 1.5)
    assert str(difference("y", [given], [given], 0.5)) == "'y': 0 of 4"
    bytes_ = [np.array([0, 255], np.uint8), np.array([255, 0], np.uint8)]
    assert difference("y", bytes_[:1], bytes_[1:], 1).most == 255


@pytest.mark.parametrize("dequantized", [False, True])
def test_steps_are_those_of_the_output(dequantized: bool, edgec: Edgec, tmp_path: Path) -> None:
    """As often, nearly, as on other samples; the artifact says what the function found."""
    model = layer(dequantized)
    [output] = [value.name for value in model.graph.output]
    step = STEP if dequantized else 1
    assert step_of(model, output) == pytest.approx(step)
    onnx.save(model, tmp_path / "m.onnx")
    inputs = [Tensor("x", "float32", SHAPE)]
    meaning = meaning_of(tmp_path / "m.onnx", inputs)
    assert isinstance(meaning, onnx.ModelProto)
    [found] = differences(model, meaning, inputs)
    assert (found.in_steps, found.values, found.most) == (True, SAMPLES * 6400, 1)
    assert 0.1 * found.values < found.differing < 0.6 * found.values

    done = edgec("compile", tmp_path / "m.onnx", "-o", tmp_path / "m.edgec")
    assert done.code == 0, done.err
    assert summary([found]) in done.err
    [variant] = read_manifest(tmp_path / "m.edgec")["variants"]
    assert variant["differences"] == [found.to_dict()]

    random = np.random.default_rng(0)
    samples = [random.standard_normal(SHAPE).astype(np.float32) for _ in range(SAMPLES)]
    pairs = [(run(meaning, {"x": x})[0], run(model, {"x": x})[0]) for x in samples]
    apart = np.concatenate([np.abs(a.astype(float) - b.astype(float)) for a, b in pairs])
    assert (apart > 0.5 * step).sum() == pytest.approx(found.differing, rel=0.1)


@pytest.mark.skipif(not KWS.is_file(), reason="shared/models is absent")
def test_the_keyword_model_does_not_differ(edgec: Edgec, tmp_path: Path) -> None:
    done = edgec("compile", KWS, "-o", tmp_path / "kws.edgec")
    assert "'Identity': 0 of 48" in done.err
