"""Fuse the L2 normalisation that exporters write out.

    x / Max(ReduceL2(x, axis), epsilon)     =>   LpNormalization <axis, p = 2> (x)

The maximum may be a Clip from below, and may be expanded to the shape of x.

*Needs* one constant axis, kept, a positive `epsilon` of at most 1e-6, and intermediate results that
nothing else uses. Without the maximum the quotient of zeros is NaN, of LpNormalization zero.

*Numerics*: approximate. A vector shorter than epsilon comes out with length 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_graphsurgeon as gs

from edgec.graph import Graph
from edgec.patterns import (
    check_private,
    check_same_shape,
    maker,
    reduced_axes,
    scalar,
    split_scalar,
    substitute,
)
from edgec.rewrite import Numerics, Rewrite, Skip
from edgec.tensors import Node

_LARGEST_EPSILON = 1e-6


@dataclass(frozen=True)
class FuseL2Norm(Rewrite):
    name: ClassVar[str] = "fuse-l2-norm"
    numerics: ClassVar[Numerics] = "approximate"
    roots: ClassVar[tuple[str, ...]] = ("Div",)

    def rewrite(self, node: Node, graph: Graph) -> None:
        x, divisor = node.inputs
        expand = maker(graph, divisor, "Expand")
        bounded = maker(graph, expand.inputs[0] if expand else divisor, "Clip", "Max")
        if bounded is None:
            raise Skip("the divisor has no least value")
        length, epsilon = _bound(bounded)
        if not 0 < epsilon <= _LARGEST_EPSILON:
            raise Skip(f"the least divisor is {epsilon:g}")
        norm = maker(graph, length, "ReduceL2")
        if norm is None or norm.inputs[0] is not x:
            raise Skip("it does not divide by the length of its own input")
        axes = reduced_axes(norm)
        if len(axes) != 1:
            raise Skip(f"the length is over {len(axes)} axes")
        check_same_shape(node.outputs[0], x)
        check_private(graph, [norm, bounded, *([expand] if expand else [])], node)
        substitute(graph, node, "LpNormalization", [x], {"axis": axes[0], "p": 2})


def _bound(node: Node) -> tuple[gs.Tensor, float]:
    """What is bounded from below, and by what."""
    if node.op == "Max":
        split = split_scalar(node) if len(node.inputs) == 2 else None
        if split is None:
            raise Skip("the divisor has no constant least value")
        return split
    least = scalar(node.inputs[1]) if len(node.inputs) > 1 else None
    if least is None:
        raise Skip("the divisor has no constant least value")
    if len(node.inputs) > 2 and node.inputs[2].name:
        raise Skip("the divisor has a greatest value")
    return node.inputs[0], least
