"""Sums of products of quantized operands, as ConvInteger and MatMulInteger."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from edgec.graph import Graph
from edgec.patterns import maker, other_operand, reader
from edgec.qdq.operand import Activation, Weight, activation, operand, weight
from edgec.rewrite import Skip
from edgec.tensors import Constant, Node

Array = np.ndarray[Any, Any]

_BIAS_RTOL = 1e-4
"""How far the scale of a bias may be from the product of the operands', which writers round."""


@dataclass(frozen=True, eq=False)
class Product:
    """A sum of products that `last` ends: x, the weights as the integer operator reads them, or
    another activation, the int32 bias, and what one step of each output channel's sum is worth,
    float64; both broadcast against the sums. `attrs` are those of the integer operator.
    """

    op: str
    x: Activation
    weights: Array | Activation
    bias: Array | None
    scale: Array
    last: Node
    attrs: Mapping[str, Any] = field(default_factory=dict)


def product(graph: Graph, node: Node) -> Product:
    """What a Conv, Gemm or MatMul of quantized operands sums up, with the bias that an Add behind a
    MatMul adds. Skips where it is none."""
    if node.op == "MatMul" and not _has_matrix(graph, node.inputs[1]):
        return _of_two(graph, node)
    x = activation(graph, node.inputs[0])
    if node.op == "Conv":
        w = weight(graph, node.inputs[1], 0)
        values, op = w.values, "ConvInteger"
        along: tuple[int, ...] = (1, -1, *(1,) * (values.ndim - 2))
        outputs = values.shape[0]
    else:
        w = _matrix(graph, node)
        values, op, along = w.values, "MatMulInteger", (-1,)
        outputs = values.shape[-1]
    scale = np.float64(x.scale) * w.scales.astype(np.float64)
    last, bias = node, None
    if node.op == "MatMul":
        last, bias = _bias_behind(graph, node, scale, outputs)
    elif len(node.inputs) > 2 and node.inputs[2].name:
        bias = bias_of(graph, node.inputs[2], scale, outputs)
    check_range(values, 0 if op == "ConvInteger" else values.ndim - 1, x, bias)
    scale = scale.reshape(along) if scale.size > 1 else scale.reshape(())
    bias = None if bias is None else bias.reshape(along)
    attrs = dict(node.attrs) if op == "ConvInteger" else {}
    return Product(op, x, values, bias, scale, last, attrs)


def _has_matrix(graph: Graph, tensor: gs.Tensor) -> bool:
    """Whether `tensor` is dequantized from a constant matrix."""
    made = maker(graph, tensor, "DequantizeLinear")
    constant = made.inputs[0] if made is not None else None
    return isinstance(constant, Constant) and len(constant.shape) == 2


def _of_two(graph: Graph, node: Node) -> Product:
    """A MatMul of two activations, at least one of which is computed."""
    a, b = (operand(graph, tensor) for tensor in node.inputs)
    if isinstance(a.tensor, Constant) and isinstance(b.tensor, Constant):
        raise Skip("both operands are constant")
    terms = node.inputs[0].shape[-1] if node.inputs[0].shape else None
    if not isinstance(terms, int):
        raise Skip("the number of its terms is not known")
    if terms * _most(a) * _most(b) >= 2**31:
        raise Skip("its sum may leave int32")
    scale = np.array(np.float64(a.scale) * np.float64(b.scale))
    return Product("MatMulInteger", a, b, None, scale, node)


def _most(x: Activation) -> int:
    """The largest magnitude of its elements."""
    return max(x.zero, 255 - x.zero)


def _matrix(graph: Graph, node: Node) -> Weight:
    attrs = node.attrs
    if attrs.get("alpha", 1.0) != 1.0 or attrs.get("beta", 1.0) != 1.0 or attrs.get("transA", 0):
        raise Skip("it scales or transposes what it multiplies")
    turned = node.op == "Gemm" and attrs.get("transB", 0)
    w = weight(graph, node.inputs[1], 0 if turned else -1)
    if w.values.ndim != 2:
        raise Skip("its weights are no matrix")
    return Weight(np.ascontiguousarray(w.values.T), w.scales, 1) if turned else w


def _bias_behind(graph: Graph, node: Node, scale: Array, outputs: int) -> tuple[Node, Array | None]:
    """The Add that alone reads the result of `node` and adds a bias to it, and that; `node` itself
    where there is none."""
    add = reader(graph, node.outputs[0], "Add")
    other = other_operand(add, node.outputs[0]) if add is not None else None
    if add is None or other is None or math.prod(other.shape or ()) != (other.shape or (0,))[-1]:
        return node, None
    if len(other.shape) > len(node.outputs[0].shape or ()):
        return node, None
    try:
        return add, bias_of(graph, other, scale, outputs)
    except Skip:
        return node, None


def bias_of(graph: Graph, tensor: gs.Tensor, scale: Array, outputs: int) -> Array:
    """The int32 bias [outputs] that `tensor` is. Skips where it is in other steps."""
    made = maker(graph, tensor, "DequantizeLinear")
    if made is None or not all(isinstance(t, Constant) for t in made.inputs if t.name):
        raise Skip("its bias is not quantized")
    values, own, *zero = (t.values for t in made.inputs if t.name)
    if values.dtype != np.int32 or any(np.any(each) for each in zero):
        raise Skip("its bias is not int32 about 0")
    if values.size not in (1, outputs):
        raise Skip("its bias is no vector of output channels")
    if not np.allclose(own.astype(np.float64), scale.reshape(-1), rtol=_BIAS_RTOL, atol=0):
        raise Skip("its bias is in other steps than its sum")
    return np.broadcast_to(values.reshape(-1), (outputs,)).astype(np.int32)


def check_range(values: Array, axis: int, x: Activation, bias: Array | None) -> None:
    """Skip where a sum over all axes of the weights `values` but `axis` may leave int32."""
    others = tuple(a for a in range(values.ndim) if a != axis)
    wide = values.astype(np.int64)
    positive, negative = np.maximum(wide, 0).sum(others), np.minimum(wide, 0).sum(others)
    above, below = 255 - x.zero, -x.zero
    offset = 0 if bias is None else bias.astype(np.int64)
    highest = positive * above + negative * below + offset
    lowest = positive * below + negative * above + offset
    if highest.max(initial=0) >= 2**31 or lowest.min(initial=0) < -(2**31):
        raise Skip("its sum may leave int32")


def insert_sums(graph: Graph, node: Node, found: Product) -> gs.Tensor:
    """The int32 sums of `found`, which `node` computes in floats."""
    zero = graph.constant(np.array(found.x.zero, np.uint8), "zero_point")
    if isinstance(found.weights, Activation):
        other = graph.constant(np.array(found.weights.zero, np.uint8), "zero_point")
        inputs = [found.x.tensor, found.weights.tensor, zero, other]
    else:
        inputs = [found.x.tensor, graph.constant(found.weights, "weights"), zero]
    sums = graph.insert(node, found.op, inputs, found.attrs).outputs[0]
    if found.bias is not None:
        bias = graph.constant(found.bias, "bias")
        sums = graph.insert(node, "Add", [sums, bias]).outputs[0]
    return sums
