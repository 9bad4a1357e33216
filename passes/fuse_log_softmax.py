"""Fuse the logarithm of a softmax that exporters write out.

    d = x - ReduceMax(x, axis); d - Log(ReduceSum(Exp(d), axis))     =>   LogSoftmax <axis> (x)
    x - ReduceLogSumExp(x, axis)                                     =>   LogSoftmax <axis> (x)

Log(Softmax(x)) is left alone: it is -inf where Softmax rounds to 0, and LogSoftmax is not.

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
class FuseLogSoftmax(Rewrite):
    name: ClassVar[str] = "fuse-log-softmax"
    numerics: ClassVar[Numerics] = "rounding"
    roots: ClassVar[tuple[str, ...]] = ("Sub",)

    def rewrite(self, node: Node, graph: Graph) -> None:
        x, axes, inside = _argument(node, graph)
        if len(axes) != 1:
            raise Skip(f"the sum is over {len(axes)} axes")
        check_same_shape(node.outputs[0], x)
        check_private(graph, inside, node)
        substitute(graph, node, "LogSoftmax", [x], {"axis": axes[0]})


def _argument(node: Node, graph: Graph) -> tuple[gs.Tensor, tuple[int, ...], list[Node]]:
    """What the softmax is of, the axes of its sum, and the nodes before `node`."""
    data, taken = node.inputs
    whole = maker(graph, taken, "ReduceLogSumExp")
    if whole is not None and whole.inputs[0] is data:
        return data, reduced_axes(whole), [whole]
    log = maker(graph, taken, "Log")
    total = maker(graph, log.inputs[0], "ReduceSum") if log else None
    exp = maker(graph, total.inputs[0], "Exp") if total else None
    if log is None or total is None or exp is None or exp.inputs[0] is not data:
        raise Skip("it does not take away the logarithm of a sum of exponentials")
    shifted = maker(graph, data, "Sub")
    top = maker(graph, shifted.inputs[1], "ReduceMax") if shifted else None
    if shifted is None or top is None or top.inputs[0] is not shifted.inputs[0]:
        raise Skip("the maximum is not taken away first, so that Exp may overflow")
    if reduced_axes(top) != reduced_axes(total):
        raise Skip("the maximum is over other axes than the sum")
    return shifted.inputs[0], reduced_axes(total), [log, total, exp, shifted, top]
