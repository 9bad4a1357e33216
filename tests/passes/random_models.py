"""A hypothesis strategy for small valid models.

Values are drawn forwards: each operator takes tensors that are there and adds its result, so that
results are used many times, or not at all; some become outputs. Magnitudes are kept near 1, and
what compares floats or rounds them is left out: a chain that amplifies rounding proves nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper
from random_builder import Builder, Value
from random_motifs import MOTIFS
from random_operators import OPERATORS

MAX_STEPS = 12
OPSETS = (13, 17, 18, 20, 21, 24)
_KINDS = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "bool": TensorProto.BOOL}


@st.composite
def models(draw: Callable[[Any], Any]) -> onnx.ModelProto:
    """One of up to `MAX_STEPS` operators and motifs, of one or two inputs, of several outputs."""
    b = Builder(draw, draw(st.sampled_from(OPSETS)))
    for _ in range(b.integer(1, 2)):
        shape = b.one_of((1, 2, 4, 4), (2, 3, 4), (3, 4), (4,))
        b.values.append(Value(b.name(), "float32", shape))
    inputs = list(b.values)
    for _ in range(b.integer(4, MAX_STEPS)):
        b.one_of(*(MOTIFS if b.integer(0, 1) else OPERATORS))(b)
    made = [v for v in b.values if v not in inputs]
    read = {name for node in b.nodes for name in node.input}
    outputs = [v for v in made if v.name not in read or b.integer(0, 7) == 0] or made[-1:]
    graph = helper.make_graph(
        [*b.nodes, *(helper.make_node("Identity", [v.name], ["copy"]) for v in inputs[: not made])],
        "random",
        [_info(v) for v in inputs],
        [_info(v) for v in outputs or [Value("copy", "float32", inputs[0].shape)]],
        b.constants,
    )
    opsets = [helper.make_opsetid("", b.opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def _info(value: Value) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(value.name, _KINDS[value.dtype], value.shape)
