"""How sums become quantized elements: the nodes that follow an integer operator.

    q = QuantizeLinear(Clip(Cast(sum) * M), 1, zero)

M is the scale of a sum over that of the result, float32. QuantizeLinear divides by 1, so what is
rounded is one float32 product, half to even; then the zero point is added as an integer. A Relu or
Clip after the operator is a limit of the result's elements, where they have none as narrow anyway.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from edgec.graph import Graph
from edgec.patterns import reader, scalar
from edgec.qdq.operand import UINT8, Parameters, parameters
from edgec.rewrite import Skip
from edgec.tensors import Node, Variable

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Result:
    """Where a pattern ends: the node that makes its result, the parameters of that, None where the
    result is in floats, and the least and the largest float that come through."""

    last: Node
    parameters: Parameters | None
    low: float = -np.inf
    high: float = np.inf


def result(graph: Graph, node: Node) -> Result:
    """What the result of `node` becomes: quantized, behind Relu and Clip, or what it is."""
    low, high, last = -np.inf, np.inf, node
    while (after := reader(graph, last.outputs[0], "Relu", "Clip", "QuantizeLinear")) is not None:
        if after.inputs[0] is not last.outputs[0]:
            break
        if after.op == "QuantizeLinear":
            try:
                found = parameters(after)
            except Skip:
                break
            if found.dtype == UINT8:
                return Result(after, found, low, high)
            break
        limits = _limits(after)
        if limits is None:
            break
        low, high, last = max(low, limits[0]), min(max(high, limits[0]), limits[1]), after
    return Result(node, None)


def _limits(node: Node) -> tuple[float, float] | None:
    if node.op == "Relu":
        return 0.0, np.inf
    found = []
    for position, default in ((1, -np.inf), (2, np.inf)):
        given = len(node.inputs) > position and node.inputs[position].name
        value = scalar(node.inputs[position]) if given else default
        if value is None:
            return None
        found.append(float(value))
    return found[0], found[1]


def integer_limits(end: Result) -> tuple[int, int]:
    """The least and the largest element of a quantized result."""
    assert end.parameters is not None
    scale, zero = np.float32(end.parameters.scale), end.parameters.zero

    def element(value: float) -> int:
        with np.errstate(over="ignore"):
            return int(np.clip(np.rint(np.float32(value) / scale) + zero, 0, 255))

    return element(end.low), element(end.high)


def requantized(graph: Graph, beside: Node, value: gs.Tensor, end: Result) -> gs.Tensor:
    """`value`, float32 in steps of the result's scale, as its uint8 elements."""
    assert end.parameters is not None
    zero, (low, high) = end.parameters.zero, integer_limits(end)
    bounds = []
    if low > 0:
        bounds = [graph.constant(np.array(low - zero, np.float32), "limit")]
    if high < 255:
        bounds = bounds or [Variable("")]
        bounds.append(graph.constant(np.array(high - zero, np.float32), "limit"))
    if bounds:
        value = graph.insert(beside, "Clip", [value, *bounds]).outputs[0]
    made = graph.insert(
        beside,
        "QuantizeLinear",
        [
            value,
            graph.constant(np.array(1, np.float32), "scale"),
            graph.constant(np.array(zero, np.uint8), "zero_point"),
        ],
    ).outputs[0]
    made.dtype = UINT8
    return made


def finished(graph: Graph, beside: Node, sums: gs.Tensor, scale: Array, end: Result) -> gs.Tensor:
    """int32 `sums`, a step of which is worth `scale` (float64, broadcast against them), as what
    `end` asks for: its uint8 elements, or float32."""
    step = scale if end.parameters is None else scale / np.float64(end.parameters.scale)
    value = graph.insert(beside, "Cast", [sums], {"to": TensorProto.FLOAT}).outputs[0]
    factor = graph.constant(step.astype(np.float32), "multiplier")
    value = graph.insert(beside, "Mul", [value, factor]).outputs[0]
    return value if end.parameters is None else requantized(graph, beside, value, end)
