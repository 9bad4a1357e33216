"""LSTM, GRU and RNN compiled to loops over time, against ONNX Runtime without optimisations.

Each model has many nodes, so that it is compiled once; `edgec.compile` verifies it besides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import oracle
import pytest
from onnx import helper, numpy_helper

import edgec
from edgec.errors import LoweringError
from edgec.graph import load
from edgec.lower.convert import unsupported
from edgec.lower.lowering import lower_graph
from edgec.program import Call, Repeat
from edgec.targets import host

STEPS, BATCH, FEATURES, HIDDEN = 5, 3, 4, 6
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


class Net:
    """A model of recurrent nodes on one input, weights constant or given at run time."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(3)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.inputs: dict[str, np.ndarray] = {}
        self.outputs: list[str] = []

    def tensor(self, value: np.ndarray, given: bool = False) -> str:
        name = f"t{len(self.constants) + len(self.inputs)}"
        if given:
            self.inputs[name] = value
        else:
            self.constants.append(numpy_helper.from_array(value, name))
        return name

    def normal(self, *shape: int) -> np.ndarray:
        return self.rng.standard_normal(shape).astype(np.float32)

    def add(
        self,
        op: str,
        *,
        bias: bool = True,
        lengths: Sequence[int] = (),
        initial: bool = False,
        peepholes: bool = False,
        given: bool = False,
        outputs: str = "Yhc",
        shape: tuple[int, int] = (STEPS, BATCH),
        **attrs: Any,
    ) -> None:
        """A node on a new input; what is `given` reaches the model at run time."""
        ways = 2 if attrs.get("direction") == "bidirectional" else 1
        rows, states = GATES[op] * HIDDEN, 2 if op == "LSTM" else 1
        steps, batch = shape
        batch_first = attrs.get("layout", 0)
        sizes = (batch, steps) if batch_first else (steps, batch)
        state = (batch, ways, HIDDEN) if batch_first else (ways, batch, HIDDEN)
        inputs = [
            self.tensor(self.normal(*sizes, FEATURES), given=True),
            self.tensor(self.normal(ways, rows, FEATURES) / 2, given),
            self.tensor(self.normal(ways, rows, HIDDEN) / 2, given),
            self.tensor(self.normal(ways, 2 * rows), given) if bias else "",
            self.tensor(np.array(lengths, np.int32), given) if lengths else "",
            *(
                self.tensor(self.normal(*state), given=True) if initial else ""
                for _ in range(states)
            ),
        ]
        if peepholes:
            inputs.append(self.tensor(self.normal(ways, 3 * HIDDEN), given))
        number = len(self.nodes)
        made = [f"{kind}{number}" if kind in outputs else "" for kind in "Yhc"[: 1 + states]]
        self.nodes.append(helper.make_node(op, inputs, made, hidden_size=HIDDEN, **attrs))
        self.outputs += [name for name in made if name]

    def model(self) -> onnx.ModelProto:
        types = [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
            )
            for name, value in self.inputs.items()
        ]
        results = [helper.make_tensor_value_info(n, 1, None) for n in self.outputs]
        graph = helper.make_graph(self.nodes, "recurrent", types, results, self.constants)
        imports = [helper.make_opsetid("", 22)]
        return helper.make_model(graph, opset_imports=imports, ir_version=10)


VARIANTS: dict[str, list[dict[str, Any]]] = {
    "LSTM": [
        {},
        {"bias": False, "direction": "reverse"},
        {"initial": True, "direction": "bidirectional"},
        {"peepholes": True, "initial": True},
        {"lengths": [5, 2, 3], "direction": "bidirectional", "initial": True},
        {"lengths": [5, 5, 5]},
        {"given": True, "lengths": [1, 4, 5], "peepholes": True, "direction": "reverse"},
        {"input_forget": 1, "clip": 0.5},
        {"outputs": "c"},
        {"outputs": "hc", "lengths": [2, 1, 4], "direction": "bidirectional"},
        {"shape": (1, 2), "initial": True, "direction": "bidirectional"},
        {"activations": ["HardSigmoid", "Relu", "Softsign"], "activation_alpha": [0.3, 0.0, 0.0]},
    ],
    "GRU": [
        {},
        {"linear_before_reset": 1},
        {"bias": False, "linear_before_reset": 1, "direction": "reverse"},
        {"initial": True, "direction": "bidirectional"},
        {"lengths": [4, 1, 5], "initial": True, "linear_before_reset": 1},
        {"given": True, "direction": "bidirectional", "lengths": [3, 3, 1]},
        {"given": True, "linear_before_reset": 1, "clip": 1.0},
        {"outputs": "h", "shape": (1, 1)},
    ],
    "RNN": [
        {},
        {"initial": True, "direction": "bidirectional", "activations": ["Relu", "Tanh"]},
        {"bias": False, "lengths": [5, 4, 2], "direction": "reverse", "outputs": "h"},
        {"given": True, "clip": 0.3, "activations": ["Sigmoid"]},
        {"activations": ["LeakyRelu"], "activation_alpha": [0.2]},
    ],
}


Results = dict[str, np.ndarray]


def compiled_and_run(model: onnx.ModelProto, inputs: Results) -> tuple[Results, Results]:
    """What the model computes when compiled, and by ONNX Runtime."""
    names = [output.name for output in model.graph.output]
    expected = dict(zip(names, oracle.run(model, inputs), strict=True))
    actual = edgec.compile(model).run(inputs)
    assert actual.keys() == expected.keys()
    return actual, expected


def same(actual: np.ndarray, expected: np.ndarray, name: str) -> None:
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=2e-6, err_msg=name)


def test_variants() -> None:
    net = Net()
    for op, variants in VARIANTS.items():
        for variant in variants:
            net.add(op, **variant)
    actual, expected = compiled_and_run(net.model(), net.inputs)
    for name, value in expected.items():
        same(actual[name], value, name)


@pytest.mark.parametrize("op", list(GATES))
def test_a_layer_is_one_loop(op: str) -> None:
    net = Net()
    net.add(op, outputs="Y", shape=(50, 1))
    program = lower_graph(load(net.model()), "net", [], host()).program
    loops = [step for step in program.steps if isinstance(step, Repeat)]
    assert [loop.times for loop in loops] == [50]
    assert len(program.steps) <= 5
    assert all(isinstance(step, Call) for step in loops[0].body)


def test_a_single_step_needs_no_loop() -> None:
    net = Net()
    net.add("LSTM", shape=(1, 1))
    program = lower_graph(load(net.model()), "net", [], host()).program
    assert not any(isinstance(step, Repeat) for step in program.steps)


@pytest.mark.parametrize(
    ("attrs", "why"),
    [
        ({"activations": ["Nonsense"]}, "there is no activation 'Nonsense'"),
        ({"activations": ["Tanh", "Tanh"]}, "2 activations are given"),
    ],
)
def test_what_is_refused(attrs: dict[str, Any], why: str) -> None:
    net = Net()
    net.add("RNN", **attrs)
    assert [each.why for each in unsupported(load(net.model()))] == [why]
    with pytest.raises(LoweringError, match="RNN"):
        edgec.compile(net.model())
