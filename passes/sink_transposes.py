"""Carry Transposes through the operators between them until they cancel.

    Transpose(Relu(Transpose(x, p)), p⁻¹)                       =>   Relu(x)
    Transpose(Add(Transpose(x, p), Transpose(y, p)), p⁻¹)       =>   Add(x, y)

A region is a set of connected operators that can work on permuted axes: elementwise ones, Concat,
and Softmax. All of it is moved to the axes that the Transposes at its border come
from, its constants permuted; what else enters or leaves it gets a Transpose.

*Needs* operators of one graph whose operands all have the rank of the result or are constant, and
fewer Transposes afterwards.

*Numerics*: exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from edgec.graph import Graph
from edgec.rewrite import Numerics, Pass, Skip
from edgec.tensors import Constant, Node, Variable

_ELEMENTWISE = frozenset(
    """
    Abs Add And Cast Ceil Clip Cos Div Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual
    HardSigmoid HardSwish LeakyRelu Less LessOrEqual Log Max Min Mish Mul Neg Not Or Pow Reciprocal
    Relu Round Selu Sigmoid Sign Sin Softplus Softsign Sqrt Sub Sum Swish Tanh Where Xor
    """.split()  # noqa: SIM905
)
_WITH_AXIS = {"Concat": None, "Softmax": -1, "LogSoftmax": -1}
_REGION = _ELEMENTWISE | _WITH_AXIS.keys()
Perm = tuple[int, ...]


@dataclass(frozen=True)
class SinkTransposes(Pass):
    name: ClassVar[str] = "sink-transposes"
    numerics: ClassVar[Numerics] = "exact"

    def run(self, graph: Graph) -> Iterator[Node | tuple[Node, Skip]]:
        tried: set[tuple[Node, Perm]] = set()
        for node in list(graph.nodes()):
            if not _is_transpose(node):
                continue
            perm = _perm(node)
            for start in graph.consumers(node.outputs[0]):
                if (start, perm) in tried or not _can_move(start, node.owner):
                    continue
                region = _region(start, graph)
                tried |= {(member, perm) for member in region}
                try:
                    _move(region, perm, graph)
                except Skip as skip:
                    yield node, skip
                else:
                    yield node
                    break


def _is_transpose(node: Node) -> bool:
    return (
        node.op == "Transpose"
        and not node.domain
        and bool(node.outputs)
        and node.outputs[0].shape is not None
    )


def _perm(node: Node) -> Perm:
    rank = len(node.outputs[0].shape)
    return tuple(node.attrs.get("perm", reversed(range(rank))))


def _can_move(node: Node, owner: gs.Graph | None) -> bool:
    """Whether `node` can work on permuted axes: every operand has the result's rank."""
    if node.domain or node.op not in _REGION or node.owner is not owner:
        return False
    shape = node.outputs[0].shape
    return shape is not None and all(
        t.shape is not None
        and (len(t.shape) == len(shape) or (isinstance(t, Constant) and node.op in _ELEMENTWISE))
        for t in node.inputs
        if t.name
    )


def _region(start: Node, graph: Graph) -> dict[Node, None]:
    """The operators that can move, connected with `start` by their results."""
    region = {start: None}
    left = [start]
    while left:
        node = left.pop()
        makers = [graph.producer(t) for t in node.inputs]
        near = [m for m in makers if m] + graph.consumers(node.outputs[0])
        for other in near:
            if other not in region and _can_move(other, start.owner):
                region[other] = None
                left.append(other)
    return region


@dataclass(frozen=True)
class _Border:
    """What crosses the border of a region; `cancelled` and `foreign` are keyed by tensors made."""

    entering: dict[gs.Tensor, gs.Tensor | None]
    cancelled: dict[gs.Tensor, list[Node]]
    foreign: list[gs.Tensor]
    freed: int


def _move(region: dict[Node, None], perm: Perm, graph: Graph) -> None:
    inverse = tuple(int(axis) for axis in np.argsort(perm))
    border = _border(region, perm, inverse, graph)
    inserted = len(border.foreign) + list(border.entering.values()).count(None)
    removed = border.freed + sum(map(len, border.cancelled.values()))
    if inserted >= removed:
        raise Skip(f"{inserted} Transposes would take the place of {removed}")

    permuted = dict(border.entering)
    for tensor, source in border.entering.items():
        if source is None:
            made = graph.insert(next(iter(region)), "Transpose", [tensor], {"perm": [*inverse]})
            permuted[tensor] = made.outputs[0]
    for node in region:
        old = node.outputs[0]
        shape = tuple(old.shape[axis] for axis in inverse)
        permuted[old] = Variable(graph.unique_name(f"{old.name}_moved"), old.dtype, shape)
    for node in region:
        rank = len(perm)
        for i, tensor in enumerate(node.inputs):
            if isinstance(tensor, Constant) and np.prod(tensor.shape) != 1:
                values = tensor.values.reshape([1] * (rank - len(tensor.shape)) + [*tensor.shape])
                node.inputs[i] = graph.constant(values.transpose(inverse), tensor.name)
            elif tensor in permuted:
                node.inputs[i] = permuted[tensor]
        if node.op in _WITH_AXIS:
            node.attrs["axis"] = perm[node.attrs.get("axis", _WITH_AXIS[node.op]) % rank]
    for node in region:
        old = node.outputs[0]
        node.outputs[0] = permuted[old]
        for user in border.cancelled.get(old, ()):
            graph.replace(user.outputs[0], permuted[old])
        if old in border.foreign:
            graph.insert(node, "Transpose", [permuted[old]], {"perm": [*perm]}, outputs=[old])


def _border(region: dict[Node, None], perm: Perm, inverse: Perm, graph: Graph) -> _Border:
    border = _Border({}, {}, [], 0)
    freed = 0
    for node in region:
        for tensor in node.inputs:
            maker = graph.producer(tensor)
            known = isinstance(tensor, Constant) or tensor in border.entering or maker in region
            if known or not tensor.name:
                continue
            border.entering[tensor] = None
            if maker is None or not _is_transpose(maker) or _perm(maker) != perm:
                continue
            if graph.producer(maker.inputs[0]) in region:
                continue
            border.entering[tensor] = maker.inputs[0]
            only = not graph.is_output(tensor) and region.keys() >= set(graph.consumers(tensor))
            freed += only
        result = node.outputs[0]
        cancelled: list[Node] = []
        foreign = graph.is_output(result)
        for user in graph.consumers(result):
            if user in region:
                continue
            named = sum(graph.is_output(u.outputs[0]) for u in cancelled)
            if (
                _is_transpose(user)
                and user.owner is node.owner
                and _perm(user) == inverse
                and not (named and graph.is_output(user.outputs[0]))
            ):
                cancelled.append(user)
            else:
                foreign = True
        if cancelled:
            border.cancelled[result] = cancelled
        if foreign:
            border.foreign.append(result)
    return _Border(border.entering, border.cancelled, border.foreign, freed)
