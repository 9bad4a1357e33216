"""Transposed convolutions of quantized images, as ConvInteger and a move of its results.

Along an axis of stride s, element s*q + r of the result takes the taps k = r + s*t of the kernel:

    y[s*q + r] = sum over t of x[q - t] * w[r + s*t]

So each phase r is a small convolution, and all phases are the channels of one, whose kernel is
filled up with zeros to a multiple of the stride; gaps of a dilated kernel are zeros, too. Its
results are quantized where they are, then put side by side, and what pads cut off is left away.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from edgec.graph import Graph
from edgec.qdq.operand import activation, weight
from edgec.qdq.sums import Array, Product, bias_of, check_range, insert_sums
from edgec.qdq.tail import Result, finished
from edgec.rewrite import Skip
from edgec.tensors import Node

_TO_END = np.iinfo(np.int64).max


@dataclass(frozen=True, eq=False)
class _Phases:
    """The convolution that makes all phases: its `weights` [groups * phases * O, I, taps...], the
    `pads` of the image, how much of the result is cut off `before` and `after`, and the `channel`
    of the result that each of the convolution's is of."""

    weights: Array
    groups: int
    strides: list[int]
    pads: list[int]
    before: list[int]
    after: list[int]
    channel: Array


def transposed(graph: Graph, node: Node, end: Result) -> gs.Tensor:
    """What a ConvTranspose by constant weights makes. Skips where it is none of integers."""
    x, w = activation(graph, node.inputs[0]), weight(graph, node.inputs[1], 1)
    if w.values.ndim < 3:
        raise Skip("its weights have no kernel")
    found = _phases(node, w.values)
    scale = np.float64(x.scale) * w.scales.astype(np.float64)
    if scale.size > 1:
        scale = np.tile(scale, found.groups)
    bias = None
    if len(node.inputs) > 2 and node.inputs[2].name:
        bias = bias_of(graph, node.inputs[2], scale, found.groups * w.values.shape[1])
        bias = bias[found.channel]
    check_range(found.weights, 0, x, bias)
    along = (1, -1, *(1,) * len(found.strides))
    scale = scale[found.channel].reshape(along) if scale.size > 1 else scale.reshape(())
    bias = None if bias is None else bias.reshape(along)
    attrs = {"pads": found.pads, "group": found.groups}
    moves = _moves(node, found)
    sums = Product("ConvInteger", x, found.weights, bias, scale, node, attrs)
    made = finished(graph, node, insert_sums(graph, node, sums), scale, end)
    for op, constants, move in moves:
        inputs = [made, *(graph.constant(np.array(c, np.int64), "places") for c in constants)]
        moved = graph.insert(node, op, inputs, move).outputs[0]
        made, moved.dtype = moved, made.dtype
    return made


