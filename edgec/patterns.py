"""What passes that fuse ask about the nodes around one, and how they put one in place of many.

Guards raise `Skip`; nothing here but `substitute` changes a graph.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from edgec.arrays import is_float
from edgec.graph import Graph
from edgec.rewrite import Skip
from edgec.tensors import Constant, Node, Variable

_WEIGHT = {"MatMul": 1, "Gemm": 1, "Conv": 1}
"""Operators that widen a narrow constant as they read it, and the input that is their weight."""

_CHANNELS = 16
"""Of an image, that such a convolution takes together."""

_LEAST_NARROW = 4096
"""Elements up to which a constant might as well be float32."""

_MAX_FACTORS = 16
_MAX_POWER = 4


def check_opset(op: str, graph: Graph) -> None:
    """Skip where `op` is newer than what the graph may be written at."""
    first = first_opset(op)
    if first > graph.opset_limit:
        raise Skip(f"{op} needs opset {first}, the model has {graph.opset_limit}")


def first_opset(op: str) -> int:
    """The opset of the default domain that introduced `op`."""
    return _first_opsets()[op]


@functools.cache
def _first_opsets() -> dict[str, int]:
    found: dict[str, int] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "":
            version = int(schema.since_version)
            found[schema.name] = min(version, found.get(schema.name, version))
    return found


def check_no_weight(graph: Graph, widened: gs.Tensor) -> None:
    """Skip where only products read `widened`, a large constant in float32, as their weight: they
    read it as it is stored."""
    readers = graph.consumers(widened)
    if math.prod(widened.shape or ()) <= _LEAST_NARROW or not readers:
        return
    if all(_is_weight(graph, widened, node) for node in readers):
        raise Skip("only products read it, as it is stored")


def _is_weight(graph: Graph, tensor: gs.Tensor, node: Node) -> bool:
    """Whether `node` reads `tensor` as a weight, or transposes it for nodes that do."""
    if node.domain or node.inputs.count(tensor) != 1:
        return False
    if node.op == "Transpose":
        made = node.outputs[0]
        users = graph.consumers(made)
        return bool(users) and all(_is_weight(graph, made, user) for user in users)
    place = _WEIGHT.get(node.op)
    if place is None or node.inputs[place] is not tensor:
        return False
    if node.op == "Conv":
        dense = node.attrs.get("group", 1) == 1 and tensor.shape[1] % _CHANNELS == 0
        return dense and len(tensor.shape) == 4
    return len(tensor.shape) == 2


def maker(graph: Graph, tensor: gs.Tensor, *ops: str) -> Node | None:
    """The node that makes `tensor`, where it is one of the standard `ops`."""
    node = graph.producer(tensor)
    return node if node is not None and node.op in ops and not node.domain else None


def reader(graph: Graph, tensor: gs.Tensor, *ops: str) -> Node | None:
    """The node that alone reads `tensor`, once, where it is one of the standard `ops`."""
    readers = graph.consumers(tensor)
    if len(readers) != 1 or graph.is_output(tensor):
        return None
    [node] = readers
    return node if node.op in ops and not node.domain else None


def scalar(tensor: gs.Tensor) -> float | None:
    """The value of a constant of one number, of whatever rank."""
    if not isinstance(tensor, Constant) or math.prod(tensor.shape) != 1:
        return None
    if not (is_float(tensor.dtype) or tensor.dtype.kind in "iu"):
        return None
    return float(tensor.values.reshape(-1)[0])


def is_near(value: float | None, wanted: float) -> bool:
    """Whether a constant is `wanted`, as exporters write it: to 5 digits or half precision."""
    return value is not None and math.isclose(value, wanted, rel_tol=1e-5)


def other_operand(node: Node, wanted: gs.Tensor) -> gs.Tensor | None:
    """The other operand of a binary node that reads `wanted`; None where it does not."""
    first, second = node.inputs
    if first is wanted:
        return second
    return first if second is wanted else None


def split_scalar(node: Node) -> tuple[gs.Tensor, float] | None:
    """(operand, value) of a commutative node one of whose inputs is a constant number."""
    for i in (0, 1):
        value = scalar(node.inputs[1 - i])
        if value is not None:
            return node.inputs[i], value
    return None


def product(
    graph: Graph, tensor: gs.Tensor, stops: Iterable[gs.Tensor] = ()
) -> tuple[float, Counter[gs.Tensor], list[Node]]:
    """`tensor` as a number times powers of tensors, and the nodes that multiply them.

    Multiplications, divisions by numbers and whole powers are taken apart, but not `stops`.
    """
    number = 1.0
    factors: Counter[gs.Tensor] = Counter()
    nodes: list[Node] = []
    ends = set(stops)
    left = [tensor]
    while left:
        item = left.pop()
        value = scalar(item)
        node = maker(graph, item, "Mul", "Div", "Pow")
        exponent = None if node is None else scalar(node.inputs[1])
        if value is not None:
            number *= value
        elif item in ends or node is None or len(nodes) + len(left) >= _MAX_FACTORS:
            factors[item] += 1
        elif node.op == "Mul":
            nodes.append(node)
            left += node.inputs
        elif node.op == "Div" and exponent:
            nodes.append(node)
            number /= exponent
            left.append(node.inputs[0])
        elif node.op == "Pow" and exponent is not None and exponent in range(2, _MAX_POWER + 1):
            nodes.append(node)
            left += [node.inputs[0]] * int(exponent)
        else:
            factors[item] += 1
    return number, factors, nodes


def is_product(
    graph: Graph, tensor: gs.Tensor, number: float, *factors: gs.Tensor
) -> list[Node] | None:
    """The nodes that make `tensor` the product of `number` and `factors`; None where it is not."""
    value, found, nodes = product(graph, tensor, factors)
    return nodes if found == Counter(factors) and is_near(value, number) else None


def complete_product(
    graph: Graph, node: Node, number: float, x: gs.Tensor
) -> tuple[Node, list[Node]]:
    """The node that completes `number` times `x` times the result of `node`, and all nodes of
    that product. Skips where there is none."""
    result = node.outputs[0]
    last = reader(graph, result, "Mul", "Div")
    while last is not None:
        nodes = is_product(graph, last.outputs[0], number, x, result)
        if nodes is not None:
            return last, nodes
        last = reader(graph, last.outputs[0], "Mul", "Div")
    raise Skip(f"its result is not multiplied by {number:.3g} times the argument alone")


def reduced_axes(node: Node) -> tuple[int, ...]:
    """The axes of a reduction that keeps them, ascending. Skips where they are not known."""
    rank = None if node.inputs[0].shape is None else len(node.inputs[0].shape)
    if not node.attrs.get("keepdims", 1):
        raise Skip("reduced axes are not kept")
    axes = node.inputs[1] if len(node.inputs) > 1 and node.inputs[1].name else None
    if rank is None or (axes is not None and not isinstance(axes, Constant)):
        raise Skip("the axes of a reduction are not known")
    listed = [] if axes is None else axes.values.reshape(-1).tolist()
    if not listed and node.attrs.get("noop_with_empty_axes", 0):
        return ()
    return tuple(sorted(axis % rank for axis in listed or range(rank)))


def check_float32(tensor: gs.Tensor) -> None:
    """Skip unless `tensor` is float32."""
    if tensor.dtype != np.dtype(np.float32):
        raise Skip(f"it computes in {tensor.dtype}, not in float32")


def check_same_shape(a: gs.Tensor, b: gs.Tensor) -> None:
    """Skip unless both have one shape, each dimension a number or the same symbol."""
    if a.shape is None or b.shape is None or None in (*a.shape, *b.shape):
        raise Skip("the shapes are not known")
    if tuple(a.shape) != tuple(b.shape):
        raise Skip("an operand is broadcast")


def check_private(graph: Graph, inside: Iterable[Node], last: Node) -> None:
    """Skip where anything but `last` of the nodes `inside` has a result that is used outside."""
    members = {*inside, last}
    for node in sorted(members - {last}, key=lambda n: n.outputs[0].name):
        if node.owner is not last.owner:
            raise Skip("a part is in another graph")
        for tensor in node.outputs:
            if graph.is_output(tensor) or not members.issuperset(graph.consumers(tensor)):
                raise Skip(f"the result of its {node.op} is used elsewhere")


def substitute(
    graph: Graph,
    last: Node,
    op: str,
    inputs: Sequence[gs.Tensor],
    attrs: Mapping[str, Any] | None = None,
) -> Node:
    """Let a new node make the first output of `last`; what nothing uses any more is removed."""
    made = last.outputs[0]
    node = graph.insert(last, op, inputs, attrs, outputs=0)
    last.outputs[0] = Variable(graph.unique_name(f"{made.name}_was"))
    node.outputs.append(made)
    node.name = last.name or node.name
    graph.remove(last)
    return node
