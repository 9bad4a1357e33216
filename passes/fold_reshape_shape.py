"""Give a Reshape whose shape is computed a constant one.

    Reshape(x, Concat(Gather(Shape(x), 0), 12, 32))     =>   Reshape(x, {0, 12, 32})
    Reshape(x, Concat(Gather(Shape(z), 0), 12, 32))     =>   Reshape(x, {-1, 12, 32})
    Reshape(x, {-1, 12, 32}), x is [N, 384]             =>   Reshape(x, {0, 12, 32})

*Needs* a shape of a known length, each element of which is a number, a dimension that x has at the
same place, or the only one that is neither. The elements come from the result's own shape, and from
Shape, Gather, Slice, Concat, Squeeze, Unsqueeze and Cast.

*Numerics*: exact. A tensor without elements cannot be reshaped any more where one dimension is
copied and another inferred.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import numpy as np
import onnx_graphsurgeon as gs

from edgec.graph import Graph
from edgec.patterns import maker
from edgec.rewrite import Numerics, Rewrite, Skip
from edgec.tensors import Constant, Node

Entry: TypeAlias = int | str | tuple[gs.Tensor, int] | None
"""A number, a symbol, an axis of a tensor whose length has no name, or not known."""

_INTEGERS = (np.int32, np.int64)
_HANDED_THROUGH = ("Squeeze", "Unsqueeze", "Cast")


@dataclass(frozen=True)
class FoldReshapeShape(Rewrite):
    name: ClassVar[str] = "fold-reshape-shape"
    numerics: ClassVar[Numerics] = "exact"
    roots: ClassVar[tuple[str, ...]] = ("Reshape",)

    def rewrite(self, node: Node, graph: Graph) -> None:
        source, shape = node.inputs
        given = _entries(shape, graph)
        if given is None:
            raise Skip("the length of the shape is not known")
        result = node.outputs[0].shape
        if result is None or len(result) != len(given):
            raise Skip("the rank of the result is not known")
        whole = _dimensions(source)
        copied = [whole[i] if i < len(whole) else None for i in range(len(given))]
        if not node.attrs.get("allowzero", 0):
            given = [c if g == 0 else g for g, c in zip(given, copied, strict=True)]
        lengths = [r if isinstance(r, int) else g for r, g in zip(result, given, strict=True)]
        if 0 in lengths:
            raise Skip("a dimension is 0")
        target = [_target(length, c) for length, c in zip(lengths, copied, strict=True)]
        if target.count(-1) > 1:
            raise Skip("more than one dimension is not known")
        at = target.index(-1) if -1 in target else len(whole)
        if at < len(whole) and _same_size([*whole[:at], *whole[at + 1 :]], lengths, at):
            target[at] = 0
        elif isinstance(shape, Constant):
            raise Skip("the shape is constant")

        node.attrs.pop("allowzero", None)
        node.inputs[1] = graph.constant(np.array(target, np.int64), shape.name)


def _target(length: Entry, copied: Entry) -> int:
    """What to write for a dimension: its length, 0 for the one of the input, -1 for any other."""
    if isinstance(length, int):
        return length
    return 0 if length is not None and length == copied else -1


def _same_size(rest: list[Entry], lengths: list[Entry], at: int) -> bool:
    """Whether `lengths` without the one `at` have the product that `rest` has."""
    sizes = []
    for entries in (rest, [*lengths[:at], *lengths[at + 1 :]]):
        numbers = math.prod(e for e in entries if isinstance(e, int))
        sizes.append((numbers, Counter(e for e in entries if not isinstance(e, int))))
    return sizes[0] == sizes[1] and sizes[0][0] != 0 and None not in sizes[0][1]


def _dimensions(tensor: gs.Tensor) -> list[Entry]:
    if tensor.shape is None:
        return []
    return [(tensor, i) if d is None else d for i, d in enumerate(tensor.shape)]


def _entries(tensor: gs.Tensor, graph: Graph) -> list[Entry] | None:
    """The elements of a tensor of integers and up to one axis; None where it is another."""
    if tensor.shape is None or len(tensor.shape) > 1 or tensor.dtype not in _INTEGERS:
        return None
    if isinstance(tensor, Constant):
        return [*_numbers(tensor)]
    node = maker(graph, tensor, "Shape", "Gather", "Slice", "Concat", *_HANDED_THROUGH)
    found = None if node is None else _computed(node, graph)
    length = tensor.shape[0] if tensor.shape else 1
    return [None] * length if found is None and isinstance(length, int) else found


def _computed(node: Node, graph: Graph) -> list[Entry] | None:
    if node.op == "Shape":
        whole = slice(node.attrs.get("start"), node.attrs.get("end"))
        return None if node.inputs[0].shape is None else _dimensions(node.inputs[0])[whole]
    if node.op == "Concat":
        parts = [_entries(t, graph) for t in node.inputs]
        return None if None in parts else [entry for part in parts if part for entry in part]
    entries = _entries(node.inputs[0], graph)
    if entries is None or node.op in _HANDED_THROUGH:
        return entries
    if not all(isinstance(t, Constant) for t in node.inputs[1:] if t.name):
        return None
    if node.op == "Gather":
        indices = _numbers(node.inputs[1])
        known = all(-len(entries) <= index < len(entries) for index in indices)
        return [entries[index] for index in indices] if known else None
    if len(node.inputs) > 4:
        return None
    (start, *_), (end, *_) = map(_numbers, node.inputs[1:3])
    return entries[start:end]


def _numbers(tensor: gs.Tensor) -> list[int]:
    values: list[int] = tensor.values.reshape(-1).tolist()
    return values
