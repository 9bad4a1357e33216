"""Fuse a product of matrices with the sum after it.

    Add(MatMul(a, b), c)      =>   Gemm(a, b, c)
    Add(Gemm(a, b), c)        =>   Gemm(a, b, c)

*Needs* matrices of floats, a product that nothing else uses, and a `c` of at most two axes that is
broadcast to the product and not the other way.

*Numerics*: rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_graphsurgeon as gs

from edgec.graph import Graph
from edgec.patterns import check_private, check_same_shape, maker, substitute
from edgec.rewrite import Numerics, Rewrite, Skip
from edgec.tensors import Node


@dataclass(frozen=True)
class FuseMatmulAdd(Rewrite):
    name: ClassVar[str] = "fuse-matmul-add"
    numerics: ClassVar[Numerics] = "rounding"
    roots: ClassVar[tuple[str, ...]] = ("Add",)

    def rewrite(self, node: Node, graph: Graph) -> None:
        why: Skip | None = None
        for summand, other in (node.inputs, node.inputs[::-1]):
            made = maker(graph, summand, "MatMul", "Gemm")
            if made is None:
                continue
            try:
                _guard(made, other, node, graph)
            except Skip as skip:
                why = why or skip
                continue
            attrs = {name: value for name, value in made.attrs.items() if name != "beta"}
            substitute(graph, node, "Gemm", [*made.inputs[:2], other], attrs)
            return
        raise why or Skip("neither side is a product of matrices")


def _guard(made: Node, other: gs.Tensor, node: Node, graph: Graph) -> None:
    if made.op == "Gemm" and len(made.inputs) > 2 and made.inputs[2].name:
        raise Skip("the Gemm has a bias already")
    if other is made.outputs[0]:
        raise Skip("the product is both summands")
    if any(t.shape is None or len(t.shape) != 2 for t in made.inputs[:2]):
        raise Skip("a factor is not a matrix")
    if node.outputs[0].dtype is None or node.outputs[0].dtype.kind != "f":
        raise Skip("the numbers are not floats")
    if other.shape is None or len(other.shape) > 2:
        raise Skip("the other summand has more than two axes, or an unknown number")
    check_same_shape(node.outputs[0], made.outputs[0])
    check_private(graph, [made], node)
