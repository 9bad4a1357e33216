"""Remove nodes that no output depends on, and optional outputs that nothing reads.

    y = Relu(x); z = Exp(x)            =>   y = Relu(x)
    y, mask = Dropout(x)               =>   y = Dropout(x)

*Needs* nothing. Graph inputs stay, used or not: their names and order belong to the model.

*Numerics*: exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import onnx

from edgec.graph import Graph
from edgec.rewrite import Numerics, Pass, Skip
from edgec.tensors import Node, Variable


@dataclass(frozen=True)
class EliminateDead(Pass):
    name: ClassVar[str] = "eliminate-dead"
    numerics: ClassVar[Numerics] = "exact"

    def run(self, graph: Graph) -> Iterator[Node | tuple[Node, Skip]]:
        for node in reversed(list(graph.nodes())):
            if not node.outputs:
                continue
            if not any(map(graph.uses, node.outputs)):
                yield from graph.remove(node)
            elif _drop_unread_outputs(node, graph):
                yield node


def _drop_unread_outputs(node: Node, graph: Graph) -> bool:
    unread = [i for i, t in enumerate(node.outputs) if t.name and not graph.uses(t)]
    optional = [i for i in unread if _is_optional(node, i, graph.opset)] if unread else []
    for i in optional:
        node.outputs[i] = Variable("")
    while optional and not node.outputs[-1].name:
        node.outputs.pop()
    return bool(optional)


def _is_optional(node: Node, index: int, opset: int) -> bool:
    try:
        outputs = onnx.defs.get_schema(node.op, opset, node.domain).outputs
    except onnx.defs.SchemaError:
        return False
    return (
        index < len(outputs)
        and outputs[index].option == onnx.defs.OpSchema.FormalParameterOption.Optional
    )
