"""Compute quantized patterns in integers: sums exactly, one rounding at the end.

    y = QuantizeLinear(Relu(Conv(DequantizeLinear(x, s, z), DequantizeLinear(w, t, 0),
                                 DequantizeLinear(b, s * t))), u, v)
      =>   y = QuantizeLinear(Clip(Cast(ConvInteger(x, w, z) + b) * (s * t / u)), 1, v)

    y = QuantizeLinear(Add(DequantizeLinear(a, s, z), DequantizeLinear(b, t, w)), u, v)
      =>   y = QuantizeLinear(Add(DequantizeLinear(a, s / u, z),
                                  DequantizeLinear(b, t / u, w)), 1, v)

    y = QuantizeLinear(Mul(DequantizeLinear(a, s, z), DequantizeLinear(b, t, w)), u, v)
      =>   y = QuantizeLinear(Cast((Cast(a) - z) * (Cast(b) - w)) * (s * t / u), 1, v)

    y = QuantizeLinear(MatMul(DequantizeLinear(a, s, z), DequantizeLinear(b, t, w)), u, v)
      =>   y = QuantizeLinear(Cast(MatMulInteger(a, b, z, w)) * (s * t / u), 1, v)

    y = QuantizeLinear(Resize(DequantizeLinear(x, s, z)), u, v)
      =>   y = QuantizeLinear(Resize(DequantizeLinear(x, 1, z)) * (s / u), 1, v)

So Conv, Gemm and MatMul by constant weights, with the bias that an Add behind the latter adds,
ConvTranspose by constant weights (`edgec.qdq.transposed`), MatMul of two activations, Add, Sub,
Mul, AveragePool, GlobalAveragePool and ReduceMean over height and width; Softmax and
LayerNormalization over the last axis (`edgec.qdq.rows` has their formulas); and Resize, whose means
of integers are exact where its factors are powers of two. The result of products by constant
weights may also stay in floats. Of two operands one may be constant.

*Needs* uint8 activations of one constant scale each (`unsign-activations` sees to that, and
`sink-dequantize` to what moves elements between them), int8 weights about 0, a bias in int32 and
steps of the product of both scales, and sums that cannot leave int32.

*Numerics*: rounding. The multiplier is rounded to float32 once and the sum is exact, so that a
result just between two integers may become the other one than in floats.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from edgec.graph import Graph
from edgec.qdq.operand import UINT8, activation
from edgec.qdq.pairs import product_of_two, sum_of_two
from edgec.qdq.rows import layer_normalization, softmax
from edgec.qdq.sums import check_range, insert_sums, product
from edgec.qdq.tail import Result, finished, requantized, result
from edgec.qdq.transposed import transposed
from edgec.rewrite import Numerics, Pass, Skip
from edgec.tensors import Constant, Node

_PRODUCTS = ("Conv", "Gemm", "MatMul")
_MEANS = ("GlobalAveragePool", "ReduceMean")
_ROWS = ("Softmax", "LayerNormalization")
PATTERNS = (
    *(*_PRODUCTS, *_MEANS, *_ROWS),
    *("AveragePool", "Add", "ConvTranspose", "Sub", "Mul", "Resize"),
)
"""Operators that have an integer form."""


@dataclass(frozen=True)
class ConvertQdqToInteger(Pass):
    name: ClassVar[str] = "convert-qdq-to-integer"
    numerics: ClassVar[Numerics] = "rounding"

    def run(self, graph: Graph) -> Iterator[Node | tuple[Node, Skip]]:
        for node in list(graph.nodes()):
            if node.op not in PATTERNS or node.domain or not node.outputs:
                continue
            try:
                end, made = _convert(graph, node)
            except Skip as skip:
                yield node, skip
            else:
                graph.replace(end.last.outputs[0], made)
                yield node


def _convert(graph: Graph, node: Node) -> tuple[Result, gs.Tensor]:
    """Where the pattern of `node` ends, and what makes its result."""
    if node.op in _PRODUCTS:
        found = product(graph, node)
        end = result(graph, found.last)
        return end, finished(graph, node, insert_sums(graph, node, found), found.scale, end)
    end = result(graph, node)
    if node.op == "ConvTranspose":
        return end, transposed(graph, node, end)
    if end.parameters is None:
        raise Skip("its result is not quantized")
    if node.op in ("Add", "Sub"):
        return end, sum_of_two(graph, node, end)
    if node.op == "Mul":
        return end, product_of_two(graph, node, end)
    if node.op == "Softmax":
        return end, softmax(graph, node, end)
    if node.op == "LayerNormalization":
        return end, layer_normalization(graph, node, end)
    if node.op == "Resize":
        return end, _resized(graph, node, end)
    return end, _mean(graph, node, end)


def _resized(graph: Graph, node: Node, end: Result) -> gs.Tensor:
    """Means of elements less their zero point, in steps of theirs."""
    assert end.parameters is not None
    x = activation(graph, node.inputs[0])
    if x.scale == end.parameters.scale == 1.0:
        raise Skip("it is in steps of its result")
    one = graph.constant(np.array(1, np.float32), "scale")
    zero = graph.constant(np.array(x.zero, np.uint8), "zero_point")
    value = graph.insert(node, "DequantizeLinear", [x.tensor, one, zero]).outputs[0]
    value = graph.insert(node, "Resize", [value, *node.inputs[1:]], node.attrs).outputs[0]
    step = np.float32(np.float64(x.scale) / np.float64(end.parameters.scale))
    if step != 1:
        factor = graph.constant(np.array(step), "multiplier")
        value = graph.insert(node, "Mul", [value, factor]).outputs[0]
    return requantized(graph, node, value, end)


def _mean(graph: Graph, node: Node, end: Result) -> gs.Tensor:
    """A sum by weights of 1, channel by channel."""
    x = activation(graph, node.inputs[0])
    shape = node.inputs[0].shape
    if shape is None or len(shape) < 3 or not all(isinstance(n, int) for n in shape[1:]):
        raise Skip("its channels, height and width are not known")
    kernel, attrs = _window(node) if node.op == "AveragePool" else (shape[2:], {})
    if node.op == "ReduceMean" and _axes(node, len(shape)) != tuple(range(2, len(shape))):
        raise Skip("it is a mean over other axes than height and width")
    ones = np.ones((shape[1], 1, *kernel), np.int8)
    check_range(ones, 0, x, None)
    inputs = [
        x.tensor,
        graph.constant(ones, "ones"),
        graph.constant(np.array(x.zero, np.uint8), "zero_point"),
    ]
    attrs = {**attrs, "group": shape[1]}
    sums = graph.insert(node, "ConvInteger", inputs, attrs).outputs[0]
    mean = finished(graph, node, sums, np.array(np.float64(x.scale) / math.prod(kernel)), end)
    if node.op != "ReduceMean" or node.attrs.get("keepdims", 1):
        return mean
    wanted = graph.constant(np.array([0, shape[1]], np.int64), "shape")
    flat = graph.insert(node, "Reshape", [mean, wanted]).outputs[0]
    flat.dtype = UINT8
    return flat


def _axes(node: Node, rank: int) -> tuple[int, ...]:
    """The axes of a reduction, ascending. Skips where they are not known."""
    listed = node.attrs.get("axes") if len(node.inputs) < 2 else None
    if len(node.inputs) > 1 and isinstance(node.inputs[1], Constant):
        listed = node.inputs[1].values.reshape(-1).tolist()
    if listed is None:
        raise Skip("the axes of a reduction are not known")
    return tuple(sorted(int(axis) % rank for axis in listed))


def _window(node: Node) -> tuple[list[int], dict[str, Any]]:
    """The extent of an AveragePool's windows, all alike, and where they go."""
    kernel = [int(k) for k in node.attrs["kernel_shape"]]
    pads = [int(p) for p in node.attrs.get("pads", [0] * 2 * len(kernel))]
    if node.attrs.get("ceil_mode", 0) or node.attrs.get("auto_pad", "NOTSET") != "NOTSET":
        raise Skip("the sizes of its windows differ")
    if any(pads) and not node.attrs.get("count_include_pad", 0):
        raise Skip("the sizes of its windows differ")
    kept = {k: v for k, v in node.attrs.items() if k in ("strides", "dilations", "kernel_shape")}
    return kernel, {**kept, "pads": pads}
