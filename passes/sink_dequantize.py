"""Move elements as the integers they are, and dequantize them afterwards.

    y = Transpose(DequantizeLinear(x, s, z))   =>   y = DequantizeLinear(Transpose(x), s, z)
    y = QuantizeLinear(Reshape(f), s, z)   =>   y = Reshape(QuantizeLinear(f, s, z))
    y = QuantizeLinear(DequantizeLinear(x, s, z), s, z)   =>   y = x
    y = QuantizeLinear(DequantizeLinear(x, s, z), t, w)
      =>   y = QuantizeLinear(DequantizeLinear(x, s / t, z), 1, w)

So Reshape, Flatten, Squeeze, Unsqueeze, Transpose, Slice, Split, Gather, GatherElements, GatherND,
Expand, Tile, DepthToSpace, SpaceToDepth, ReverseSequence, Compress, Identity, MaxPool, ReduceMax,
ReduceMin, Resize to the nearest, and Pad by elements of the input or by a constant that is one in
its steps; and Concat, Where, Max, Min and scattering, whose operands are requantized where their
parameters differ from those of the result.

*Needs* 8-bit integers of one constant scale, which every reader of them shares.

*Numerics*: rounding where elements are requantized, else exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from edgec.arrays import Array
from edgec.graph import Graph
from edgec.patterns import maker, reader, scalar
from edgec.qdq.operand import UINT8, Activation, activation, operand, parameters
from edgec.rewrite import Numerics, Pass, Skip
from edgec.tensors import Constant, Node

_SHAPES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose")
MOVES = (
    *(*_SHAPES, "Slice", "Split", "Gather", "Expand"),
    *("DepthToSpace", "SpaceToDepth", "Identity", "MaxPool"),
    *("GatherElements", "GatherND", "Tile", "ReverseSequence", "Compress"),
    *("ReduceMax", "ReduceMin"),
)
_JOINS: dict[str, Callable[[Node], Iterable[int]]] = {
    **dict.fromkeys(("Concat", "Max", "Min"), lambda node: range(len(node.inputs))),
    "Where": lambda node: (1, 2),
    **dict.fromkeys(("ScatterElements", "ScatterND"), lambda node: _scattered(node)),
}
"""Operators that choose among elements of several operands, and which inputs these are."""


@dataclass(frozen=True)
class SinkDequantize(Pass):
    name: ClassVar[str] = "sink-dequantize"
    numerics: ClassVar[Numerics] = "rounding"

    def run(self, graph: Graph) -> Iterator[Node | tuple[Node, Skip]]:
        for node in list(graph.nodes()):
            if node.domain or not node.outputs:
                continue
            try:
                if node.op in MOVES or _is_nearest(node):
                    _move(graph, node)
                elif node.op == "Pad":
                    _pad(graph, node)
                elif node.op in _JOINS:
                    _join(graph, node)
                elif node.op == "QuantizeLinear":
                    _requantize(graph, node)
                else:
                    continue
            except Skip as skip:
                yield node, skip
            else:
                yield node


def _is_nearest(node: Node) -> bool:
    """Whether it is a Resize whose elements are all elements of its input."""
    attrs = node.attrs
    cropped = attrs.get("coordinate_transformation_mode") == "tf_crop_and_resize"
    return node.op == "Resize" and attrs.get("mode", "nearest") == "nearest" and not cropped


def _move(graph: Graph, node: Node) -> None:
    x = activation(graph, node.inputs[0])
    used = [tensor for tensor in node.outputs if tensor.name and graph.uses(tensor)]
    if node.op == "MaxPool" and used != node.outputs[:1]:
        raise Skip("it also says where the largest elements are")
    made = graph.insert(
        node,
        node.op,
        [x.tensor, *node.inputs[1:]],
        node.attrs,
        outputs=1 if node.op == "MaxPool" else len(node.outputs),
    )
    for old, new in zip(node.outputs, made.outputs, strict=False):
        new.dtype, new.shape = UINT8, old.shape
        graph.replace(old, _dequantized(graph, node, new, x.scale, x.zero))


def _pad(graph: Graph, node: Node) -> None:
    x = activation(graph, node.inputs[0])
    inputs = [x.tensor, *node.inputs[1:]]
    if node.attrs.get("mode", "constant") == "constant":
        given = inputs[2] if len(inputs) > 2 and inputs[2].name else None
        value = 0.0 if given is None else scalar(given)
        if value is None:
            raise Skip("what it pads with is not constant")
        rounds = _end(graph, node) == (x.scale, x.zero)
        element = _elements(np.array(value, np.float32), x.scale, x.zero, rounds)
        inputs[2:3] = [graph.constant(element, "element")]
    made = graph.insert(node, "Pad", inputs, node.attrs).outputs[0]
    made.dtype, made.shape = UINT8, node.outputs[0].shape
    graph.replace(node.outputs[0], _dequantized(graph, node, made, x.scale, x.zero))


def _elements(values: Array, scale: float, zero: int, rounds: bool) -> Array:
    """What floats are in steps of `scale`. Skips where they are between two, unless they would be
    rounded to these anyway."""
    with np.errstate(over="ignore"):
        steps = np.clip(np.rint(values / np.float32(scale)), -zero, 255 - zero)
    if not rounds and np.any(steps * np.float32(scale) != values):
        raise Skip("a constant is no element")
    return (steps + zero).astype(np.uint8)


def _end(graph: Graph, node: Node) -> tuple[float, int] | None:
    """The scale and zero point that alone the result of `node` is quantized by, if it is."""
    end = reader(graph, node.outputs[0], "QuantizeLinear")
    if end is None:
        return None
    found = parameters(end)
    if found.dtype != UINT8:
        raise Skip("its result has a sign")
    return found.scale, found.zero


def _scattered(node: Node) -> Iterable[int]:
    if node.attrs.get("reduction", "none") not in ("none", "max", "min"):
        raise Skip("it computes with what it scatters")
    return 0, 2


def _join(graph: Graph, node: Node) -> None:
    places = _JOINS[node.op](node)
    raw = {i for i in places if isinstance(node.inputs[i], Constant)}
    parts = {i: operand(graph, node.inputs[i]) for i in places if i not in raw}
    if all(isinstance(part.tensor, Constant) for part in parts.values()):
        raise Skip("it computes with constants alone")
    end = _end(graph, node)
    if end is None and len({(part.scale, part.zero) for part in parts.values()}) > 1:
        raise Skip("its operands are in different steps")
    first = next(iter(parts.values()))
    scale, zero = end or (first.scale, first.zero)
    inputs = list(node.inputs)
    for i in raw:
        elements = _elements(inputs[i].values, scale, zero, rounds=end is not None)
        inputs[i] = graph.constant(elements, "elements")
    for i, part in parts.items():
        inputs[i] = _in_steps(graph, node, part, scale, zero)
    joined = graph.insert(node, node.op, inputs, node.attrs).outputs[0]
    joined.dtype, joined.shape = UINT8, node.outputs[0].shape
    if end is None:
        graph.replace(node.outputs[0], _dequantized(graph, node, joined, scale, zero))
    else:
        graph.replace(graph.consumers(node.outputs[0])[0].outputs[0], joined)


def _requantize(graph: Graph, node: Node) -> None:
    before = maker(graph, node.inputs[0], "DequantizeLinear")
    if before is None:
        _hoist(graph, node)
        return
    x, found = activation(graph, node.inputs[0]), parameters(node)
    if found.dtype != UINT8:
        raise Skip("its result has a sign")
    if found.scale == 1.0:
        raise Skip("it is in steps of its result")
    why = graph.why_not_replace(node.outputs[0], x.tensor)
    if (x.scale, x.zero) == (found.scale, found.zero) and why:
        raise Skip(why)
    graph.replace(node.outputs[0], _in_steps(graph, node, x, found.scale, found.zero))


def _hoist(graph: Graph, node: Node) -> None:
    """Quantize before what only moves elements."""
    move, found = maker(graph, node.inputs[0], *_SHAPES), parameters(node)
    if move is None or graph.uses(move.outputs[0]) > 1:
        raise Skip("it quantizes what is computed")
    inputs = [move.inputs[0], *node.inputs[1:]]
    quantized = graph.insert(move, "QuantizeLinear", inputs, node.attrs).outputs[0]
    quantized.dtype, quantized.shape = found.dtype, move.inputs[0].shape
    moved = graph.insert(move, move.op, [quantized, *move.inputs[1:]], move.attrs).outputs[0]
    moved.dtype, moved.shape = found.dtype, node.outputs[0].shape
    graph.replace(node.outputs[0], moved)


def _in_steps(graph: Graph, beside: Node, x: Activation, scale: float, zero: int) -> gs.Tensor:
    """The elements of `x` quantized by another scale and zero point."""
    if (x.scale, x.zero) == (scale, zero):
        return x.tensor
    ratio = float(np.float32(np.float64(x.scale) / np.float64(scale)))
    value = _dequantized(graph, beside, x.tensor, ratio, x.zero)
    inputs = [value, *_parameters(graph, 1.0, zero)]
    made = graph.insert(beside, "QuantizeLinear", inputs).outputs[0]
    made.dtype, made.shape = UINT8, x.tensor.shape
    return made


def _dequantized(graph: Graph, beside: Node, x: gs.Tensor, scale: float, zero: int) -> gs.Tensor:
    made = graph.insert(beside, "DequantizeLinear", [x, *_parameters(graph, scale, zero)])
    return made.outputs[0]


def _parameters(graph: Graph, scale: float, zero: int) -> list[gs.Tensor]:
    return [
        graph.constant(np.array(scale, np.float32), "scale"),
        graph.constant(np.array(zero, np.uint8), "zero_point"),
    ]
