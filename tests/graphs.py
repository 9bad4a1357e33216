"""Models as ONNX's text, for tests of graphs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx.parser
from onnx import TensorProto, helper

HEADER = '<ir_version: 10, opset_import: ["" : 21]>\n'


def parse(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(text if text.startswith("<") else HEADER + text)


def text_model(text: str, opset: int = 17) -> onnx.ModelProto:
    header = f'<ir_version: 8, opset_import: ["" : {opset}]>\n'
    return onnx.parser.parse_model(header + text)


def model_of(text: str, opset: int = 21) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}]> m {text}')


def ops(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def assert_same(a: list[Any], b: list[Any]) -> None:
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


SMALL = """g (float[N,3] x) => (float[N,3] y) <float[3] w = {1.0, 2.0, 3.0}> {
  [first] a = Add(x, w)
  [second] y = Relu(a)
}"""

OPSET_CASES: Sequence[tuple[str, int, str]] = [
    ("softmax", 11, "g (float[2,3,4] x) => (float[2,3,4] y) { y = Softmax(x) }"),
    (
        "logsoftmax",
        11,
        "g (float[2,3,4] x) => (float[2,3,4] y) { y = LogSoftmax <axis=0> (x) }",
    ),
    ("squeeze", 11, "g (float[2,1,4] x) => (float[2,4] y) { y = Squeeze <axes=[1]> (x) }"),
    (
        "reduce",
        11,
        "g (float[2,3] x) => (float[2] y) { y = ReduceSum <axes=[1], keepdims=0> (x) }",
    ),
    (
        "mean",
        13,
        "g (float[2,3] x) => (float[2] y) { y = ReduceMean <axes=[1], keepdims=0> (x) }",
    ),
    ("clip", 9, "g (float[2,3] x) => (float[2,3] y) { y = Clip <min=-1.0, max=1.0> (x) }"),
    ("pad", 9, "g (float[2,3] x) => (float[2,5] y) { y = Pad <pads=[0,1,0,1]> (x) }"),
    (
        "slice",
        9,
        "g (float[2,3] x) => (float[2,2] y) { y = Slice <axes=[1], starts=[1], ends=[9]> (x) }",
    ),
    ("topk", 9, "g (float[2,3] x) => (float[2,2] y, int64[2,2] i) { y, i = TopK <k=2> (x) }"),
    ("dropout", 9, "g (float[2,3] x) => (float[2,3] y) { y = Dropout(x) }"),
    (
        "upsample",
        9,
        "g (float[1,1,2,3] x) => (float[1,1,4,6] y) "
        '<float[4] s = {1.0, 1.0, 2.0, 2.0}> { y = Upsample <mode="nearest"> (x, s) }',
    ),
    (
        "upsample_linear",
        9,
        "g (float[1,1,2,3] x) => (float[1,1,4,6] y) "
        '<float[4] s = {1.0, 1.0, 2.0, 2.0}> { y = Upsample <mode="linear"> (x, s) }',
    ),
    (
        "resize_down",
        10,
        "g (float[1,1,2,7] x) => (float[1,1,2,3] y) "
        "<float[4] s = {1.0, 1.0, 1.0, 0.5}> { y = Resize(x, s) }",
    ),
    (
        "resize_up",
        10,
        "g (float[1,1,2,3] x) => (float[1,1,2,7] y) "
        "<float[4] s = {1.0, 1.0, 1.0, 2.5}> { y = Resize(x, s) }",
    ),
    (
        "resize",
        10,
        "g (float[1,1,2,3] x) => (float[1,1,4,6] y) "
        '<float[4] s = {1.0, 1.0, 2.0, 2.0}> { y = Resize <mode="linear"> (x, s) }',
    ),
    (
        "split",
        11,
        "g (float[4] x) => (float[1] y, float[3] z) { y, z = Split <split=[1,3]> (x) }",
    ),
    (
        "batchnorm",
        9,
        "g (float[1,2,3] x) => (float[1,2,3] y) <float[2] s = {1.0, 2.0}> "
        "{ y = BatchNormalization(x, s, s, s, s) }",
    ),
]
"""Names, opsets, and models of that opset that say what the newest says otherwise."""


def function_chain(depth: int, calls: int = 1) -> onnx.ModelProto:
    """A chain of functions, each calling the next `calls` times in a row."""
    opset = [helper.make_opsetid("", 21), helper.make_opsetid("f", 1)]
    functions = []
    for i in range(depth):
        last = i == depth - 1
        nodes = [
            helper.make_node(
                "Relu" if last else f"F{i + 1}",
                ["x" if c == 0 else f"t{c - 1}"],
                ["y" if c == calls - 1 else f"t{c}"],
                domain="" if last else "f",
            )
            for c in range(calls)
        ]
        functions.append(helper.make_function("f", f"F{i}", ["x"], ["y"], nodes, opset))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    graph = helper.make_graph([helper.make_node("F0", ["x"], ["y"], domain="f")], "g", [x], [y])
    return helper.make_model(graph, opset_imports=opset, functions=functions, ir_version=10)
