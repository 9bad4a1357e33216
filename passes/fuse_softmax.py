"""Fuse the softmax that exporters write out.

    e = Exp(x - ReduceMax(x, axis)); e / ReduceSum(e, axis)     =>   Softmax <axis> (x)
    e = Exp(x); e / ReduceSum(e, axis)                          =>   Softmax <axis> (x)

The second only with `unshifted`: Softmax stays finite where Exp overflows, so results change from
NaN to numbers.

*Needs* one constant axis, kept, the same in both reductions, and intermediate results that nothing
else uses.

*Numerics*: rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_graphsurgeon as gs

from edgec.graph import Graph
from edgec.patterns import check_private, check_same_shape, maker, reduced_axes, substitute
from edgec.rewrite import Numerics, Rewrite, Skip
from edgec.tensors import Node


@dataclass(frozen=True)
class FuseSoftmax(Rewrite):
    unshifted: bool = False

    name: ClassVar[str] = "fuse-softmax"
    numerics: ClassVar[Numerics] = "rounding"
    roots: ClassVar[tuple[str, ...]] = ("Div",)

    def rewrite(self, node: Node, graph: Graph) -> None:
        exp = maker(graph, node.inputs[0], "Exp")
        total = maker(graph, node.inputs[1], "ReduceSum")
        if exp is None or total is None or total.inputs[0] is not exp.outputs[0]:
            raise Skip("it does not divide an exponential by its sum")
        axes = reduced_axes(total)
        if len(axes) != 1:
            raise Skip(f"the sum is over {len(axes)} axes")
        x, inside = self._argument(exp, axes, graph)
        check_same_shape(node.outputs[0], x)
        check_private(graph, [exp, total, *inside], node)
        substitute(graph, node, "Softmax", [x], {"axis": axes[0]})

    def _argument(
        self, exp: Node, axes: tuple[int, ...], graph: Graph
    ) -> tuple[gs.Tensor, list[Node]]:
        """What the softmax is of, and the nodes that take its maximum away."""
        shifted = maker(graph, exp.inputs[0], "Sub")
        top = maker(graph, shifted.inputs[1], "ReduceMax") if shifted else None
        if shifted is not None and top is not None and top.inputs[0] is shifted.inputs[0]:
            if reduced_axes(top) != axes:
                raise Skip("the maximum is over other axes than the sum")
            return shifted.inputs[0], [shifted, top]
        if not self.unshifted:
            raise Skip("the maximum is not taken away first, so that Exp may overflow")
        return exp.inputs[0], []
