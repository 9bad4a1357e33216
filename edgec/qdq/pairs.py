"""Two quantized tensors, element by element: sums, differences and products.

    rint((a - a zero) * Ma +- (b - b zero) * Mb)        Ma = float32(a scale / y scale)
    rint(float32((a - a zero) * (b - b zero)) * M)      M = float32(a scale * b scale / y scale)

The terms of a sum are float32 products, each rounded; a product of two bytes is an exact int32.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from edgec.graph import Graph
from edgec.qdq.operand import Activation, operand
from edgec.qdq.tail import Result, finished, requantized
from edgec.rewrite import Skip
from edgec.tensors import Constant, Node


def sum_of_two(graph: Graph, node: Node, end: Result) -> gs.Tensor:
    """What an Add or Sub makes, both operands in steps of the result."""
    assert end.parameters is not None
    if end.parameters.scale == 1.0:
        raise Skip("it is in steps of its result")
    operands = [operand(graph, tensor) for tensor in node.inputs]
    terms = []
    for each in operands:
        step = np.array(np.float64(each.scale) / np.float64(end.parameters.scale), np.float32)
        zero = graph.constant(np.array(each.zero, np.uint8), "zero_point")
        inputs = [each.tensor, graph.constant(step, "scale"), zero]
        terms.append(graph.insert(node, "DequantizeLinear", inputs).outputs[0])
    total = graph.insert(node, node.op, terms).outputs[0]
    return requantized(graph, node, total, end)


def product_of_two(graph: Graph, node: Node, end: Result) -> gs.Tensor:
    """What a Mul makes, of int32 products."""
    assert end.parameters is not None
    operands = [operand(graph, tensor) for tensor in node.inputs]
    if all(isinstance(each.tensor, Constant) for each in operands):
        raise Skip("both operands are constant")
    scale = np.array(np.prod([np.float64(each.scale) for each in operands]))
    if scale / np.float64(end.parameters.scale) > np.finfo(np.float32).max:
        raise Skip("its factor is no float32")
    factors = [centred(graph, node, each) for each in operands]
    product = graph.insert(node, "Mul", factors).outputs[0]
    return finished(graph, node, product, scale, end)


def centred(graph: Graph, beside: Node, x: Activation) -> gs.Tensor:
    """The elements of `x` less its zero point, int32."""
    wide = graph.insert(beside, "Cast", [x.tensor], {"to": TensorProto.INT32}).outputs[0]
    if not x.zero:
        return wide
    zero = graph.constant(np.array(x.zero, np.int32), "zero_point")
    return graph.insert(beside, "Sub", [wide, zero]).outputs[0]
