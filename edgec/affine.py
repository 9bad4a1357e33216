"""Operations with constants as a factor and an addend per channel, and the layers they fold into.

All raise `Skip` for what is not of that form. What they give is float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from edgec.rewrite import Skip
from edgec.tensors import Constant, Node

Array = np.ndarray[Any, Any]

CONVOLUTIONS = ("Conv", "ConvTranspose")
MATRIX = ("Gemm", "MatMul")
_EPSILON = 1e-5


def constant(tensor: gs.Tensor) -> Array:
    """The values of `tensor`. Skips where it is not constant."""
    if not isinstance(tensor, Constant):
        raise Skip("the weights or operands are not constant")
    return tensor.values


def affine(node: Node, data: gs.Tensor, axis: int, channels: int) -> tuple[Array, Array]:
    """The factor and then the addend of `node`, each of 1 element or of one per channel.

    `node` is a Mul, Div, Add, Sub or BatchNormalization of `data`, whose channels are on `axis`.
    """
    if node.op == "BatchNormalization":
        return _normalization(node, axis)
    first = node.inputs[0] is not data
    operand = constant(node.inputs[0 if first else 1])
    values = per_channel(operand, len(data.shape), axis, channels)
    one, zero = np.ones(1), np.zeros(1)
    if node.op == "Mul":
        return values, zero
    if node.op == "Add":
        return one, values
    if node.op == "Sub":
        return (-one, values) if first else (one, -values)
    if first:
        raise Skip("a constant is divided")
    return 1 / values, zero


def _normalization(node: Node, axis: int) -> tuple[Array, Array]:
    if node.attrs.get("training_mode", 0):
        raise Skip("training_mode is on")
    if axis != 1:
        raise Skip("the channels of BatchNormalization are on another axis")
    scale, shift, mean, variance = (constant(t).astype(np.float64) for t in node.inputs[1:5])
    variance = variance + node.attrs.get("epsilon", _EPSILON)
    if not (variance > 0).all():
        raise Skip("variance + epsilon is not positive")
    factor = scale / np.sqrt(variance)
    return factor, shift - mean * factor


def per_channel(values: Array, rank: int, axis: int, channels: int) -> Array:
    """`values`, broadcast to `rank` axes, as 1 element or one for each of `channels` on `axis`."""
    shape = (*[1] * (rank - values.ndim), *values.shape)
    if len(shape) > rank or values.size not in (1, channels) or values.size != shape[axis]:
        raise Skip("the constant is not one number per channel")
    return values.astype(np.float64).reshape(-1)


def bias_of(linear: Node, channels: int) -> Array:
    """What `linear` adds to its product, as 1 element or one per output channel."""
    if len(linear.inputs) < 3 or not linear.inputs[2].name:
        return np.zeros(1)
    bias = constant(linear.inputs[2])
    if linear.op != "Gemm":
        return bias.astype(np.float64)
    return np.asarray(per_channel(bias, 2, 1, channels) * linear.attrs.get("beta", 1.0))
