"""Compute the DequantizeLinear of a constant where the arithmetic behind it is in floats anyway.

    y = Conv(x, DequantizeLinear(c, s, z))   =>   y = Conv(x, w)

*Needs* constants, and no reader that belongs to a quantized pattern, which integer kernels are made
from: one with an input that is dequantized from a computed tensor, or whose result is quantized.
Large weights of products stay: their kernels read them as they are stored.
All constants together may grow by `budget` bytes beyond what the model came with.

*Numerics*: exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from edgec.graph import Graph
from edgec.patterns import check_no_weight
from edgec.rewrite import Numerics, Pass, Skip
from edgec.tensors import Constant, Node

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class FoldQuantizedConstants(Pass):
    budget: int = 32 << 20

    name: ClassVar[str] = "fold-quantized-constants"
    numerics: ClassVar[Numerics] = "exact"

    def run(self, graph: Graph) -> Iterator[Node | tuple[Node, Skip]]:
        room = graph.source_bytes + self.budget - graph.constant_bytes()
        for node in list(graph.nodes()):
            if node.op != "DequantizeLinear" or node.domain or not node.outputs:
                continue
            try:
                room -= _guard(node, graph, room)
            except Skip as skip:
                yield node, skip
                continue
            result = node.outputs[0]
            graph.replace(result, graph.constant(_dequantize(node), result.name))
            yield node


def _guard(node: Node, graph: Graph, room: int) -> int:
    """Bytes by which the constants grow. Raises Skip."""
    if not all(isinstance(t, Constant) for t in node.inputs if t.name):
        raise Skip("the input is computed")
    result = node.outputs[0]
    if graph.is_output(result):
        raise Skip("the result is a graph output")
    if any(_is_quantized(reader, graph) for reader in graph.consumers(result)):
        raise Skip("a reader is part of a quantized pattern")
    quantized, scale = node.inputs[:2]
    if scale.dtype != np.float32 or result.dtype not in (None, np.dtype(np.float32)):
        raise Skip("it does not compute in float32")
    if quantized.dtype.kind not in "iu":
        raise Skip(f"{quantized.dtype} is not an integer of whole bytes")
    if node.attrs.get("block_size", 0):
        raise Skip("it is quantized by blocks")
    check_no_weight(graph, result)
    axis = node.attrs.get("axis", 1)
    if scale.values.size > 1 and scale.values.size not in quantized.shape[axis:][:1]:
        raise Skip("the scale does not fit the axis")
    growth = int(4 * quantized.values.size)
    if graph.uses(quantized) == 1:
        growth -= quantized.nbytes
    if growth > room:
        raise Skip(f"the result takes {growth} bytes more, the budget has {max(0, room)} left")
    return growth


def _is_quantized(reader: Node, graph: Graph) -> bool:
    makers = (graph.producer(t) for t in reader.inputs)
    users = (user for t in reader.outputs for user in graph.consumers(t))
    return any(
        maker is not None
        and maker.op == "DequantizeLinear"
        and not isinstance(maker.inputs[0], Constant)
        for maker in makers
    ) or any(user.op == "QuantizeLinear" for user in users)


def _dequantize(node: Node) -> Array:
    quantized, scale, *rest = (t.values for t in node.inputs if t.name)
    shape = [1] * quantized.ndim
    if scale.size > 1:
        shape[node.attrs.get("axis", 1)] = scale.size
    zero = rest[0].astype(np.int64).reshape(shape) if rest else 0
    steps = (quantized.astype(np.int64) - zero).astype(np.float32)
    return np.asarray(steps * scale.reshape(shape))
