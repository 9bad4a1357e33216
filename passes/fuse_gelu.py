"""Fuse the Gaussian error linear unit that exporters write out.

    x * 0.5 * (1 + Erf(x / sqrt(2)))                                 =>   Gelu(x)
    x * 0.5 * (1 + Tanh(sqrt(2 / pi) * (x + 0.044715 * x^3)))        =>   Gelu <"tanh"> (x)

in any order and grouping of the factors; x^3 may be a Pow or products, also written as
x * (1 + 0.044715 * x^2).

*Needs* opset 20, and intermediate results that nothing else uses.

*Numerics*: rounding.
"""

from __future__ import annotations

import math
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
    is_product,
    maker,
    other_operand,
    product,
    reader,
    split_scalar,
    substitute,
)
from edgec.rewrite import Numerics, Rewrite, Skip
from edgec.tensors import Node, Variable

_CUBIC = 0.044715
_MAX_DEPTH = 6


@dataclass(frozen=True)
class FuseGelu(Rewrite):
    name: ClassVar[str] = "fuse-gelu"
    numerics: ClassVar[Numerics] = "rounding"
    roots: ClassVar[tuple[str, ...]] = ("Erf", "Tanh")

    def rewrite(self, node: Node, graph: Graph) -> None:
        check_opset("Gelu", graph)
        plus = reader(graph, node.outputs[0], "Add")
        split = split_scalar(plus) if plus else None
        if plus is None or split is None or split[1] != 1:
            raise Skip("1 is not added to its result")
        x, inside = _argument(node, graph)
        last, nodes = complete_product(graph, plus, 0.5, x)
        check_same_shape(last.outputs[0], x)
        check_private(graph, {node, plus, *inside, *nodes}, last)
        substitute(graph, last, "Gelu", [x], {"approximate": "tanh"} if node.op == "Tanh" else {})


def _argument(node: Node, graph: Graph) -> tuple[gs.Tensor, list[Node]]:
    """What the Gelu is of, and the nodes that make of it what `node` takes."""
    match = _scaled if node.op == "Erf" else _cubic
    for x in _upstream(node.inputs[0], graph):
        nodes = match(node.inputs[0], x, graph)
        if nodes is not None:
            return x, nodes
    raise Skip("its argument is not that of Gelu")


def _upstream(tensor: gs.Tensor, graph: Graph) -> list[gs.Tensor]:
    """What `tensor` is computed from by a few products and sums, the nearest first."""
    found: dict[gs.Tensor, None] = {}
    layer = [tensor]
    for _ in range(_MAX_DEPTH):
        makers = [maker(graph, t, "Add", "Mul", "Div", "Pow") for t in layer]
        layer = [t for node in makers if node for t in node.inputs if isinstance(t, Variable)]
        found.update(dict.fromkeys(layer))
    return list(found)


def _scaled(tensor: gs.Tensor, x: gs.Tensor, graph: Graph) -> list[Node] | None:
    return is_product(graph, tensor, math.sqrt(0.5), x)


def _cubic(tensor: gs.Tensor, x: gs.Tensor, graph: Graph) -> list[Node] | None:
    """The nodes of sqrt(2 / pi) * (x + 0.044715 * x^3), the x also before the brackets."""
    number, factors, nodes = product(graph, tensor, [x])
    outside = factors.pop(x, 0)
    if not is_near(number, math.sqrt(2 / math.pi)) or factors.total() != 1 or outside > 1:
        return None
    plus = maker(graph, next(iter(factors)), "Add")
    if plus is None:
        return None
    if outside:
        split = split_scalar(plus)
        rest = split[0] if split and split[1] == 1 else None
    else:
        rest = other_operand(plus, x)
    if rest is None:
        return None
    powers = is_product(graph, rest, _CUBIC, *[x] * (3 - outside))
    return None if powers is None else [*nodes, plus, *powers]
