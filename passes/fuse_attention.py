"""Fuse the attention that exporters write out.

    MatMul(Softmax(c * MatMul(q, Transpose(k)) + m), v)     =>   Attention <scale = c> (q, k, v, m)

The number `c` may be a factor or divisor of the scores, of q, of k, or of each; the mask `m` may be
absent. Where q, k and v have four axes, all come from [B, S, H * D] by a Reshape and a Transpose,
and the result goes back so, these are left out and the number of heads becomes an attribute. Where
they have three axes there is one head.

*Needs* float32, `c` positive, a Softmax over the last axis, batches and heads that are not
broadcast, a mask with the keys on its last axis, and scores that nothing else uses. A mask with one
row for all queries is expanded, which needs their number.

*Numerics*: approximate. A query whose keys are all masked by -inf gives zeros, where Softmax gives
NaN. ONNX Runtime takes the least float for -inf, so that a mask computed from it stays as it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from edgec.graph import Graph
from edgec.patterns import (
    check_float32,
    check_opset,
    check_private,
    maker,
    product,
    reader,
    substitute,
)
from edgec.rewrite import Numerics, Rewrite, Skip
from edgec.tensors import Constant, Node

_SPLIT = (0, 2, 1, 3)
_MAX_MAKERS = 64


@dataclass(frozen=True)
class _Operand:
    """One of q, k and v with the features last: `factor` times `Transpose(source, perm)`."""

    source: gs.Tensor
    perm: tuple[int, ...]
    factor: float = 1.0

    @property
    def shape(self) -> tuple[int | str, ...]:
        return tuple(self.source.shape[axis] for axis in self.perm)

    def tensor(self, graph: Graph, beside: Node) -> gs.Tensor:
        if self.perm == tuple(range(len(self.perm))):
            return self.source
        return graph.insert(beside, "Transpose", [self.source], {"perm": [*self.perm]}).outputs[0]


@dataclass(frozen=True)
class FuseAttention(Rewrite):
    name: ClassVar[str] = "fuse-attention"
    numerics: ClassVar[Numerics] = "approximate"
    roots: ClassVar[tuple[str, ...]] = ("Softmax",)

    def rewrite(self, node: Node, graph: Graph) -> None:
        check_opset("Attention", graph)
        last = reader(graph, node.outputs[0], "MatMul")
        if last is None or last.inputs[0] is not node.outputs[0]:
            raise Skip("its result does not weight values")
        check_float32(node.outputs[0])
        scores, mask, scale, inside = _scores(node, graph)
        operands = _operands(scores, node.outputs[0], last.inputs[1], graph)
        q, k, _ = operands
        scale *= q.factor * k.factor
        if not (scale > 0 and math.isfinite(scale)):
            raise Skip(f"the scale is {scale:g}")
        rows = None if mask is None else _missing_rows(mask, q, k)
        if mask is not None and _reaches_least(mask, graph):
            raise Skip("the mask is the least float, with which runtimes differ")
        check_private(graph, [node, scores, *inside], last)

        attrs: dict[str, Any] = {"scale": scale}
        merged = [tensor for each in operands if (tensor := _merged(each, graph)) is not None]
        joined = _joined(last, graph)
        if joined is not None and len(merged) == len(operands):
            last, inputs, heads = joined, merged, int(q.shape[1])
        else:
            inputs = [each.tensor(graph, last) for each in operands]
            heads = 1
        if len(inputs[0].shape) == 3:
            attrs |= {"q_num_heads": heads, "kv_num_heads": heads}
        if rows is not None:
            shape = graph.constant(np.array([rows, 1], np.int64), "rows")
            mask = graph.insert(last, "Expand", [mask, shape]).outputs[0]
        substitute(graph, last, "Attention", [*inputs, *([] if mask is None else [mask])], attrs)


def _scores(softmax: Node, graph: Graph) -> tuple[Node, gs.Tensor | None, float, list[Node]]:
    """The product of q and k, the mask, the scale, and the nodes between product and softmax."""
    tensor = softmax.inputs[0]
    if tensor.shape is None or softmax.attrs.get("axis", -1) not in (-1, len(tensor.shape) - 1):
        raise Skip("the softmax is not over the last axis")
    plus = maker(graph, tensor, "Add")
    for scaled, mask in [(tensor, None)] if plus is None else _both(plus):
        source, scale, nodes = _unscaled(scaled, graph)
        scores = maker(graph, source, "MatMul")
        if scores is not None:
            return scores, mask, scale, nodes if plus is None else [*nodes, plus]
    raise Skip("it is not of a product of matrices, scaled and masked")


def _unscaled(tensor: gs.Tensor, graph: Graph) -> tuple[gs.Tensor, float, list[Node]]:
    """The one tensor that `tensor` is a number times, that number, and the nodes between."""
    number, factors, nodes = product(graph, tensor)
    [*sources] = factors.elements()
    return (sources[0], number, nodes) if len(sources) == 1 else (tensor, 1.0, [])


def _both(node: Node) -> Sequence[tuple[gs.Tensor, gs.Tensor]]:
    first, second = node.inputs
    return (first, second), (second, first)


def _operands(
    scores: Node, weights: gs.Tensor, values: gs.Tensor, graph: Graph
) -> tuple[_Operand, _Operand, _Operand]:
    rank = None if values.shape is None else len(values.shape)
    if rank not in (3, 4):
        raise Skip("the values have neither three axes nor four")
    same = tuple(range(rank))
    swap = (*same[:-2], rank - 1, rank - 2)
    left, factor, _ = _unscaled(scores.inputs[0], graph)
    right, divisor, _ = _unscaled(scores.inputs[1], graph)
    q, k, v = _Operand(left, same, factor), _Operand(right, swap, divisor), _Operand(values, same)
    moved = maker(graph, right, "Transpose")
    if moved is not None and right.shape is not None and len(right.shape) == rank:
        perm = moved.attrs.get("perm", same[::-1])
        source, more, _ = _unscaled(moved.inputs[0], graph)
        k = _Operand(source, tuple(perm[axis] for axis in swap), divisor * more)
    tensors = (weights, *(each.source for each in (q, k, v)))
    if any(t.shape is None or None in t.shape for t in tensors):
        raise Skip("the shapes are not known")
    if any(len(t.shape) != rank for t in tensors) or len({t.shape[:-2] for t in (q, k, v)}) > 1:
        raise Skip("an operand is broadcast")
    if rank == 4 and not isinstance(q.shape[1], int):
        raise Skip("the number of heads is not known")
    return q, k, v


def _missing_rows(mask: gs.Tensor, q: _Operand, k: _Operand) -> int | None:
    """The number of queries a mask of one row must be expanded to; None where it need not."""
    wanted = (*q.shape[:-1], k.shape[-2])
    if mask.shape is None or len(mask.shape) < 2 or mask.shape[-1] != wanted[-1]:
        raise Skip("the mask has not the keys on its last axis")
    shape = (1,) * (len(wanted) - len(mask.shape)) + tuple(mask.shape)
    if len(shape) > len(wanted) or any(a not in (1, b) for a, b in zip(shape, wanted, strict=True)):
        raise Skip("the mask has not the shape of the scores")
    if len(q.perm) == 3 and shape[0] != 1:
        raise Skip("each batch has a mask of its own, and there are no heads")
    if shape[-2] == wanted[-2]:
        return None
    if not isinstance(wanted[-2], int):
        raise Skip("the number of queries is not known")
    return wanted[-2]


def _reaches_least(mask: gs.Tensor, graph: Graph) -> bool:
    """Whether the least float is in `mask`, or among the constants that it is computed from."""
    left, seen = [mask], {mask}
    while left and len(seen) < _MAX_MAKERS:
        tensor = left.pop()
        if isinstance(tensor, Constant):
            least = tensor.dtype == np.float32 and (tensor.values == np.finfo(np.float32).min).any()
            if least:
                return True
        made = graph.producer(tensor)
        new = [t for t in made.inputs if t not in seen] if made is not None else []
        left += new
        seen.update(new)
    return False


def _merged(operand: _Operand, graph: Graph) -> gs.Tensor | None:
    """The tensor [B, S, H * D] that `operand` [B, H, S, D] was split from."""
    tensor, perm = operand.source, operand.perm
    if perm == tuple(range(len(perm))):
        moved = maker(graph, tensor, "Transpose")
        if moved is None:
            return None
        tensor, perm = moved.inputs[0], tuple(moved.attrs.get("perm", ()))
    split = maker(graph, tensor, "Reshape")
    if perm != _SPLIT or split is None:
        return None
    return split.inputs[0] if _splits(split.inputs[0], tensor) else None


def _joined(last: Node, graph: Graph) -> Node | None:
    """The Reshape that makes [B, S, H * D] of the result [B, H, S, D] of `last`."""
    moved = reader(graph, last.outputs[0], "Transpose")
    if moved is None or tuple(moved.attrs.get("perm", ())) != _SPLIT:
        return None
    joined = reader(graph, moved.outputs[0], "Reshape")
    if joined is None or joined.owner is not last.owner:
        return None
    return joined if _splits(joined.outputs[0], moved.outputs[0]) else None


def _splits(whole: gs.Tensor, parts: gs.Tensor) -> bool:
    """Whether `whole` is [B, S, H * D] where `parts` is [B, S, H, D]."""
    if whole.shape is None or parts.shape is None:
        return False
    if len(whole.shape) != 3 or len(parts.shape) != 4 or None in (*whole.shape, *parts.shape):
        return False
    return bool(tuple(whole.shape[:2]) == tuple(parts.shape[:2]))
