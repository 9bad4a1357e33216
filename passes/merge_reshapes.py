"""Make one Reshape of two, also where operators that ignore the shape stand between them.

    y = Reshape(Reshape(x, s), t)              =>   y = Reshape(x, t)
    y = Reshape(Relu(Reshape(x, s)), t)        =>   y = Reshape(Relu(x), t)
    y = Reshape(Softmax(Reshape(x, s)), t)     =>   y = Reshape(Softmax(x), t)

Squeeze, Unsqueeze, Flatten, and a Transpose that moves no axis longer than 1 past another are
Reshapes here.

*Needs* a result of which at most one dimension is unknown, a first Reshape that nothing else reads
(or only Reshapes), and for Softmax the last axis, of the same length before and after.

*Numerics*: exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from edgec.graph import Graph
from edgec.rewrite import Numerics, Rewrite, Skip
from edgec.tensors import Node, is_static

_RESHAPES = ("Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose")
_UNARY = frozenset(
    """
    Abs Ceil Cos Elu Erf Exp Floor Gelu HardSigmoid HardSwish LeakyRelu Log Mish Neg Not Reciprocal
    Relu Round Selu Sigmoid Sign Sin Softplus Softsign Sqrt Tanh ThresholdedRelu Cast
    """.split()  # noqa: SIM905
)
_LAST_AXIS = ("Softmax", "LogSoftmax")


@dataclass(frozen=True)
class MergeReshapes(Rewrite):
    name: ClassVar[str] = "merge-reshapes"
    numerics: ClassVar[Numerics] = "exact"
    roots: ClassVar[tuple[str, ...]] = _RESHAPES

    def rewrite(self, node: Node, graph: Graph) -> None:
        if not _is_reshape(node):
            raise Skip("the axes move")
        between: list[Node] = []
        first = graph.producer(node.inputs[0])
        while first is not None and not first.domain and first.op in (*_UNARY, *_LAST_AXIS):
            between.append(first)
            first = graph.producer(first.inputs[0])
        if first is None or first.domain or first.op not in _RESHAPES or not _is_reshape(first):
            raise Skip("the input is not made by a Reshape")
        if any(n.owner is not node.owner for n in between):
            raise Skip("what is between is in another graph")
        shape = _target(node.outputs[0])
        source = first.inputs[0]
        for inner in (first, *between):
            _guard_readers(inner, graph, only=bool(between))
        for inner in between:
            _guard_axis(inner, source)

        if between:
            between[-1].inputs[0] = source
            for inner in between:
                inner.outputs[0].shape = source.shape
                if inner.op in _LAST_AXIS:
                    inner.attrs["axis"] = -1
        made = graph.insert(
            node,
            "Reshape",
            [between[0].outputs[0] if between else source, graph.constant(shape, "shape")],
            {"allowzero": 1} if 0 in shape else {},
        )
        graph.replace(node.outputs[0], made.outputs[0])


def _is_reshape(node: Node) -> bool:
    if node.op != "Transpose":
        return True
    if not is_static(node.inputs[0]):
        return False
    shape = node.inputs[0].shape
    perm = node.attrs.get("perm", list(reversed(range(len(shape)))))
    moved = [axis for axis in perm if shape[axis] != 1]
    return moved == sorted(moved)


def _target(result: gs.Tensor) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    if result.shape is None:
        raise Skip("the shape of the result is not known")
    unknown = [d for d in result.shape if not isinstance(d, int)]
    if len(unknown) > 1 or (unknown and 0 in result.shape):
        raise Skip("the shape of the result is not known")
    return np.array([d if isinstance(d, int) else -1 for d in result.shape], np.int64)


def _guard_readers(node: Node, graph: Graph, *, only: bool) -> None:
    result = node.outputs[0]
    if graph.is_output(result):
        raise Skip("what is between is a graph output")
    readers = graph.consumers(result)
    shared = len(readers) > 1
    if shared and (only or any(r.op not in _RESHAPES or not _is_reshape(r) for r in readers)):
        raise Skip("what is between has other uses")


def _guard_axis(node: Node, source: gs.Tensor) -> None:
    if node.op not in _LAST_AXIS:
        return
    shape = node.inputs[0].shape
    if shape is None or source.shape is None or not (shape and source.shape):
        raise Skip("the rank is not known")
    if node.attrs.get("axis", -1) not in (-1, len(shape) - 1):
        raise Skip(f"{node.op} is not over the last axis")
    if not isinstance(shape[-1], int) or shape[-1] != source.shape[-1]:
        raise Skip(f"the axis of {node.op} has another length before")
