"""LSTM, GRU and RNN written out: the standard's own cases, and what ONNX Runtime makes of others.

ONNX Runtime has them in float32 and with the time in front only.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from oracle import run

from edgec.graph import load
from edgec.passes.decompose_recurrent import DecomposeRecurrent
from edgec.rewrite import optimize

STEPS, BATCH, INPUT, HIDDEN = 5, 3, 4, 2
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
FUNCTIONS = {"LSTM": 3, "GRU": 2, "RNN": 1}
RNG = np.random.default_rng(3)


def decomposed(model: onnx.ModelProto) -> onnx.ModelProto:
    graph = load(model, symbolic=True, assume_batch=False)
    (report,) = optimize(graph, [DecomposeRecurrent()])
    assert report.rewrites == 1
    assert not {"LSTM", "GRU", "RNN"}.intersection(node.op for node in graph.nodes())
    result = graph.to_source_opset()
    onnx.checker.check_model(result, full_check=True)
    return result


def recurrent(
    op: str, *, given: str = "", constant: bool = True, symbolic: bool = False, **attrs: Any
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """A model of one `op`, and inputs. `given` names optional inputs by their first letters."""
    gates = GATES[op]
    dirs = 2 if attrs.get("direction") == "bidirectional" else 1

    def values(*shape: int) -> Any:
        return (0.5 * RNG.standard_normal(shape)).astype(np.float32)

    inputs = {
        "X": values(STEPS, BATCH, INPUT),
        "W": values(dirs, gates * HIDDEN, INPUT),
        "R": values(dirs, gates * HIDDEN, HIDDEN),
        "B": values(dirs, 2 * gates * HIDDEN),
        "sequence_lens": np.array([5, 3, 1], np.int32),
        "initial_h": values(dirs, BATCH, HIDDEN),
    }
    if op == "LSTM":
        inputs["initial_c"] = values(dirs, BATCH, HIDDEN)
        inputs["P"] = values(dirs, 3 * HIDDEN)
    kept = {"X", "W", "R", *given.split()}
    assert kept <= set(inputs)
    names = [name if name in kept else "" for name in inputs]
    outputs = ["Y", "Y_h", "Y_c"][: 3 if op == "LSTM" else 2]
    node = helper.make_node(op, names, outputs, hidden_size=HIDDEN, **attrs)
    fixed = {"W", "R", "B", "P", "sequence_lens"} & kept if constant else set()
    infos = []
    for name in sorted(kept - fixed):
        shape: list[Any] = list(inputs[name].shape)
        if symbolic and name in ("X", "initial_h", "initial_c"):
            shape[1] = "N"
            shape[0] = "T" if name == "X" else shape[0]
        kind = TensorProto.INT32 if name == "sequence_lens" else TensorProto.FLOAT
        infos.append(helper.make_tensor_value_info(name, kind, shape))
    graph = helper.make_graph(
        [node],
        "g",
        infos,
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(inputs[name], name) for name in sorted(fixed)],
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    return model, {name: inputs[name] for name in sorted(kept - fixed)}


def assert_same(op: str, **options: Any) -> None:
    model, feed = recurrent(op, **options)
    for expected, actual in zip(run(model, feed), run(decomposed(model), feed), strict=True):
        assert expected.shape == actual.shape
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


ALL = "B sequence_lens initial_h"


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("given", ["", "B", "initial_h", "sequence_lens", ALL])
def test_directions_and_inputs(op: str, direction: str, given: str) -> None:
    assert_same(op, direction=direction, given=given)


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("given", ["", ALL])
def test_computed_weights_and_unknown_sizes(op: str, given: str) -> None:
    assert_same(op, given=given, constant=False, symbolic=True, direction="bidirectional")


@pytest.mark.parametrize("op", GATES)
def test_hidden_size_is_that_of_the_weights(op: str) -> None:
    model, feed = recurrent(op)
    expected = run(model, feed)
    [attribute] = model.graph.node[0].attribute
    model.graph.node[0].attribute.remove(attribute)
    for wanted, actual in zip(expected, run(decomposed(model), feed), strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("direction", ["reverse", "bidirectional"])
def test_batch_in_front(op: str, direction: str) -> None:
    model, feed = recurrent(op, given=ALL, direction=direction)
    expected = run(model, feed)
    model.graph.node[0].attribute.append(helper.make_attribute("layout", 1))
    for info in model.graph.input:
        if info.name != "sequence_lens":
            feed[info.name] = feed[info.name].swapaxes(0, 1)
            for dim, size in zip(
                info.type.tensor_type.shape.dim, feed[info.name].shape, strict=True
            ):
                dim.dim_value = size
    for wanted, actual in zip(expected, run(decomposed(model), feed), strict=True):
        given = wanted.transpose(2, 0, 1, 3) if wanted.ndim == 4 else wanted.swapaxes(0, 1)
        np.testing.assert_allclose(actual, given, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("given", ["", ALL])
def test_clip(op: str, given: str) -> None:
    assert_same(op, given=given, clip=0.3)


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize("given", ["B", ALL])
@pytest.mark.parametrize("clip", [{}, {"clip": 0.5}])
def test_gru_linear_before_reset(direction: str, given: str, clip: dict[str, float]) -> None:
    assert_same("GRU", given=given, direction=direction, linear_before_reset=1, **clip)


@pytest.mark.parametrize("given", ["P", "initial_c", "initial_c P", f"{ALL} initial_c P"])
@pytest.mark.parametrize("input_forget", [0, 1])
@pytest.mark.parametrize("clip", [{}, {"clip": 0.4}])
def test_lstm(given: str, input_forget: int, clip: dict[str, float]) -> None:
    assert_same("LSTM", given=given, input_forget=input_forget, **clip)


@pytest.mark.parametrize(
    ("name", "alpha", "beta"),
    [
        ("Affine", [0.7], [0.1]),
        ("Elu", [0.7], []),
        ("Elu", [], []),
        ("HardSigmoid", [0.3], [0.4]),
        ("HardSigmoid", [], []),
        ("LeakyRelu", [0.2], []),
        ("LeakyRelu", [], []),
        ("Relu", [], []),
        ("ScaledTanh", [0.9], [0.7]),
        ("Sigmoid", [], []),
        ("Softplus", [], []),
        ("Softsign", [], []),
        ("Tanh", [], []),
        ("ThresholdedRelu", [0.2], []),
    ],
)
@pytest.mark.parametrize("op", GATES)
def test_activations(op: str, name: str, alpha: list[float], beta: list[float]) -> None:
    count = FUNCTIONS[op]
    given = {"activation_alpha": alpha * count, "activation_beta": beta * count}
    attrs = {key: value for key, value in given.items() if value}
    assert_same(op, activations=[name] * count, **attrs)


def test_parameters_go_to_the_functions_that_take_them() -> None:
    assert_same(
        "LSTM",
        direction="bidirectional",
        activations=["sigmoid", "LeakyRelu", "HardSigmoid", "HardSigmoid", "Tanh", "Elu"],
        activation_alpha=[0.3, 0.15, 0.25, 0.6],
        activation_beta=[0.4, 0.6],
    )


@pytest.mark.filterwarnings("ignore")
def test_the_standard_s_cases() -> None:
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = [c for c in collect_testcases(None) if c.model.graph.node[0].op_type in GATES]
    assert len(cases) >= 15
    for case in cases:
        inputs, expected = case.data_sets[0]
        names = [info.name for info in case.model.graph.input]
        results = run(decomposed(case.model), dict(zip(names, inputs, strict=True)))
        for wanted, actual in zip(expected, results, strict=True):
            np.testing.assert_allclose(actual, wanted, rtol=1e-4, atol=1e-5, err_msg=case.name)
