"""What layer and root-mean-square normalisation have in common, as exporters write it out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from edgec.graph import Graph
from edgec.patterns import maker, other_operand, reader, reduced_axes, scalar, split_scalar
from edgec.rewrite import Skip
from edgec.tensors import Constant, Node


@dataclass(frozen=True)
class Normalized:
    """`data` over the root of the mean of its squares plus `epsilon`.

    The mean is over `axes`, the last ones, of lengths `shape`; `last` makes the result, and `nodes`
    are those before it.
    """

    data: gs.Tensor
    axes: tuple[int, ...]
    shape: tuple[int, ...]
    epsilon: float
    nodes: list[Node]
    last: Node


def find_normalized(root: Node, graph: Graph) -> Normalized:
    """What the Sqrt `root` is part of. Skips where that is no normalisation."""
    plus = maker(graph, root.inputs[0], "Add")
    split = split_scalar(plus) if plus else None
    if plus is None or split is None:
        raise Skip("it is not the root of a sum with a constant")
    mean = maker(graph, split[0], "ReduceMean")
    square = maker(graph, mean.inputs[0], "Pow", "Mul") if mean else None
    if mean is None or square is None or not _is_square(square):
        raise Skip("it is not the root of a mean of squares")
    data, axes = square.inputs[0], reduced_axes(mean)
    rank = len(data.shape)
    if axes != tuple(range(rank - len(axes), rank)):
        raise Skip("the mean is not over the last axes")
    shape = tuple(data.shape[axes[0] :])
    if not all(isinstance(length, int) for length in shape):
        raise Skip("the lengths of the last axes are not known")
    between, last = _division(root, data, graph)
    nodes = [root, plus, mean, square, *between]
    return Normalized(data, axes, shape, split[1], nodes, last)


def _is_square(node: Node) -> bool:
    if node.op == "Pow":
        return scalar(node.inputs[1]) == 2
    return node.inputs[0] is node.inputs[1]


def _division(root: Node, data: gs.Tensor, graph: Graph) -> tuple[list[Node], Node]:
    """The node that makes `data` over the result of `root`, and the nodes between both."""
    node = reader(graph, root.outputs[0], "Div", "Reciprocal")
    if node is not None and node.op == "Div" and node.inputs[0] is data:
        return [], node
    if node is not None and (node.op == "Reciprocal" or scalar(node.inputs[0]) == 1):
        last = reader(graph, node.outputs[0], "Mul")
        if last is not None and other_operand(last, node.outputs[0]) is data:
            return [node], last
    raise Skip("what was squared is not divided by the root")


def affine(
    graph: Graph, last: Node, op: str, shape: tuple[int, ...]
) -> tuple[gs.Tensor, Node] | None:
    """The operand of the `op` that alone reads the result of `last`, and that node.

    A constant is broadcast to `shape`, the lengths of the last axes; any other operand has it.
    """
    result = last.outputs[0]
    node = reader(graph, result, op)
    operand = other_operand(node, result) if node else None
    if node is None or operand is None or operand.shape is None:
        return None
    if tuple(operand.shape) == shape:
        return operand, node
    if not isinstance(operand, Constant):
        return None
    values = operand.values
    outer = values.ndim - len(shape)
    if outer > 0 and any(length != 1 for length in values.shape[:outer]):
        return None
    values = values.reshape(values.shape[max(outer, 0) :])
    if np.broadcast_shapes(values.shape, shape) != shape:
        return None
    return graph.constant(np.broadcast_to(values, shape), operand.name), node
