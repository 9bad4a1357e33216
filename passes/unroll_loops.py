"""Write out the rounds of a short Loop or Scan, one after the other.

    y = Loop(2, true, x) { x' = f(i, x) }    =>   y = f(1, f(0, x))
    z = Scan(s, x) { s', e = f(s, x[t]) }    =>   s1, e0 = f(s, x[0]), e1 = f(s1, x[1]), z = Concat

*Needs* a number of rounds that is constant: of a Loop, a constant trip count and a condition that
is constant in every round; of a Scan, the length of an input. There are at least one and at most
`rounds` of them, and no more than `budget` nodes come out of a loop, those of loops inside it
included. A loop inside has a constant number of rounds too.

*Numerics*: exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from edgec.graph import Graph
from edgec.rewrite import Numerics, Rewrite, Skip
from edgec.tensors import Constant, Node, is_static

_LOOPS = ("Loop", "Scan")


@dataclass(frozen=True)
class UnrollLoops(Rewrite):
    rounds: int = 8
    budget: int = 64

    name: ClassVar[str] = "unroll-loops"
    numerics: ClassVar[Numerics] = "exact"
    roots: ClassVar[tuple[str, ...]] = _LOOPS

    def rewrite(self, node: Node, graph: Graph) -> None:
        rounds = _rounds(node)
        if rounds < 1:
            raise Skip("it has no round")
        if rounds > self.rounds:
            raise Skip(f"it has {rounds} rounds, the limit is {self.rounds}")
        size = _size(node)
        if size > self.budget:
            raise Skip(f"it would become {size} nodes, the budget has {self.budget}")
        results = _loop(node, graph, rounds) if node.op == "Loop" else _scan(node, graph, rounds)
        for old, new in zip(list(node.outputs), results, strict=False):
            if graph.why_not_replace(old, new):
                new = graph.insert(node, "Identity", [new]).outputs[0]
            graph.replace(old, new)


def _rounds(node: Node) -> int:
    """How many rounds a Loop or Scan has. Skips where that is not constant."""
    if node.op == "Scan":
        count = node.attrs["num_scan_inputs"]
        axes = node.attrs.get("scan_input_axes") or [0] * count
        lengths = [
            tensor.shape[axis]
            for tensor, axis in zip(node.inputs[-count:], axes, strict=True)
            if tensor.shape is not None and isinstance(tensor.shape[axis], int)
        ]
        if not lengths:
            raise Skip("the length of its inputs is not known")
        return int(lengths[0])
    trips, start = node.inputs[:2]
    if trips.name and not (isinstance(trips, Constant) and trips.values.size == 1):
        raise Skip("the trip count is not constant")
    if start.name and not isinstance(start, Constant):
        raise Skip("the condition is not constant")
    if start.name and not start.values.all():
        return 0
    body = node.attrs["body"]
    going = body.outputs[0]
    while going.inputs and going.inputs[0].op in ("Identity", "Cast"):
        going = going.inputs[0].inputs[0]
    if going is not body.inputs[1] and not isinstance(going, Constant):
        raise Skip("the condition is not constant")
    ends = isinstance(going, Constant) and not going.values.all()
    if not (ends or trips.name):
        raise Skip("it never ends")
    limit = int(trips.values.item()) if trips.name else 1
    return min(1, limit) if ends else limit


def _size(node: Node) -> int:
    """How many nodes `node` becomes when it and all loops inside it are written out."""
    if not node.outputs:
        return 0
    if node.op not in _LOOPS or node.domain:
        inner = (value for value in node.attrs.values() if isinstance(value, gs.Graph))
        return 1 + sum(_size(each) for graph in inner for each in graph.nodes)
    try:
        rounds = _rounds(node)
    except Skip as skip:
        raise Skip(f"of a loop inside: {skip.reason}") from skip
    body = node.attrs["body"]
    if node.op == "Loop":
        stacked = len(body.outputs) - (len(body.inputs) - 1)
        read = 0
    else:
        read = node.attrs["num_scan_inputs"]
        stacked = len(body.outputs) - (len(body.inputs) - read)
    return rounds * (read + stacked + sum(map(_size, body.nodes))) + stacked


def _loop(node: Node, graph: Graph, rounds: int) -> list[gs.Tensor]:
    body = node.attrs["body"]
    state = list(node.inputs[2:])
    stacks: list[list[gs.Tensor]] = []
    going = graph.constant(np.ones(_one_element(body.inputs[1]), np.bool_), "going")
    for i in range(rounds):
        index = graph.constant(np.full(_one_element(body.inputs[0]), i, np.int64), "round")
        outputs = graph.instantiate(node, body, [index, going, *state])
        state = outputs[1 : 1 + len(state)]
        stacks.append(outputs[1 + len(state) :])
    return state + [_stack(node, graph, each, 0) for each in zip(*stacks, strict=True)]


def _one_element(tensor: gs.Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape) if is_static(tensor) else ()


def _scan(node: Node, graph: Graph, rounds: int) -> list[gs.Tensor]:
    body, count = node.attrs["body"], node.attrs["num_scan_inputs"]
    state, sources = list(node.inputs[:-count]), node.inputs[-count:]
    stacked = len(body.outputs) - len(state)

    def listed(name: str, length: int) -> list[int]:
        return node.attrs.get(name) or [0] * length

    axes = listed("scan_input_axes", count)
    backward = listed("scan_input_directions", count)
    stacks: list[list[gs.Tensor]] = []
    for i in range(rounds):
        elements = []
        for source, axis, is_backward in zip(sources, axes, backward, strict=True):
            index = graph.constant(
                np.array(rounds - 1 - i if is_backward else i, np.int64), "round"
            )
            gather = graph.insert(node, "Gather", [source, index], {"axis": axis})
            elements.append(gather.outputs[0])
        outputs = graph.instantiate(node, body, [*state, *elements])
        state = outputs[: len(state)]
        stacks.append(outputs[len(state) :])
    axes = listed("scan_output_axes", stacked)
    backward = listed("scan_output_directions", stacked)
    return state + [
        _stack(node, graph, each[::-1] if is_backward else each, axis)
        for each, axis, is_backward in zip(zip(*stacks, strict=True), axes, backward, strict=True)
    ]


def _stack(node: Node, graph: Graph, elements: Sequence[gs.Tensor], axis: int) -> gs.Tensor:
    """The `elements` along a new `axis`."""
    where = graph.constant(np.array([axis], np.int64), "axis")
    parts = [graph.insert(node, "Unsqueeze", [each, where]).outputs[0] for each in elements]
    return graph.insert(node, "Concat", parts, {"axis": axis}).outputs[0]
