"""Operators that move and choose elements, on the integers that they are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgec.program import Tensor
from edgec.qdq.meaning import meaning_of
from edgec.reference import reference
from integer.contract import Array, Scaled
from integer.models import Model
from integer.running import all_outputs

BY = Scaled(0.0371, 255)
"""Nothing above 0 is held."""
SHAPE = (1, 8, 4, 6)

MOVES: list[tuple[str, list[Any], Mapping[str, Any]]] = [
    ("Transpose", [], {"perm": [0, 2, 3, 1]}),
    ("Reshape", [[1, 4, -1]], {}),
    ("Flatten", [], {}),
    ("Unsqueeze", [[0]], {}),
    ("Squeeze", [[0]], {}),
    ("Slice", [[1], [7], [1], [2]], {}),
    ("Split", [], {"axis": 1, "num_outputs": 1}),
    ("Gather", [[3, 0, 0]], {"axis": 2}),
    ("GatherElements", [np.full((1, 8, 4, 2), 5)], {"axis": 3}),
    ("GatherND", [[[0, 2], [0, 7]]], {}),
    ("Expand", [[3, 8, 4, 6]], {}),
    ("Tile", [[1, 1, 2, 1]], {}),
    ("DepthToSpace", [], {"blocksize": 2}),
    ("DepthToSpace", [], {"blocksize": 2, "mode": "CRD"}),
    ("SpaceToDepth", [], {"blocksize": 2}),
    ("MaxPool", [], {"kernel_shape": [2, 2]}),
    ("ReduceMax", [[2, 3]], {}),
    ("ReduceMin", [[1]], {"keepdims": 0}),
    ("Pad", [[0, 0, 1, 2, 0, 0, 0, 3]], {}),
    ("Pad", [[0, 0, 1, 2, 0, 0, 0, 3]], {"mode": "reflect"}),
    ("Pad", [[0, 0, 1, 2, 0, 0, 0, 3]], {"mode": "edge"}),
    ("Pad", [[0, 0, 1, 2, 0, 0, 0, -3], np.float32(-np.inf)], {}),
    ("Concat", ["x"], {"axis": 2}),
    ("Max", ["x"], {}),
    ("Where", [np.float32(-1e9)], {}),
]


def moved(model: Model, x: str) -> list[str]:
    """The results of all of them in `model`, each quantized again."""
    made = []
    for op, others, attributes in MOVES:
        others = [
            x if isinstance(v, str)
            else model.constant(v, "float32" if isinstance(v, np.floating) else "int64")
            for v in others
        ]  # fmt: skip
        if op == "Where":
            chosen = np.arange(SHAPE[-1]) % 2 == 0
            inputs = [model.constant(chosen, "bool"), x, *others]
        else:
            inputs = [x, *others]
        made.append(model.through(model.node(op, *inputs, **attributes), BY))
    return made


def given() -> tuple[onnx.ModelProto, Array, dict[str, Array]]:
    model = Model(SHAPE)
    quantized = model.through("x", BY)
    made = [*moved(model, quantized), model.through(model.node("Neg", quantized), BY)]
    x = (np.random.default_rng(1).standard_normal(SHAPE) * 4).astype(np.float32)
    proto = model.proto(made[0], [], **{name: [] for name in made[1:]})
    for output in proto.graph.output:
        output.type.tensor_type.ClearField("shape")
    return proto, x, reference(proto, {"x": x})


def test_nothing_is_dequantized_to_be_moved() -> None:
    proto, x, expected = given()
    made = meaning_of(proto, [Tensor("x", "float32", SHAPE)])
    quantizing = [node for node in made.graph.node if node.op_type == "QuantizeLinear"]
    assert [node.input[0] for node in quantizing] == ["x"]
    for name, values in reference(made, {"x": x}).items():
        np.testing.assert_array_equal(values, expected[name])


def test_moves(session_cache: Path) -> None:
    proto, x, expected = given()
    made = all_outputs(proto, {"x": x}, "host", session_cache, threads=2)
    for output, values in made.items():
        np.testing.assert_array_equal(values, expected[output])
