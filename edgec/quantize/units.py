"""Units: the parts of a graph that integer kernels compute, each of one operator and what is fused
to it.

A product takes its bias (a constant Add after a MatMul) and a Relu or Clip behind it, a sum or
product of two tensors the Relu or Clip. What is inside a unit is never rounded to 8 bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_graphsurgeon as gs

from edgec.graph import Graph
from edgec.patterns import other_operand, reader, scalar
from edgec.quantize.profiles import Profile
from edgec.rewrite import Skip
from edgec.tensors import Constant, Node

Kind = Literal["product", "follower", "table", "move"]

_FLOAT32 = np.dtype(np.float32)
_INTERPOLATIONS = (b"nearest", "nearest", b"linear", "linear")


@dataclass(frozen=True)
class Unit:
    """Nodes that are computed together, in order.

    `data` are the positions among the inputs of the first node that hold activations, `weight` the
    one of constant weights, whose channels lie along `axis` (None: they share a scale), and `bias`
    the constant that is added to each channel.
    """

    kind: Kind
    nodes: tuple[Node, ...]
    data: tuple[int, ...]
    weight: int | None = None
    axis: int | None = None
    bias: Constant | None = None

    @property
    def first(self) -> Node:
        """The node that gives the unit its kind."""
        return self.nodes[0]

    @property
    def name(self) -> str:
        """The name of the first node's result."""
        return name_of(self.first)

    @property
    def inputs(self) -> list[gs.Tensor]:
        """What is read as activations, constants included."""
        return [self.first.inputs[i] for i in self.data]

    @property
    def outputs(self) -> list[gs.Tensor]:
        """What the last node makes."""
        return [t for t in self.nodes[-1].outputs if t.name]


def name_of(node: Node) -> str:
    """The name of the first result that `node` has: unique, where names of nodes need not be."""
    return next((str(t.name) for t in node.outputs if t.name), "")


def find_units(graph: Graph, profile: Profile) -> tuple[list[Unit], dict[Node, str]]:
    """The units of the main graph, in its order, and why other nodes that compute are none."""
    found: list[Unit] = []
    left: dict[Node, str] = {}
    taken: set[Node] = set()
    for node in graph.nodes():
        if node in taken or not _computes(node):
            continue
        try:
            unit = _unit(node, graph, profile)
        except Skip as skip:
            left[node] = skip.reason
            continue
        taken.update(unit.nodes)
        found.append(unit)
    return found, left


def _computes(node: Node) -> bool:
    return any(t.dtype is not None and t.dtype.kind == "f" for t in node.outputs)


def _unit(node: Node, graph: Graph, profile: Profile) -> Unit:
    if node.domain:
        raise Skip(f"{node.op} is of the domain {node.domain}")
    if node.owner is not graph.gs:
        raise Skip("it is in a subgraph")
    if any(t.dtype != _FLOAT32 for t in node.outputs if t.name):
        raise Skip("it does not compute in float32")
    if node.op in profile.products:
        return _PRODUCTS[node.op](node, graph)
    if node.op in profile.tables:
        return Unit("table", (node,), _activations(node, 0))
    if node.op in ("Add", "Mul") and node.op in profile.followers:
        return _binary(node, graph)
    if node.op == "Concat" and node.op in profile.followers:
        return Unit("move", (node,), tuple(range(len(node.inputs))))
    if node.op == "Where" and node.op in profile.followers:
        return Unit("move", (node,), _activations(node, 1, 2))
    if node.op in profile.followers:
        return Unit("follower", (node,), _activations(node, 0))
    if node.op in profile.moves:
        _check_move(node)
        return Unit("move", (node,), _activations(node, 0))
    raise Skip(f"{node.op} is computed in floats")


def _activations(node: Node, *positions: int) -> tuple[int, ...]:
    for position in positions:
        if isinstance(node.inputs[position], Constant):
            raise Skip("it computes with a constant")
    return positions


def _conv(node: Node, graph: Graph) -> Unit:
    _weights(node, 1)
    bias = _bias(node, 2)
    axis: int | None = 0
    if node.op == "ConvTranspose":
        axis = 1 if node.attrs.get("group", 1) == 1 else None
    nodes = _with_activation([node], graph)
    return Unit("product", nodes, _activations(node, 0), 1, axis, bias)


def _gemm(node: Node, graph: Graph) -> Unit:
    _weights(node, 1)
    if node.attrs.get("transA", 0):
        raise Skip("its first operand is transposed")
    if node.attrs.get("alpha", 1.0) != 1.0 or node.attrs.get("beta", 1.0) != 1.0:
        raise Skip("its alpha or beta is not 1")
    axis = 0 if node.attrs.get("transB", 0) else 1
    bias = _bias(node, 2)
    if bias is not None and math.prod(bias.shape) != node.inputs[1].shape[axis]:
        raise Skip("its C is no vector of channels")
    nodes = _with_activation([node], graph)
    return Unit("product", nodes, _activations(node, 0), 1, axis, bias)


