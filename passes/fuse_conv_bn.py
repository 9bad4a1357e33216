"""Fold a BatchNormalization into the convolution before it.

    BatchNormalization(Conv(x, W, b), s, t, m, v)   =>   Conv(x, W * f, (b - m) * f + t)
    with f = s / sqrt(v + epsilon) per output channel; ConvTranspose likewise

*Needs* constant weights, bias and statistics, inference mode, and a convolution whose result goes
nowhere else. The new constants are computed in float64 and must be finite in the model's type.

*Numerics*: rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from edgec.graph import Graph
from edgec.rewrite import Numerics, Rewrite, Skip
from edgec.tensors import Constant, Node

_CONVOLUTIONS = ("Conv", "ConvTranspose")
_EPSILON = 1e-5


@dataclass(frozen=True)
class FuseConvBn(Rewrite):
    name: ClassVar[str] = "fuse-conv-bn"
    numerics: ClassVar[Numerics] = "rounding"
    roots: ClassVar[tuple[str, ...]] = ("BatchNormalization",)

    def rewrite(self, node: Node, graph: Graph) -> None:
        conv = graph.producer(node.inputs[0])
        if conv is None or conv.op not in _CONVOLUTIONS or conv.domain:
            raise Skip("the input is not made by a convolution")
        if conv.owner is not node.owner:
            raise Skip("the convolution is in another graph")
        if graph.uses(conv.outputs[0]) > 1:
            raise Skip(f"the convolution's result has {graph.uses(conv.outputs[0])} uses")
        if node.attrs.get("training_mode", 0):
            raise Skip("training_mode is on")
        if any(map(graph.uses, node.outputs[1:])):
            raise Skip("the running statistics are used")
        weight, *statistics = (_constant(t) for t in (conv.inputs[1], *node.inputs[1:5]))
        scale, shift, mean, variance = (s.astype(np.float64) for s in statistics)
        bias = np.zeros(1)
        if len(conv.inputs) > 2 and conv.inputs[2].name:
            bias = _constant(conv.inputs[2]).astype(np.float64)

        variance = variance + node.attrs.get("epsilon", _EPSILON)
        if not (variance > 0).all():
            raise Skip("variance + epsilon is not positive")
        factor = scale / np.sqrt(variance)
        groups = conv.attrs.get("group", 1) if conv.op == "ConvTranspose" else 1
        with np.errstate(over="ignore", invalid="ignore"):
            new_weight = scaled(weight, factor, conv.op, groups)
            new_bias = ((bias - mean) * factor + shift).astype(weight.dtype)
        if not (np.isfinite(new_weight).all() and np.isfinite(new_bias).all()):
            raise Skip("the fused weights are not finite")

        conv.inputs[1] = graph.constant(new_weight, conv.inputs[1].name)
        fused_bias = graph.constant(new_bias, node.inputs[2].name)
        if len(conv.inputs) > 2:
            conv.inputs[2] = fused_bias
        else:
            conv.inputs.append(fused_bias)
        graph.replace(node.outputs[0], conv.outputs[0])


def _constant(tensor: Any) -> np.ndarray[Any, Any]:
    if not isinstance(tensor, Constant):
        raise Skip("the weights or statistics are not constant")
    return tensor.values


def scaled(
    weight: np.ndarray[Any, Any], factor: np.ndarray[Any, Any], op: str, groups: int
) -> np.ndarray[Any, Any]:
    """`weight` of a convolution times `factor`, one number per output channel or one for all.

    Conv has them on axis 0, [M, C / groups, ...]; ConvTranspose on axis 1, [C, M / groups, ...],
    for each group of input channels anew. The product is of the type of the weight, rounded once,
    and read-only, so that a constant takes it without a copy.
    """
    split = weight
    if factor.size == 1:
        factor = factor.reshape(())
    elif op == "Conv":
        factor = factor.reshape(-1, *[1] * (weight.ndim - 1))
    else:
        split = weight.reshape(groups, -1, *weight.shape[1:])
        factor = factor.reshape(groups, 1, weight.shape[1], *[1] * (weight.ndim - 2))
    product = np.empty(split.shape, weight.dtype)
    np.multiply(split, factor, out=product, casting="unsafe")
    product.flags.writeable = False
    return product.reshape(weight.shape)
