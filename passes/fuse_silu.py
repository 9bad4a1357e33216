"""Fuse the activation SiLU, also known as swish, that exporters write out.

    x * Sigmoid(x)           =>   Swish(x)
    x * Sigmoid(a * x)       =>   Swish <alpha = a> (x)

*Needs* a model that can be written at opset 24 (of opset 24 itself, or older where a newer opset is
allowed): ONNX Runtime has Swish there and refuses it at 25. And intermediate results that nothing
else uses.

*Numerics*: rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_graphsurgeon as gs

from edgec.graph import Graph
from edgec.patterns import (
    check_opset,
    check_private,
    check_same_shape,
    first_opset,
    maker,
    other_operand,
    reader,
    split_scalar,
    substitute,
)
from edgec.rewrite import Numerics, Rewrite, Skip
from edgec.tensors import Node


@dataclass(frozen=True)
class FuseSilu(Rewrite):
    name: ClassVar[str] = "fuse-silu"
    numerics: ClassVar[Numerics] = "rounding"
    roots: ClassVar[tuple[str, ...]] = ("Sigmoid",)

    def rewrite(self, node: Node, graph: Graph) -> None:
        check_opset("Swish", graph)
        if graph.source_opset > first_opset("Swish"):
            raise Skip(f"ONNX Runtime refuses Swish at opset {graph.source_opset}")
        last = reader(graph, node.outputs[0], "Mul")
        if last is None:
            raise Skip("the result does not go to Mul alone")
        x = other_operand(last, node.outputs[0])
        alpha, inside = _scale(node, x, graph)
        check_same_shape(last.outputs[0], x)
        check_private(graph, inside, last)
        substitute(graph, last, "Swish", [x], {"alpha": alpha})


def _scale(node: Node, x: gs.Tensor, graph: Graph) -> tuple[float, list[Node]]:
    """By what `x` is multiplied before `node`, and the nodes up to it."""
    if node.inputs[0] is x:
        return 1.0, [node]
    scaling = maker(graph, node.inputs[0], "Mul")
    split = split_scalar(scaling) if scaling else None
    if scaling is None or split is None or split[0] is not x:
        raise Skip("it is not multiplied by its own argument")
    return split[1], [node, scaling]
