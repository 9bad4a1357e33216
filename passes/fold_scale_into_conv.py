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

from edgec.affine import CONVOLUTIONS, MATRIX, affine, bias_of, constant
from edgec.graph import Graph
from edgec.passes.fuse_conv_bn import scaled
from edgec.rewrite import Numerics, Rewrite, Skip
from edgec.tensors import Node

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class FoldScaleIntoConv(Rewrite):
    name: ClassVar[str] = "fold-scale-into-conv"
    numerics: ClassVar[Numerics] = "rounding"
    roots: ClassVar[tuple[str, ...]] = ("Mul", "Div", "Add", "Sub", "BatchNormalization")

    def rewrite(self, node: Node, graph: Graph) -> None:
        linear = _linear(node, graph)
        weight, data = constant(linear.inputs[1]), linear.outputs[0]
        if weight.dtype not in (np.float32, np.float64):
            raise Skip(f"{weight.dtype} is too coarse to fold into")
        if graph.uses(linear.inputs[1]) > 1:
            raise Skip("the weights have other uses")
        if data.shape is None or weight.ndim < 2 or (linear.op == "MatMul" and weight.ndim > 2):
            raise Skip("the ranks are not those of a layer")
        channels = _channels(linear, weight)
        axis = 1 if linear.op in CONVOLUTIONS else len(data.shape) - 1
        with np.errstate(all="ignore"):
            factor, shift = affine(node, data, axis, channels)
            new_weight = _scaled(linear, weight, factor).astype(weight.dtype)
            new_bias = (bias_of(linear, channels) * factor + shift).astype(weight.dtype)
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
    wanted = MATRIX if node.op == "BatchNormalization" else (*CONVOLUTIONS, *MATRIX)
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


def _channels(linear: Node, weight: Array) -> int:
    if linear.op == "Conv" or (linear.op == "Gemm" and linear.attrs.get("transB", 0)):
        return int(weight.shape[0])
    return int(weight.shape[1] * linear.attrs.get("group", 1))


def _scaled(linear: Node, weight: Array, factor: Array) -> Array:
    if linear.op in CONVOLUTIONS:
        groups = linear.attrs.get("group", 1) if linear.op == "ConvTranspose" else 1
        return scaled(weight, factor, linear.op, groups)
    return np.asarray(weight * (factor[:, None] if linear.attrs.get("transB", 0) else factor))
