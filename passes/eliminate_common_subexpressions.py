"""Compute the same thing once.

    a = Exp(x); b = Exp(x); y = Add(a, b)      =>   a = Exp(x); y = Add(a, a)

*Needs* two nodes of the same graph with the same operator of the standard, attributes, inputs and
outputs asked for. Operators that draw random numbers or hold subgraphs are left alone.

*Numerics*: exact.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from edgec.graph import Graph
from edgec.rewrite import Numerics, Pass, Skip
from edgec.tensors import Constant, Node

_RANDOM = (
    *("Bernoulli", "Dropout", "Multinomial"),
    *("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"),
)


@dataclass(frozen=True)
class EliminateCommonSubexpressions(Pass):
    name: ClassVar[str] = "eliminate-common-subexpressions"
    numerics: ClassVar[Numerics] = "exact"

    def run(self, graph: Graph) -> Iterator[Node | tuple[Node, Skip]]:
        known: dict[Hashable, Node] = {}
        for node in list(graph.nodes()):
            if node.domain or node.op in _RANDOM or not node.outputs:
                continue
            attributes = {name: _frozen(value) for name, value in node.attrs.items()}
            if None in attributes.values():
                continue
            key = (
                id(node.owner),
                node.op,
                frozenset(attributes.items()),
                tuple(t if t.name else None for t in node.inputs),
                tuple(bool(t.name) for t in node.outputs),
            )
            first = known.setdefault(key, node)
            if first is node:
                continue
            pairs = [
                (old, new) for old, new in zip(node.outputs, first.outputs, strict=True) if old.name
            ]
            why = next(filter(None, (graph.why_not_replace(*pair) for pair in pairs)), None)
            if why:
                yield node, Skip(why)
                continue
            for old, new in pairs:
                graph.replace(old, new)
            yield node


def _frozen(value: Any) -> Hashable | None:
    """Something hashable that equals only what is the same; None for a graph."""
    if isinstance(value, Constant):
        return (value.dtype, value.shape, value.values.tobytes())
    if isinstance(value, np.ndarray):
        return (value.dtype, value.shape, value.tobytes())
    if isinstance(value, list | tuple):
        parts = tuple(_frozen(part) for part in value)
        return None if None in parts else parts
    if isinstance(value, gs.Graph):
        return None
    return (type(value), repr(value))
