"""Quantize activations to uint8 where they were to be int8: the same numbers, 128 higher.

    x = DequantizeLinear(QuantizeLinear(f, s, z), s, z), z in int8
      =>   x = DequantizeLinear(QuantizeLinear(f, s, z + 128), s, z + 128), z + 128 in uint8

x86 multiplies bytes without a sign by bytes with one, in one instruction.

Where something else makes the int8 tensor, or reads it too, 128 is added to what it holds.

*Needs* one constant scale.

*Numerics*: exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from onnx import TensorProto

from edgec.graph import Graph
from edgec.patterns import maker
from edgec.qdq.operand import INT8, UINT8, Parameters, parameters
from edgec.rewrite import Numerics, Pass, Skip
from edgec.tensors import Constant, Node


@dataclass(frozen=True)
class UnsignActivations(Pass):
    name: ClassVar[str] = "unsign-activations"
    numerics: ClassVar[Numerics] = "exact"

    def run(self, graph: Graph) -> Iterator[Node | tuple[Node, Skip]]:
        for node in list(graph.nodes()):
            if node.op != "DequantizeLinear" or not node.outputs or node.domain:
                continue
            if isinstance(node.inputs[0], Constant) or node.inputs[0].dtype != INT8:
                continue
            try:
                readers = _readers(graph, node)
            except Skip as skip:
                yield node, skip
                continue
            _convert(graph, node, readers)
            yield node


def _readers(graph: Graph, node: Node) -> list[Node]:
    """All DequantizeLinear nodes of the tensor that `node` reads."""
    parameters(node)
    readers = [
        each
        for each in graph.consumers(node.inputs[0])
        if each.op == "DequantizeLinear" and each.inputs[0] is node.inputs[0]
    ]
    for reader in readers:
        parameters(reader)
    return readers


def _convert(graph: Graph, node: Node, readers: list[Node]) -> None:
    tensor = node.inputs[0]
    made = maker(graph, tensor, "QuantizeLinear")
    if made is not None and len(readers) == graph.uses(tensor):
        inputs = [*made.inputs[:2], _moved(graph, parameters(made))]
        attrs = {k: v for k, v in made.attrs.items() if k != "output_dtype"}
        raised = graph.insert(made, "QuantizeLinear", inputs, attrs).outputs[0]
    else:
        wide = graph.insert(node, "Cast", [tensor], {"to": TensorProto.INT32}).outputs[0]
        step = graph.constant(np.array(128, np.int32), "offset")
        higher = graph.insert(node, "Add", [wide, step]).outputs[0]
        raised = graph.insert(node, "Cast", [higher], {"to": TensorProto.UINT8}).outputs[0]
    raised.dtype, raised.shape = UINT8, tensor.shape
    for reader in readers:
        inputs = [raised, reader.inputs[1], _moved(graph, parameters(reader))]
        changed = graph.insert(reader, "DequantizeLinear", inputs, reader.attrs).outputs[0]
        graph.replace(reader.outputs[0], changed)


def _moved(graph: Graph, found: Parameters) -> Constant:
    return graph.constant(np.array(found.zero + 128, np.uint8), "zero_point")
