"""Fold what multiplies or adds constants after an operator into the weights of that operator.

    Conv(x, W, b) * c                      =>   Conv(x, W c, b c)         (Div likewise)
    Conv(x, W, b) + c                      =>   Conv(x, W, b + c)         (Sub likewise)
    BatchNormalization(Gemm(x, W, b))      =>   Gemm(x, W f, b f + t)     (after MatMul a Gemm too)

ConvTranspose, Gemm and MatMul are folded into like Conv; a MatMul has no bias to add to.

*Needs* constant weights and bias in float32 or float64, weights that nothing else reads, `c` one
number or one per output channel, and a result that goes nowhere else. The new constants are
computed in float64 and must be finite in the model's type.

*Numerics*: rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from edgec.graph import Graph
from edgec.passes.fuse_conv_bn import scaled
from edgec.rewrite import Numerics, Rewrite, Skip
from edgec.tensors import Constant, Node

Array = np.ndarray[Any, Any]

_CONVOLUTIONS = ("Conv", "ConvTranspose")
_MATRIX = ("Gemm", "MatMul")
_EPSILON = 1e-5


@dataclass(frozen=True)
class FoldScaleIntoConv(Rewrite):
    name: ClassVar[str] = "fold-scale-into-conv"
    numerics: ClassVar[Numerics] = "rounding"
    roots: ClassVar[tuple[str, ...]] = ("Mul", "Div", "Add", "Sub", "BatchNormalization")

    def rewrite(self, node: Node, graph: Graph) -> None:
        linear = _linear(node, graph)
        weight, data = _constant(linear.inputs[1]), linear.outputs[0]
        if weight.dtype not in (np.float32, np.float64):
            raise Skip(f"{weight.dtype} is too coarse to fold into")
        if graph.uses(linear.inputs[1]) > 1:
            raise Skip("the weights have other uses")
        if data.shape is None or weight.ndim < 2 or (linear.op == "MatMul" and weight.ndim > 2):
            raise Skip("the ranks are not those of a layer")
        channels = _channels(linear, weight)
        axis = 1 if linear.op in _CONVOLUTIONS else len(data.shape) - 1
        with np.errstate(all="ignore"):
            factor, shift = _affine(node, data, axis, channels)
            new_weight = _scaled(linear, weight, factor).astype(weight.dtype)
            new_bias = (_bias(linear, channels) * factor + shift).astype(weight.dtype)
        if not (np.isfinite(new_weight).all() and np.isfinite(new_bias).all()):
            raise Skip("the new weights are not finite")

        inputs = [linear.inputs[0], linear.inputs[1]]
        if (factor != 1).any():
            inputs[1] = graph.constant(new_weight, linear.inputs[1].name)
        if new_bias.any() or (len(linear.inputs) > 2 and linear.inputs[2].name):
            bias = np.broadcast_to(new_bias, channels)
            inputs.append(graph.constant(bias, f"{data.name}_bias"))
        attrs = {name: value for name, value in linear.attrs.items() if name != "beta"}
        op = "Gemm" if linear.op == "MatMul" and len(inputs) > 2 else linear.op
        made = graph.insert(linear, op, inputs, attrs)
        graph.replace(node.outputs[0], made.outputs[0])


def _linear(node: Node, graph: Graph) -> Node:
    made = [graph.producer(t) for t in node.inputs[:2]]
    wanted = _MATRIX if node.op == "BatchNormalization" else (*_CONVOLUTIONS, *_MATRIX)
    linear = next((m for m in made if m and m.op in wanted and not m.domain), None)
    if linear is None:
        raise Skip(f"no input is made by {', '.join(wanted)}")
    if linear.op == "MatMul" and node.op in ("Add", "Sub"):
        raise Skip("MatMul has no bias")
    if linear.owner is not node.owner:
        raise Skip("the operator before is in another graph")
    if graph.uses(linear.outputs[0]) > 1:
        raise Skip(f"the result before has {graph.uses(linear.outputs[0])} uses")
    return linear


def _constant(tensor: Any) -> Array:
    if not isinstance(tensor, Constant):
        raise Skip("the weights or operands are not constant")
    return tensor.values


def _channels(linear: Node, weight: Array) -> int:
    if linear.op == "Conv" or (linear.op == "Gemm" and linear.attrs.get("transB", 0)):
        return int(weight.shape[0])
    return int(weight.shape[1] * linear.attrs.get("group", 1))


def _affine(node: Node, data: gs.Tensor, axis: int, channels: int) -> tuple[Array, Array]:
    """The factor and then the addend of `node`, each of 1 element or of one per channel."""
    if node.op == "BatchNormalization":
        return _normalization(node, len(data.shape))
    first = node.inputs[0] is not data
    operand = _constant(node.inputs[0 if first else 1])
    values = _per_channel(operand, len(data.shape), axis, channels)
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


def _normalization(node: Node, rank: int) -> tuple[Array, Array]:
    if node.attrs.get("training_mode", 0):
        raise Skip("training_mode is on")
    if rank != 2:
        raise Skip("the channels are not on the last axis")
    scale, shift, mean, variance = (_constant(t).astype(np.float64) for t in node.inputs[1:5])
    variance = variance + node.attrs.get("epsilon", _EPSILON)
    if not (variance > 0).all():
        raise Skip("variance + epsilon is not positive")
    factor = scale / np.sqrt(variance)
    return factor, shift - mean * factor


def _per_channel(values: Array, rank: int, axis: int, channels: int) -> Array:
    shape = (*[1] * (rank - values.ndim), *values.shape)
    if len(shape) > rank or values.size not in (1, channels) or values.size != shape[axis]:
        raise Skip("the constant is not one number per channel")
    return values.astype(np.float64).reshape(-1)


def _scaled(linear: Node, weight: Array, factor: Array) -> Array:
    if linear.op in _CONVOLUTIONS:
        groups = linear.attrs.get("group", 1) if linear.op == "ConvTranspose" else 1
        return scaled(weight, factor, linear.op, groups)
    return np.asarray(weight * (factor[:, None] if linear.attrs.get("transB", 0) else factor))


def _bias(linear: Node, channels: int) -> Array:
    if len(linear.inputs) < 3 or not linear.inputs[2].name:
        return np.zeros(1)
    bias = _constant(linear.inputs[2])
    if linear.op != "Gemm":
        return bias.astype(np.float64)
    return np.asarray(_per_channel(bias, 2, 1, channels) * linear.attrs.get("beta", 1.0))
