"""If: the branch that is taken, or both and a choice where that is known at run time only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_graphsurgeon as gs
from tvm import relax

from edgec.lower.context import Refused, select

if TYPE_CHECKING:
    from edgec.lower.convert import Walk


def branch(walk: Walk, node: gs.Node, name: str, depth: int) -> list[relax.Expr]:
    """The results of the node; values of the branch that are known now stay so."""
    ctx = walk.ctx
    condition = ctx.constant(node, 0)
    if condition is not None:
        taken = node.attrs["then_branch" if condition.item() else "else_branch"]
        made = _results(walk, taken, name, depth)
        for outer, inner in zip(node.outputs, taken.outputs, strict=True):
            if inner.name in ctx.values:
                ctx.values[outer.name] = ctx.values[inner.name]
        return made
    sides = [_results(walk, node.attrs[f"{k}_branch"], name, depth) for k in ("then", "else")]
    ctx.enter(node, name)
    flag = ctx.reshape(walk.tensor(node.inputs[0]), ())
    if any(ctx.shape(yes) != ctx.shape(no) for yes, no in zip(*sides, strict=True)):
        raise Refused("its branches give different shapes")
    return [ctx.map("choose", select, flag, yes, no) for yes, no in zip(*sides, strict=True)]


def _results(walk: Walk, graph: gs.Graph, name: str, depth: int) -> list[relax.Expr]:
    walk.nodes(graph.nodes, name, depth + 1)
    return [walk.tensor(tensor) for tensor in graph.outputs]
