"""Attention as one kernel: scores, their softmax, and its product with the values.

    softmax(tail(q k)) v

In one kernel, a thread takes a few queries at a time and keeps their scores in its cache; the
scores of all queries, the largest tensor of a transformer, are never written out.
"""

from __future__ import annotations

from tvm import IRModule, tirx

from edgec.lower.joined import blocks_of, join
from edgec.lower.origins import Nodes

SOFTMAX = ["largest", "powers", "total", "share", "softmax"]
"""The stages of `edgec.lower.softmax`."""


def join_attention(module: IRModule, nodes: dict[str, Nodes]) -> IRModule:
    """A fused module with a softmax in one kernel with the product it weights and with the scores
    that it is taken of; `nodes` as `edgec.lower.joined.join` takes them."""
    return join(join(module, nodes, _weights_values), nodes, _scores_weights)


def _weights_values(first: tirx.PrimFunc, second: tirx.PrimFunc, place: int) -> bool:
    """Whether `first` is a softmax over the last axis, `second` begins with its product by a
    matrix, of as many batches, and `place` is its left operand."""
    stages = blocks_of(first)
    if [block.name_hint for block in stages] != SOFTMAX:
        return False
    largest = stages[0]
    over_last = largest.reads[0].region[-1].min.same_as(largest.iter_vars[-1].var)
    weights = second.params[place]
    sizes = _product(second)
    *lead, rows, _, terms = sizes or [0, 0, 0]
    return (
        over_last
        and [int(size) for size in weights.shape] == [*lead, rows, terms]
        and blocks_of(second)[0].reads[0].source.same_as(weights)
    )


def _scores_weights(first: tirx.PrimFunc, second: tirx.PrimFunc, place: int) -> bool:
    """Whether `first` makes scores, as a product with a tail, and `second` takes the softmax of
    its parameter `place` before anything else."""
    stages = blocks_of(second)
    return (
        [block.name_hint for block in stages[:-1]][:5] == SOFTMAX
        and stages[0].reads[0].source.same_as(second.params[place])
        and bool(_product(first))
    )


def _product(function: tirx.PrimFunc) -> list[int]:
    """The extents of the product that `function` begins with, terms last, where everything after it
    works element by element on all of it; none where that is not so."""
    product, *tail = blocks_of(function)
    sizes = [int(var.dom.extent) for var in product.iter_vars]
    if product.name_hint != "matmul" or len(sizes) < 3 or 0 in sizes:
        return []
    whole = all([int(var.dom.extent) for var in block.iter_vars] == sizes[:-1] for block in tail)
    return sizes if whole else []
