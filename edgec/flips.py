"""Outputs that depend on a quantization of computed numbers.

A computed number near the middle between two codes may go to either, whatever its last bit was
rounded to, and one code is far more than a float's rounding. ONNX Runtime's own optimisations flip
as many: what they do to such an output is all that an error can be held against.

Numbers that are the same however they are computed flip nothing: what a model is given, integers,
and what operators of one rounding for each element make of both.
"""

from __future__ import annotations

import onnx

_SAME = frozenset(
    [
        *("Add", "Cast", "Clip", "Concat", "DepthToSpace", "DequantizeLinear", "Div", "Expand"),
        *("Flatten", "Gather", "Identity", "Max", "MaxPool", "Min", "Mul", "Neg", "Pad"),
        *("QuantizeLinear", "Relu", "Reshape", "Slice", "SpaceToDepth", "Split", "Squeeze", "Sub"),
        *("Tile", "Transpose", "Unsqueeze", "Where"),
    ]
)


def find_flips(model: onnx.ModelProto) -> frozenset[str]:
    """The names of such outputs of `model`."""
    made = {name for node in model.graph.node for name in node.output}
    rounded: set[str] = set()
    flipped: set[str] = set()
    for node in model.graph.node:
        data = node.input[0] if node.input else ""
        starts = (node.op_type == "DynamicQuantizeLinear" and data in made) or (
            node.op_type == "QuantizeLinear" and data in rounded
        )
        if starts or not flipped.isdisjoint(node.input):
            flipped.update(name for name in node.output if name)
        if (_rounds(node) or not rounded.isdisjoint(node.input)) and not starts:
            rounded.update(name for name in node.output if name)
    return frozenset(flipped & {output.name for output in model.graph.output})


def _rounds(node: onnx.NodeProto) -> bool:
    """Whether sums, or functions, of floats are in `node`: two ways to compute it may differ."""
    return node.op_type not in _SAME and "Integer" not in node.op_type
