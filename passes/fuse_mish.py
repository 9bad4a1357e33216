"""Fuse the activation Mish that exporters write out.

    x * Tanh(Softplus(x))     =>   Mish(x)

*Needs* opset 18, and intermediate results that nothing else uses.

*Numerics*: rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgec.graph import Graph
from edgec.patterns import (
    check_opset,
    check_private,
    check_same_shape,
    complete_product,
    reader,
    substitute,
)
from edgec.rewrite import Numerics, Rewrite, Skip
from edgec.tensors import Node


@dataclass(frozen=True)
class FuseMish(Rewrite):
    name: ClassVar[str] = "fuse-mish"
    numerics: ClassVar[Numerics] = "rounding"
    roots: ClassVar[tuple[str, ...]] = ("Softplus",)

    def rewrite(self, node: Node, graph: Graph) -> None:
        check_opset("Mish", graph)
        tanh = reader(graph, node.outputs[0], "Tanh")
        if tanh is None:
            raise Skip("the result does not go to Tanh alone")
        x = node.inputs[0]
        last, nodes = complete_product(graph, tanh, 1, x)
        check_same_shape(last.outputs[0], x)
        check_private(graph, {node, tanh, *nodes}, last)
        substitute(graph, last, "Mish", [x])