def _phases(node: Node, weights: Array) -> _Phases:
    """Of weights [C, O / groups, kernel...]."""
    rank = weights.ndim - 2
    strides = [int(s) for s in node.attrs.get("strides", [1] * rank)]
    dilations = [int(d) for d in node.attrs.get("dilations", [1] * rank)]
    extra = [int(n) for n in node.attrs.get("output_padding", [0] * rank)]
    groups = int(node.attrs.get("group", 1))
    reach = [(k - 1) * d + 1 for k, d in zip(weights.shape[2:], dilations, strict=True)]
    taps = [-(-far // s) for far, s in zip(reach, strides, strict=True)]
    filled = np.zeros((*weights.shape[:2], *map(math.prod, zip(taps, strides, strict=True))), "i1")
    steps = [slice(0, far, d) for far, d in zip(reach, dilations, strict=True)]
    filled[(slice(None), slice(None), *steps)] = weights
    inputs, outputs = weights.shape[0] // groups, weights.shape[1]
    parts = [n for pair in zip(taps, strides, strict=True) for n in pair]
    apart = filled.reshape(groups, inputs, outputs, *parts)
    of_taps, of_phases = range(3, 3 + 2 * rank, 2), range(4, 4 + 2 * rank, 2)
    apart = np.flip(apart, tuple(of_taps)).transpose(0, *of_phases, 2, 1, *of_taps)
    channels = np.arange(groups * outputs).reshape(groups, 1, outputs)
    before, after = _pads(node, [n + far for n, far in zip(extra, reach, strict=True)], strides)
    first = [min(b // s, t - 1) for b, s, t in zip(before, strides, taps, strict=True)]
    ends = [n + far - a for n, far, a in zip(extra, reach, after, strict=True)]
    behind = [max((n - 1) // s, 0) for n, s in zip(ends, strides, strict=True)]
    return _Phases(
        np.ascontiguousarray(apart.reshape(-1, inputs, *taps)),
        groups,
        strides,
        [*(t - 1 - q for t, q in zip(taps, first, strict=True)), *behind],
        [b - q * s for b, q, s in zip(before, first, strides, strict=True)],
        [s * (q + 1) - n for s, q, n in zip(strides, behind, ends, strict=True)],
        np.broadcast_to(channels, (groups, math.prod(strides), outputs)).reshape(-1),
    )


def _pads(node: Node, reach: list[int], strides: list[int]) -> tuple[list[int], list[int]]:
    """What is cut off before and after, where one element of the image makes `reach` of the whole
    result."""
    rank, auto = len(reach), node.attrs.get("auto_pad", "NOTSET")
    if auto == "VALID":
        return [0] * rank, [0] * rank
    if auto in ("NOTSET", "") and "output_shape" not in node.attrs:
        pads = [int(p) for p in node.attrs.get("pads", [0] * 2 * rank)]
        if min(pads, default=0) < 0:
            raise Skip("it pads its result")
        return pads[:rank], pads[rank:]
    sizes = [(node.inputs[0].shape or ())[2:], (node.outputs[0].shape or ())[2:]]
    if not all(len(s) == rank and all(isinstance(n, int) for n in s) for s in sizes):
        raise Skip("its sizes are not known")
    whole = (s * (n - 1) + far for s, n, far in zip(strides, sizes[0], reach, strict=True))
    totals = [n - wanted for n, wanted in zip(whole, sizes[1], strict=True)]
    if min(totals) < 0:
        raise Skip("it pads its result")
    less, more = [t // 2 for t in totals], [t - t // 2 for t in totals]
    return (less, more) if auto == "SAME_UPPER" else (more, less)


def _moves(node: Node, found: _Phases) -> list[tuple[str, list[list[int]], dict[str, Any]]]:
    """What makes neighbours of phases that are channels, and cuts off what is too much: operators,
    their constant inputs behind the first, and their attributes."""
    moves = _interleaved(node, found) if max(found.strides) > 1 else []
    if any((*found.before, *found.after)):
        ends = [-n if n else _TO_END for n in found.after]
        moves.append(("Slice", [found.before, ends, list(range(2, 2 + len(ends)))], {}))
    return moves


def _interleaved(node: Node, found: _Phases) -> list[tuple[str, list[list[int]], dict[str, Any]]]:
    strides, rank = found.strides, len(found.strides)
    if rank == 2 and found.groups == 1 and strides[0] == strides[1]:
        return [("DepthToSpace", [], {"blocksize": strides[0]})]
    space = (node.inputs[0].shape or ())[2:]
    if len(space) != rank or not all(isinstance(n, int) for n in space):
        raise Skip("its sizes are not known")
    taps = found.weights.shape[2:]
    rows = [
        n + low + high - (t - 1)
        for n, low, high, t in zip(space, found.pads[:rank], found.pads[rank:], taps, strict=True)
    ]
    channels = len(found.channel) // math.prod(strides)
    apart = [0, found.groups, *strides, channels // found.groups, *rows]
    order = [0, 1, 2 + rank, *(axis for k in range(rank) for axis in (3 + rank + k, 2 + k))]
    whole = [0, channels, *(n * s for n, s in zip(rows, strides, strict=True))]
    return [
        ("Reshape", [apart], {}),
        ("Transpose", [], {"perm": order}),
        ("Reshape", [whole], {}),
    ]
