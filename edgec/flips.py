"""Outputs that depend on a dynamic quantization of computed numbers.

A computed number near the middle between two codes may go to either, whatever its last bit was
rounded to, and one code is far more than a float's rounding. ONNX Runtime's own optimisations flip
as many: what they do to such an output is all that an error can be held against.
"""

from __future__ import annotations

import onnx


def find_flips(model: onnx.ModelProto) -> frozenset[str]:
    """The names of such outputs of `model`."""
    made = {name for node in model.graph.node for name in node.output}
    flipped: set[str] = set()
    for node in model.graph.node:
        starts = node.op_type == "DynamicQuantizeLinear" and node.input[0] in made
        if starts or not flipped.isdisjoint(node.input):
            flipped.update(name for name in node.output if name)
    return frozenset(flipped & {output.name for output in model.graph.output})
