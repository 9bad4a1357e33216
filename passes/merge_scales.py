"""Make one operation of two with constants in a row.

    y = (x * a) * b        =>   y = x * (a b)            (a Div by a constant likewise)
    y = (x + a) + b        =>   y = x + (a + b)          (a Sub of a constant likewise)

*Needs* float32 or float64, a first operation that nothing else reads, and a merged constant,
computed in float64, that has no more elements than one of both, is finite, and is neither a factor
of zero nor one too small to be precise. Terms that cancel stay: adding and subtracting a large
number is how a model rounds.

*Numerics*: rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from edgec.graph import Graph
from edgec.rewrite import Numerics, Rewrite, Skip
from edgec.tensors import Constant, Node

Array = np.ndarray[Any, Any]

_FACTORS = ("Mul", "Div")
_TERMS = ("Add", "Sub")


@dataclass(frozen=True)
class MergeScales(Rewrite):
    name: ClassVar[str] = "merge-scales"
    numerics: ClassVar[Numerics] = "rounding"
    roots: ClassVar[tuple[str, ...]] = (*_FACTORS, *_TERMS)

    def rewrite(self, node: Node, graph: Graph) -> None:
        family = _FACTORS if node.op in _FACTORS else _TERMS
        middle, second = _split(node)
        first = graph.producer(middle)
        if first is None or first.domain or first.op not in family:
            raise Skip(f"the input is not made by {' or '.join(family)}")
        source, constant = _split(first)
        if graph.uses(middle) > 1:
            raise Skip("the first result has other uses")
        if constant.dtype not in (np.float32, np.float64):
            raise Skip(f"{constant.dtype} is too coarse to merge in")
        a, b = _normal(constant, first.op), _normal(second, node.op)
        limits = np.finfo(constant.dtype)
        merged = _product(a, b, float(limits.tiny)) if family is _FACTORS else _sum(a, b)
        if merged.size > max(a.size, b.size):
            raise Skip("the merged constant is larger")
        if not (np.abs(merged) <= limits.max).all():
            raise Skip("the merged constant is not finite")
        new = graph.constant(merged.astype(constant.dtype), constant.name)
        made = graph.insert(node, family[0], [source, new])
        graph.replace(node.outputs[0], made.outputs[0])


def _split(node: Node) -> tuple[gs.Tensor, Constant]:
    """The computed and the constant operand, which cannot be what is divided or subtracted from."""
    first, second = node.inputs
    if isinstance(second, Constant):
        return first, second
    if isinstance(first, Constant) and node.op in ("Mul", "Add"):
        return second, first
    raise Skip("it has no constant operand")


def _normal(operand: Constant, op: str) -> Array:
    """What to multiply with, or add, instead; float64."""
    values = operand.values.astype(np.float64)
    with np.errstate(all="ignore"):
        return np.asarray({"Div": np.reciprocal, "Sub": np.negative}.get(op, np.positive)(values))


def _product(a: Array, b: Array, tiny: float) -> Array:
    with np.errstate(all="ignore"):
        merged = np.asarray(a * b)
    if (np.abs(merged) < tiny).any():
        raise Skip("the merged factor is zero or imprecise")
    return merged


def _sum(a: Array, b: Array) -> Array:
    merged = np.asarray(a + b)
    if (2 * np.abs(merged) < np.maximum(np.abs(a), np.abs(b))).any():
        raise Skip("the terms cancel, which rounds on purpose")
    return merged
