"""How exact ONNX Runtime itself is, where that is less than its values suggest.

Its sigmoid is a rational function with an error relative to 1, not to the result: up to 1.7e-7,
several times the result where that is near 0.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

FLOORS = {"Sigmoid": 2 * float(np.finfo(np.float32).eps)}
"""Absolute errors that say nothing, by the operator that made a value."""

_SAME_VALUES = {
    "Concat",
    "Flatten",
    "Gather",
    "Identity",
    "Reshape",
    "Slice",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
}


def find_floors(model: onnx.ModelProto) -> dict[str, float]:
    """The outputs of `model` made of such values, and the absolute error that says nothing."""
    producers = {name: node for node in model.graph.node for name in node.output if name}
    found = {output.name: _floor(output.name, producers) for output in model.graph.output}
    return {name: floor for name, floor in found.items() if floor}


def _floor(name: str, producers: Mapping[str, onnx.NodeProto]) -> float:
    seen: set[str] = set()
    waiting = [name]
    floor = 0.0
    while waiting:
        node = producers.get(waiting.pop())
        if node is None or node.output[0] in seen:
            continue
        seen.add(node.output[0])
        floor = max(floor, FLOORS.get(node.op_type, 0.0))
        if node.op_type in _SAME_VALUES:
            waiting += node.input if node.op_type == "Concat" else node.input[:1]
    return floor
