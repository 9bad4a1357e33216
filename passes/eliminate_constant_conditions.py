"""Take the branch that a constant condition chooses.

    y = If(true) then { y = f(x) } else { y = g(x) }    =>   y = f(x)
    y = Where(c, a, b), c all true                      =>   y = a     (b where c is all false)

*Needs* a constant condition; for Where, a chosen side of the result's static shape. A graph output
keeps its name, so it must not become a graph input or constant. Range reads a tensor of one element
only while its rank is hidden by the If.

*Numerics*: exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_graphsurgeon as gs

from edgec.graph import Graph
from edgec.rewrite import Numerics, Rewrite, Skip
from edgec.tensors import Constant, Node, is_static


@dataclass(frozen=True)
class EliminateConstantConditions(Rewrite):
    name: ClassVar[str] = "eliminate-constant-conditions"
    numerics: ClassVar[Numerics] = "exact"
    roots: ClassVar[tuple[str, ...]] = ("If", "Where")

    def rewrite(self, node: Node, graph: Graph) -> None:
        condition = node.inputs[0]
        if not isinstance(condition, Constant):
            raise Skip("the condition is not constant")
        if node.op == "If":
            branch = "then_branch" if condition.values.all() else "else_branch"
            _inline(node, graph, node.attrs[branch])
        else:
            _choose(node, graph, condition)


def _inline(node: Node, graph: Graph, body: gs.Graph) -> None:
    made = {tensor for inner in body.nodes for tensor in inner.outputs}
    for i, (old, new) in enumerate(zip(node.outputs, body.outputs, strict=True)):
        if new.shape and any(reader.op == "Range" for reader in graph.consumers(old)):
            raise Skip("Range needs a scalar, which the branch does not give")
        if not graph.is_output(old):
            continue
        if new not in made:
            raise Skip("a graph output would come from outside the branch")
        if new in body.outputs[:i]:
            raise Skip("a branch gives the same tensor twice")
    outputs = graph.inline(node, body)
    for old, new in zip(list(node.outputs), outputs, strict=True):
        graph.replace(old, new)


def _choose(node: Node, graph: Graph, condition: Constant) -> None:
    chosen = condition.values
    if chosen.size == 0 or chosen.any() != chosen.all():
        raise Skip("the condition chooses of both sides")
    source, result = node.inputs[1 if chosen.all() else 2], node.outputs[0]
    if not (is_static(source) and is_static(result)):
        raise Skip("the shapes are not static")
    if source.shape != result.shape:
        raise Skip("the shape changes")
    why = graph.why_not_replace(result, source)
    if why:
        raise Skip(why)
    graph.replace(result, source)
