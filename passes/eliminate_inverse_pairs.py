"""Remove an operator that undoes or repeats the one before it.

    y = Neg(Neg(x))                       =>   x            (Not, BitwiseNot)
    y = Relu(Relu(x))                     =>   Relu(x)      (Abs, Ceil, Floor, Round, Sign)
    y = Abs(Neg(x))                       =>   Abs(x)
    y = Cast(Cast(x, wider), back)        =>   x
    y = Cast(Cast(x, wider), other)       =>   Cast(x, other)

*Needs*, for casts, a type between that holds every value of the first.

*Numerics*: exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from edgec.graph import Graph
from edgec.rewrite import Numerics, Rewrite, Skip
from edgec.tensors import Node

_UNDONE = ("Neg", "Not", "BitwiseNot")
_REPEATED = ("Relu", "Abs", "Ceil", "Floor", "Round", "Sign")


@dataclass(frozen=True)
class EliminateInversePairs(Rewrite):
    name: ClassVar[str] = "eliminate-inverse-pairs"
    numerics: ClassVar[Numerics] = "exact"
    roots: ClassVar[tuple[str, ...]] = (*_UNDONE, *_REPEATED, "Cast")

    def rewrite(self, node: Node, graph: Graph) -> None:
        first = graph.producer(node.inputs[0])
        if first is None or first.domain:
            raise Skip("the input is not made by an operator of the standard")
        source, middle, result = first.inputs[0], first.outputs[0], node.outputs[0]
        if node.op == "Cast" and first.op == "Cast":
            if not _holds(middle.dtype, source.dtype):
                raise Skip("the type between does not hold every value")
            if result.dtype is None or result.dtype.kind not in "biuf":
                raise Skip("the last type is none of numpy's numbers")
            if result.dtype != source.dtype:
                node.inputs[0] = source
                return
        elif node.op == "Abs" and first.op == "Neg":
            node.inputs[0] = source
            return
        elif node.op != first.op or node.op == "Cast":
            raise Skip("the operator before is another")
        kept = middle if node.op in _REPEATED else source
        why = graph.why_not_replace(result, kept)
        if why:
            raise Skip(why)
        graph.replace(result, kept)


def _holds(wide: np.dtype[Any] | None, narrow: np.dtype[Any] | None) -> bool:
    """Whether every value of `narrow` is one of `wide`; types beyond numpy's own are unknown."""
    if wide is None or narrow is None or {wide.kind, narrow.kind} - set("biuf"):
        return False
    if wide.kind == "b":
        return narrow.kind == "b"
    return np.can_cast(narrow, wide, "safe")
