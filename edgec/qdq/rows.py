"""Softmax and LayerNormalization over the last axis, in integers up to one division for each row.

Softmax:
    e = table[x max - x]                table[d] = rint(65535 * exp(-d * x scale)), in float64
    q = rint(float32(e) * (M / float32(sum e)))                             M = float32(1 / y scale)

LayerNormalization, of N elements c = x - x zero:
    S = sum c, V = N * sum c^2 - S^2    exact, V in int64
    r = 1 / sqrt(float32(V) + E)                         E = float32(N^2 * epsilon / x scale^2)
    q = rint(float32(N * c - S) * r * G + B)             G = float32(scale / y scale), B likewise

Every operation of floats is one of IEEE 754, and rounded by itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from edgec.graph import Graph
from edgec.patterns import maker
from edgec.qdq.operand import activation
from edgec.qdq.pairs import centred
from edgec.qdq.tail import Result, requantized
from edgec.rewrite import Skip
from edgec.tensors import Constant, Node

Array = np.ndarray[Any, Any]

WHOLE = 65535
"""What the table of powers has for the largest element of a row."""
MOST_TERMS = 1 << 15
"""Of a row: 2^15 times 65535, or times the square of a byte, are less than 2^31."""
_LARGEST = 1e30
"""A parameter that is larger might make infinity."""


def softmax(graph: Graph, node: Node, end: Result) -> gs.Tensor:
    """The uint8 elements of a quantized Softmax."""
    assert end.parameters is not None
    x = activation(graph, node.inputs[0])
    _terms(node)
    powers = np.rint(WHOLE * np.exp(-np.float64(x.scale) * np.arange(256))).astype(np.int32)
    most = _float32(np.array(1 / np.float64(end.parameters.scale)))

    def insert(op: str, *inputs: gs.Tensor, **attrs: Any) -> gs.Tensor:
        return graph.insert(node, op, list(inputs), attrs).outputs[0]

    last = graph.constant(np.array([-1], np.int64), "axes")
    wide = insert("Cast", x.tensor, to=TensorProto.INT32)
    below = insert("Sub", insert("ReduceMax", wide, last), wide)
    power = insert("Gather", graph.constant(powers, "powers"), below)
    total = insert("Cast", insert("ReduceSum", power, last), to=TensorProto.FLOAT)
    share = insert("Div", graph.constant(most, "most"), total)
    value = insert("Mul", insert("Cast", power, to=TensorProto.FLOAT), share)
    return requantized(graph, node, value, end)


def layer_normalization(graph: Graph, node: Node, end: Result) -> gs.Tensor:
    """The uint8 elements of a quantized LayerNormalization."""
    assert end.parameters is not None
    x = activation(graph, node.inputs[0])
    terms, step = _terms(node), np.float64(end.parameters.scale)
    if any(tensor.name and graph.uses(tensor) for tensor in node.outputs[1:]):
        raise Skip("its mean or deviation is used")
    if node.attrs.get("stash_type", 1) != 1:
        raise Skip("it computes in another type than float32")
    gains, *biases = (_vector(graph, t, terms) for t in node.inputs[1:] if t.name)
    gain = _float32(gains / step)
    bias = _float32(biases[0] / step if biases else np.zeros(terms))
    epsilon = np.float64(np.float32(node.attrs.get("epsilon", 1e-5)))
    least = _float32(np.array(terms**2 * epsilon / np.float64(x.scale) ** 2))
    if least < np.finfo(np.float32).tiny:
        raise Skip("its epsilon is too small")

    def insert(op: str, *inputs: gs.Tensor, **attrs: Any) -> gs.Tensor:
        return graph.insert(node, op, list(inputs), attrs).outputs[0]

    def number(value: Any, hint: str) -> gs.Tensor:
        return graph.constant(np.array(value), hint)

    last = graph.constant(np.array([-1], np.int64), "axes")
    centre = centred(graph, node, x)
    total = insert("ReduceSum", centre, last)
    squares = insert("ReduceSum", insert("Mul", centre, centre), last)
    long_total, long_squares = (
        insert("Cast", each, to=TensorProto.INT64) for each in (total, squares)
    )
    spread = insert(
        "Sub",
        insert("Mul", long_squares, number(np.int64(terms), "terms")),
        insert("Mul", long_total, long_total),
    )
    variance = insert("Cast", spread, to=TensorProto.FLOAT)
    root = insert("Sqrt", insert("Add", variance, graph.constant(least, "epsilon")))
    factor = insert("Div", number(np.float32(1), "one"), root)
    away = insert("Sub", insert("Mul", centre, number(np.int32(terms), "terms")), total)
    value = insert("Mul", insert("Cast", away, to=TensorProto.FLOAT), factor)
    value = insert("Mul", value, graph.constant(gain, "gain"))
    value = insert("Add", value, graph.constant(bias, "bias"))
    return requantized(graph, node, value, end)


def _terms(node: Node) -> int:
    """The elements of a row. Skips where these lie along other axes than the last, or are many."""
    shape = node.inputs[0].shape
    if not shape or not isinstance(shape[-1], int):
        raise Skip("the number of its terms is not known")
    if int(node.attrs.get("axis", -1)) % len(shape) != len(shape) - 1:
        raise Skip("it is not over the last axis alone")
    if not 0 < shape[-1] <= MOST_TERMS:
        raise Skip("its sum may leave int32")
    return int(shape[-1])


def _vector(graph: Graph, tensor: gs.Tensor, terms: int) -> Array:
    """float64 [terms] of a constant, quantized by one scale or not."""
    made = maker(graph, tensor, "DequantizeLinear")
    given = [t for t in made.inputs if t.name] if made is not None else [tensor]
    if not all(isinstance(each, Constant) for each in given):
        raise Skip("its scale or bias is not constant")
    values, *by = (each.values.astype(np.float64) for each in given)
    if values.size not in (1, terms) or any(each.size != 1 for each in by):
        raise Skip("its scale or bias is no vector of one scale")
    if len(by) > 1:
        values = values - by[1].reshape(-1)
    if by:
        values = values * by[0].reshape(-1)
    return np.broadcast_to(values.reshape(-1), (terms,))


def _float32(values: Array) -> Array:
    """Skips where a value is not finite, or so large that a product with it may not be."""
    if not np.all(np.abs(values) < _LARGEST):
        raise Skip("its factors are no float32")
    return values.astype(np.float32)