def _matmul(node: Node, graph: Graph) -> Unit:
    a, b = node.inputs
    if a.dtype != _FLOAT32 or b.dtype != _FLOAT32:
        raise Skip("it does not compute in float32")
    if not isinstance(b, Constant) or len(b.shape) != 2 or isinstance(a, Constant):
        return Unit("product", _with_activation([node], graph), (0, 1))
    nodes, bias = [node], None
    add = reader(graph, node.outputs[0], "Add")
    if add is not None:
        other = other_operand(add, node.outputs[0])
        if isinstance(other, Constant) and _is_bias(other, b.shape[1], node.outputs[0]):
            nodes, bias = [node, add], other
    return Unit("product", _with_activation(nodes, graph), (0,), 1, 1, bias)


def _binary(node: Node, graph: Graph) -> Unit:
    constants = [i for i, t in enumerate(node.inputs) if isinstance(t, Constant)]
    if len(constants) == 2:
        raise Skip("it computes with constants alone")
    if constants and scalar(node.inputs[constants[0]]) is not None:
        return Unit("table", (node,), (1 - constants[0],))
    return Unit("follower", _with_activation([node], graph), (0, 1))


_PRODUCTS = {"Conv": _conv, "ConvTranspose": _conv, "Gemm": _gemm, "MatMul": _matmul}


def _weights(node: Node, position: int) -> None:
    weights = node.inputs[position]
    if not isinstance(weights, Constant):
        raise Skip("its weights are computed")
    if not np.isfinite(weights.values).all():
        raise Skip("its weights are not all finite")


def _bias(node: Node, position: int) -> Constant | None:
    if len(node.inputs) <= position or not node.inputs[position].name:
        return None
    bias = node.inputs[position]
    if not isinstance(bias, Constant) or not np.isfinite(bias.values).all():
        raise Skip("its bias is computed or not finite")
    return bias


def _is_bias(tensor: Constant, channels: int, sums: gs.Tensor) -> bool:
    """Whether `tensor` adds a finite number to each of the `channels`, the last axis of `sums`."""
    return (
        tensor.shape[-1:] == (channels,) == (math.prod(tensor.shape),)
        and sums.shape is not None
        and len(tensor.shape) <= len(sums.shape)
        and bool(np.isfinite(tensor.values).all())
    )


def _with_activation(nodes: list[Node], graph: Graph) -> tuple[Node, ...]:
    """`nodes` and the Relu, or Clip between numbers, that alone reads their result."""
    result = nodes[-1].outputs[0]
    last = reader(graph, result, "Relu", "Clip")
    if last is None or last.inputs[0] is not result or bounds(last) is None:
        return tuple(nodes)
    return (*nodes, last)


def bounds(node: Node) -> tuple[float, float] | None:
    """Between what numbers the result of a Relu or Clip lies; None where they are computed."""
    if node.op == "Relu":
        return 0.0, math.inf
    ends = [-math.inf, math.inf]
    for i, tensor in enumerate(node.inputs[1:3]):
        if tensor.name:
            value = scalar(tensor)
            if value is None:
                return None
            ends[i] = value
    return ends[0], ends[1]


def _check_move(node: Node) -> None:
    """Skip where the node does more than to move or choose elements."""
    if len([t for t in node.outputs if t.name]) > 1 and node.op != "Split":
        raise Skip("it has a second result")
    if node.op == "Resize" and node.attrs.get("mode", "nearest") not in _INTERPOLATIONS:
        raise Skip("its interpolation overshoots")
    if node.op == "Pad" and node.attrs.get("mode", "constant") in ("constant", b"constant"):
        value = node.inputs[2] if len(node.inputs) > 2 else None
        if value is not None and value.name and scalar(value) != 0:
            raise Skip("it pads with something else than 0")


def in_integers(units: Iterable[Unit], graph: Graph) -> tuple[list[Unit], dict[Unit, str]]:
    """The units that are worth computing in integers, and why the others are not.

    Products always are. Another one is where its result reaches one of the units, and where what it
    reads comes from some, from a constant or from the model's inputs; a move's may come from
    anywhere, since nothing is lost by quantizing before it instead of behind it.
    """
    kept = list(units)
    left: dict[Unit, str] = {}
    given = set(graph.gs.inputs)
    while True:
        made = {t for unit in kept for t in unit.outputs} | given
        read = {t for unit in kept for t in unit.inputs}
        dropped = dict(_not_worth(kept, made, read))
        if not dropped:
            return kept, left
        left |= dropped
        kept = [unit for unit in kept if unit not in dropped]


def _not_worth(
    units: Iterable[Unit], made: set[gs.Tensor], read: set[gs.Tensor]
) -> Iterator[tuple[Unit, str]]:
    for unit in units:
        if unit.kind == "product":
            continue
        if not read.intersection(unit.outputs):
            yield unit, "what reads it is computed in floats"
        elif not (unit.kind == "move" and len(unit.data) == 1) and not all(
            t in made or isinstance(t, Constant) for t in unit.inputs
        ):
            yield unit, "what it reads is computed in floats"
