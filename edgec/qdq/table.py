"""Functions of one quantized tensor, as tables of what each of its 256 elements becomes.

The tensors between a DequantizeLinear and a QuantizeLinear are computed in float64, for each byte:
whatever they are made of, the result is one rounding away from the exact function.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from edgec.graph import Graph
from edgec.patterns import check_same_shape, maker, scalar
from edgec.qdq.functions import FUNCTIONS
from edgec.qdq.operand import UINT8, Activation, activation, parameters
from edgec.rewrite import Skip
from edgec.tensors import Node

Array = np.ndarray[Any, Any]

MOST_NODES = 32
"""Of a function that is looked through."""


@dataclass(frozen=True, eq=False)
class Table:
    """Where the uint8 elements of `x` lead: uint8 [256]."""

    x: gs.Tensor
    values: Array


def table(graph: Graph, end: Node) -> Table:
    """What the QuantizeLinear `end` makes of one tensor. Skips where it depends on others."""
    search = _Search(graph)
    numbers = search.numbers(end.inputs[0])
    if search.x is None or not search.nodes:
        raise Skip("it is no function of a quantized tensor")
    found = parameters(end)
    if found.dtype != UINT8:
        raise Skip("its result has a sign")
    check_same_shape(search.x.tensor, end.inputs[0])
    if np.isnan(numbers).any():
        raise Skip("it is not a number everywhere")
    elements = np.rint(numbers / np.float64(found.scale)) + found.zero
    return Table(search.x.tensor, np.clip(elements, 0, 255).astype(np.uint8))


class _Search:
    """From a tensor back to the one that it is computed of."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.x: Activation | None = None
        self.nodes = 0
        self._known: dict[gs.Tensor, Array] = {}

    def numbers(self, tensor: gs.Tensor) -> Array:
        """float64 [256], or a scalar: what `tensor` is for each byte."""
        if tensor not in self._known:
            with np.errstate(all="ignore"):
                self._known[tensor] = self._numbers(tensor)
        return self._known[tensor]

    def _numbers(self, tensor: gs.Tensor) -> Array:
        value = scalar(tensor)
        if value is not None:
            return np.array(value, np.float64)
        if maker(self.graph, tensor, "DequantizeLinear") is not None:
            return self._dequantized(activation(self.graph, tensor))
        node = maker(self.graph, tensor, *FUNCTIONS)
        if node is None or self.nodes >= MOST_NODES:
            raise Skip("it is no function of a quantized tensor")
        self.nodes += 1
        operands = [self.numbers(t) if t.name else None for t in node.inputs]
        if node.op == "Clip" and {"min", "max"} & node.attrs.keys():
            raise Skip("its limits are attributes")
        return FUNCTIONS[node.op](node.attrs, *operands)

    def _dequantized(self, x: Activation) -> Array:
        if self.x is None:
            self.x = x
        if x != self.x:
            raise Skip("it depends on several tensors")
        return (np.arange(256) - x.zero) * np.float64(x.scale)
