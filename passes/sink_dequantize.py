"""Move elements as the integers they are, and dequantize them afterwards.

    y = Transpose(DequantizeLinear(x, s, z))   =>   y = DequantizeLinear(Transpose(x), s, z)
    y = QuantizeLinear(Reshape(f), s, z)   =>   y = Reshape(QuantizeLinear(f, s, z))
    y = QuantizeLinear(DequantizeLinear(x, s, z), s, z)   =>   y = x
    y = QuantizeLinear(DequantizeLinear(x, s, z), t, w)
      =>   y = QuantizeLinear(DequantizeLinear(x, s / t, z), 1, w)

So Reshape, Flatten, Squeeze, Unsqueeze, Transpose, Slice, Split, Gather, Expand, DepthToSpace,
SpaceToDepth, Identity, MaxPool, Resize to the nearest, and Concat, whose inputs are requantized
where their parameters differ from those of its result.

*Needs* 8-bit integers of one constant scale, which every reader of them shares.

*Numerics*: rounding where elements are requantized, else exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from edgec.graph import Graph
from edgec.patterns import maker, reader
from edgec.qdq.operand import UINT8, Activation, activation, parameters
from edgec.rewrite import Numerics, Pass, Skip
from edgec.tensors import Node

_SHAPES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose")
MOVES = (
    *(*_SHAPES, "Slice", "Split", "Gather", "Expand"),
    *("DepthToSpace", "SpaceToDepth", "Identity", "MaxPool"),
)


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
                elif node.op == "Concat":
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


def _join(graph: Graph, node: Node) -> None:
    parts = [activation(graph, tensor) for tensor in node.inputs]
    end = reader(graph, node.outputs[0], "QuantizeLinear")
    if end is None:
        if len({(part.scale, part.zero) for part in parts}) > 1:
            raise Skip("its operands are in different steps")
        scale, zero = parts[0].scale, parts[0].zero
    else:
        found = parameters(end)
        if found.dtype != UINT8:
            raise Skip("its result has a sign")
        scale, zero = found.scale, found.zero
    inputs = [_in_steps(graph, node, part, scale, zero) for part in parts]
    joined = graph.insert(node, "Concat", inputs, node.attrs).outputs[0]
    joined.dtype = UINT8
    if end is None:
        graph.replace(node.outputs[0], _dequantized(graph, node, joined, scale, zero))
    else:
        graph.replace(end.outputs[0], joined)


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
