"""Make one Transpose of two in a row.

    y = Transpose(Transpose(x, p), q)     =>   y = Transpose(x, p[q])

*Needs* a first Transpose that only Transposes read, unless the two cancel.

*Numerics*: exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgec.graph import Graph
from edgec.rewrite import Numerics, Rewrite, Skip
from edgec.tensors import Node


@dataclass(frozen=True)
class MergeTransposes(Rewrite):
    name: ClassVar[str] = "merge-transposes"
    numerics: ClassVar[Numerics] = "exact"
    roots: ClassVar[tuple[str, ...]] = ("Transpose",)

    def rewrite(self, node: Node, graph: Graph) -> None:
        middle = node.inputs[0]
        first = graph.producer(middle)
        if first is None or first.op != "Transpose" or first.domain:
            raise Skip("the input is not made by a Transpose")
        source = first.inputs[0]
        if source.shape is None:
            raise Skip("the rank is not known")
        default = list(reversed(range(len(source.shape))))
        inner, outer = (n.attrs.get("perm", default) for n in (first, node))
        merged = [inner[axis] for axis in outer]
        if merged != sorted(merged):
            if graph.is_output(middle):
                raise Skip("the first result is a graph output")
            if any(user.op != "Transpose" or user.domain for user in graph.consumers(middle)):
                raise Skip("the first result has other uses")
        made = graph.insert(node, "Transpose", [source], {"perm": merged})
        graph.replace(node.outputs[0], made.outputs[0])
