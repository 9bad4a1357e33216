"""Look functions of single quantized elements up in tables.

    y = QuantizeLinear(Sigmoid(DequantizeLinear(x, s, z)), t, w)   =>   y = Gather(table, Cast(x))

    a = DequantizeLinear(x, s, z)
    y = QuantizeLinear(Mul(a, Sigmoid(a)), t, w)   =>   y = Gather(table, Cast(x))

So all operators that compute element by element, however many of them, where all of it depends on
one uint8 tensor and on constant numbers. The table is made here, in float64.

*Needs* uint8 tensors of one constant scale each (`unsign-activations` sees to that).

*Numerics*: rounding. The table has the nearest element to the exact value of the function.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from onnx import TensorProto

from edgec.graph import Graph
from edgec.qdq.operand import UINT8
from edgec.qdq.table import table
from edgec.rewrite import Numerics, Pass, Skip
from edgec.tensors import Node


@dataclass(frozen=True)
class ConvertFunctionsToTables(Pass):
    name: ClassVar[str] = "convert-functions-to-tables"
    numerics: ClassVar[Numerics] = "rounding"

    def run(self, graph: Graph) -> Iterator[Node | tuple[Node, Skip]]:
        for node in list(graph.nodes()):
            if node.op != "QuantizeLinear" or node.domain or not node.outputs:
                continue
            try:
                found = table(graph, node)
            except Skip as skip:
                yield node, skip
                continue
            values = graph.constant(found.values, "table")
            place = graph.insert(node, "Cast", [found.x], {"to": TensorProto.INT32}).outputs[0]
            made = graph.insert(node, "Gather", [values, place]).outputs[0]
            made.dtype, made.shape = UINT8, node.outputs[0].shape
            graph.replace(node.outputs[0], made)
            yield node
