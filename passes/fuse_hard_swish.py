"""Fuse the hard swish that exporters write out.

    x * HardSigmoid <alpha = 1/6, beta = 1/2> (x)     =>   HardSwish(x)
    x * Clip(x + 3, 0, 6) / 6                         =>   HardSwish(x)

in any order and grouping of the factors.

*Needs* opset 14, and intermediate results that nothing else uses.

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
    complete_product,
    is_near,
    maker,
    scalar,
    split_scalar,
    substitute,
)
from edgec.rewrite import Numerics, Rewrite, Skip
from edgec.tensors import Node

_ALPHA, _BETA = 0.2, 0.5


@dataclass(frozen=True)
class FuseHardSwish(Rewrite):
    name: ClassVar[str] = "fuse-hard-swish"
    numerics: ClassVar[Numerics] = "rounding"
    roots: ClassVar[tuple[str, ...]] = ("HardSigmoid", "Clip")

    def rewrite(self, node: Node, graph: Graph) -> None:
        check_opset("HardSwish", graph)
        if node.op == "HardSigmoid":
            x, number, inside = _of_sigmoid(node), 1.0, [node]
        else:
            x, plus = _of_clip(node, graph)
            number, inside = 1 / 6, [node, plus]
        last, nodes = complete_product(graph, node, number, x)
        check_same_shape(last.outputs[0], x)
        check_private(graph, {*inside, *nodes}, last)
        substitute(graph, last, "HardSwish", [x])


def _of_sigmoid(node: Node) -> gs.Tensor:
    if not is_near(node.attrs.get("alpha", _ALPHA), 1 / 6):
        raise Skip("alpha is not 1/6")
    if not is_near(node.attrs.get("beta", _BETA), 0.5):
        raise Skip("beta is not 1/2")
    return node.inputs[0]


def _of_clip(node: Node, graph: Graph) -> tuple[gs.Tensor, Node]:
    if [scalar(t) for t in node.inputs[1:]] != [0, 6]:
        raise Skip("it does not clip to 0 and 6")
    plus = maker(graph, node.inputs[0], "Add")
    split = split_scalar(plus) if plus else None
    if plus is None or split is None or split[1] != 3:
        raise Skip("3 is not added before it")
    return split[0], plus
