"""The operands of quantized patterns: tensors of 8-bit integers, what one step of them is worth,
and which of them stands for 0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from edgec.graph import Graph
from edgec.patterns import maker
from edgec.rewrite import Skip
from edgec.tensors import Constant, Node

Array = np.ndarray[Any, Any]

UINT8, INT8 = np.dtype(np.uint8), np.dtype(np.int8)
_BYTES = (UINT8, INT8)


@dataclass(frozen=True)
class Activation:
    """A computed uint8 tensor of one scale and zero point: its numbers are (q - zero) * scale."""

    tensor: gs.Tensor
    scale: float
    zero: int


@dataclass(frozen=True, eq=False)
class Weight:
    """Constant int8 `values` whose zero point is 0, and float32 scales, one or one for each index
    of `axis`."""

    values: Array
    scales: Array
    axis: int


@dataclass(frozen=True)
class Parameters:
    """The one scale and zero point of a QuantizeLinear or DequantizeLinear, and its 8-bit type."""

    scale: float
    zero: int
    dtype: np.dtype[Any]


def parameters(node: Node) -> Parameters:
    """What `node` quantizes by. Skips where that is not one scale for 8-bit integers."""
    scale = _constant(node, 1)
    zero = _constant(node, 2) if len(node.inputs) > 2 and node.inputs[2].name else None
    if scale is None or scale.size != 1 or scale.dtype != np.float32:
        raise Skip("its activation has no single float32 scale")
    dtype = zero.dtype if zero is not None else _dtype_of(node)
    if dtype not in _BYTES:
        raise Skip(f"its activation is {dtype}, not a byte")
    value = float(scale.reshape(-1)[0])
    if not (np.isfinite(value) and value > 0):
        raise Skip("a scale is not positive")
    return Parameters(value, 0 if zero is None else int(zero.reshape(-1)[0]), np.dtype(dtype))


def _dtype_of(node: Node) -> Any:
    tensor = node.inputs[0] if node.op == "DequantizeLinear" else node.outputs[0]
    return tensor.dtype if tensor.dtype is not None else np.uint8


def _constant(node: Node, position: int) -> Array | None:
    tensor = node.inputs[position]
    if not isinstance(tensor, Constant):
        raise Skip("a scale or zero point is not constant")
    return tensor.values


def activation(graph: Graph, tensor: gs.Tensor) -> Activation:
    """The uint8 tensor that `tensor` is dequantized from. Skips where it is none."""
    node = maker(graph, tensor, "DequantizeLinear")
    if node is None:
        raise Skip("an operand is not quantized")
    if isinstance(node.inputs[0], Constant):
        raise Skip("an operand is constant where it should be computed")
    found = parameters(node)
    if found.dtype != UINT8:
        raise Skip("an operand has a sign")
    return Activation(node.inputs[0], found.scale, found.zero)


def operand(graph: Graph, tensor: gs.Tensor) -> Activation:
    """The same of a tensor that may also be dequantized from a constant, in either byte type."""
    node = maker(graph, tensor, "DequantizeLinear")
    if node is None or not isinstance(node.inputs[0], Constant):
        return activation(graph, tensor)
    values, found = node.inputs[0].values, parameters(node)
    if found.dtype == UINT8:
        return Activation(node.inputs[0], found.scale, found.zero)
    raised = graph.constant(values.view(np.uint8) ^ 128, "raised")
    return Activation(raised, found.scale, found.zero + 128)


def weight(graph: Graph, tensor: gs.Tensor, axis: int) -> Weight:
    """The constant that `tensor` is dequantized from, its scales along `axis` if there are several.

    Skips where it is no int8 about 0, nor uint8 about 128.
    """
    node = maker(graph, tensor, "DequantizeLinear")
    if node is None:
        raise Skip("its weights are not quantized")
    values, scales = _constant(node, 0), _constant(node, 1)
    zero = _constant(node, 2) if len(node.inputs) > 2 and node.inputs[2].name else None
    if values is None or scales is None or scales.dtype != np.float32:
        raise Skip("the scales of its weights are not float32")
    if values.dtype not in _BYTES or node.attrs.get("block_size", 0):
        raise Skip(f"its weights are {values.dtype}, or in groups")
    if scales.size > 1 and node.attrs.get("axis", 1) % values.ndim != axis % values.ndim:
        raise Skip("the scales of its weights are not those of output channels")
    middle = 0 if zero is None else zero.astype(np.int32)
    if values.dtype == UINT8:
        values, middle = (values ^ 128).view(np.int8), middle - 128
    if np.any(middle):
        raise Skip("its weights have a zero point")
    return Weight(values, scales.reshape(-1), axis % values.ndim)
