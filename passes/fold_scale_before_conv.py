"""Fold what multiplies or adds constants before an operator into the weights of that operator.

    Conv(x * c, W, b)                      =>   Conv(x, W c, b)           (Div likewise)
    Conv(x + c, W, b)                      =>   Conv(x, W, b + W c)       (Sub likewise)
    Gemm(BatchNormalization(x), W, b)      =>   Gemm(x, f W, b + t W)     (before MatMul a Gemm too)

ConvTranspose, Gemm and MatMul are folded into like Conv. What is added must not meet padding, which
stays zero, nor a ConvTranspose, where it counts more often in some places than in others.

*Needs* constant weights in float32 or float64 that nothing else reads, `c` one number or one per
input channel, and a result that goes nowhere else; where something is added, a constant bias, and
matrices. The last factor of a Gelu written out stays with it. The new constants are computed in
float64 and must be finite in the model's type.

*Numerics*: rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from edgec.affine import CONVOLUTIONS, MATRIX, affine, bias_of, constant
from edgec.graph import Graph
from edgec.patterns import maker
from edgec.rewrite import Numerics, Rewrite, Skip
from edgec.tensors import Constant, Node

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class FoldScaleBeforeConv(Rewrite):
    name: ClassVar[str] = "fold-scale-before-conv"
    numerics: ClassVar[Numerics] = "rounding"
    roots: ClassVar[tuple[str, ...]] = (*CONVOLUTIONS, *MATRIX)

    def rewrite(self, node: Node, graph: Graph) -> None:
        before = _before(node, graph)
        weight = constant(node.inputs[1])
        if weight.dtype not in (np.float32, np.float64):
            raise Skip(f"{weight.dtype} is too coarse to fold into")
        if graph.uses(node.inputs[1]) > 1:
            raise Skip("the weights have other uses")
        data = _data(before)
        if _is_gelu(data, graph):
            raise Skip("it belongs to a Gelu, which runtimes know as a whole")
        axis, channels = _channels(node, data, weight)
        with np.errstate(all="ignore"):
            factor, shift = affine(before, data, axis, channels)
            new_weight = _by_input(node, weight, factor).astype(weight.dtype)
            bias = _guard_shift(node, weight, shift) if shift.any() else None
        if not np.isfinite(new_weight).all() or not (bias is None or np.isfinite(bias).all()):
            raise Skip("the new weights are not finite")

        inputs = [data, node.inputs[1], *node.inputs[2:]]
        attrs, op = dict(node.attrs), node.op
        if (factor != 1).any():
            inputs[1] = graph.constant(new_weight, node.inputs[1].name)
        if bias is not None:
            inputs[2:] = [graph.constant(bias, f"{node.outputs[0].name}_bias")]
            op = "Gemm" if op == "MatMul" else op
            attrs.pop("beta", None)
        made = graph.insert(node, op, inputs, attrs)
        graph.replace(node.outputs[0], made.outputs[0])


def _before(node: Node, graph: Graph) -> Node:
    result = node.inputs[0]
    before = maker(graph, result, "Mul", "Div", "Add", "Sub", "BatchNormalization")
    if before is None:
        raise Skip("nothing is multiplied or added before")
    if before.owner is not node.owner:
        raise Skip("the operator before is in another graph")
    if graph.uses(result) > 1:
        raise Skip(f"the result before has {graph.uses(result)} uses")
    return before


def _data(before: Node) -> gs.Tensor:
    """The operand of `before` that is not constant."""
    swapped = before.op != "BatchNormalization" and isinstance(before.inputs[0], Constant)
    return before.inputs[1 if swapped else 0]


def _is_gelu(data: gs.Tensor, graph: Graph) -> bool:
    """Whether `data` is x * (1 + Erf(...)) or with Tanh, twice a Gelu."""
    made = maker(graph, data, "Mul")
    sums = [maker(graph, t, "Add") for t in made.inputs] if made is not None else []
    terms = [t for each in sums if each is not None for t in each.inputs]
    return any(maker(graph, t, "Erf", "Tanh") is not None for t in terms)


def _channels(node: Node, data: gs.Tensor, weight: Array) -> tuple[int, int]:
    """The axis of the input's channels, and their number."""
    least = 3 if node.op in CONVOLUTIONS else 2
    if data.shape is None or weight.ndim < least or (node.op in MATRIX and weight.ndim > 2):
        raise Skip("the ranks are not those of a layer")
    if node.attrs.get("transA", 0):
        raise Skip("the input is transposed")
    axis = 1 if node.op in CONVOLUTIONS else len(data.shape) - 1
    transposed = node.op == "Conv" or node.attrs.get("transB", 0)
    count = int(weight.shape[1 if transposed else 0])
    channels = count * int(node.attrs.get("group", 1)) if node.op == "Conv" else count
    if len(data.shape) <= axis or data.shape[axis] != channels:
        raise Skip("the constant makes the channels")
    return axis, channels


def _by_input(node: Node, weight: Array, factor: Array) -> Array:
    """`weight` times `factor`, one number per input channel or one for all; float64."""
    if factor.size == 1:
        return np.asarray(weight * factor.reshape(()))
    if node.op == "Conv":
        groups = node.attrs.get("group", 1)
        split = weight.reshape(groups, -1, *weight.shape[1:])
        factors = factor.reshape(groups, 1, weight.shape[1], *[1] * (weight.ndim - 2))
        return np.asarray(split * factors).reshape(weight.shape)
    if node.attrs.get("transB", 0):
        return np.asarray(weight * factor)
    return np.asarray(weight * factor.reshape(-1, *[1] * (weight.ndim - 1)))


def _guard_shift(node: Node, weight: Array, shift: Array) -> Array:
    """The bias of `node` where `shift` is added to its input no more."""
    if node.op == "ConvTranspose":
        raise Skip("what is added counts unevenly in a ConvTranspose")
    if node.op == "Conv":
        padded = any(node.attrs.get("pads", ()))
        if padded or node.attrs.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
            raise Skip("padding is zero after what is added")
    elif len(node.outputs[0].shape or ()) != 2:
        raise Skip("MatMul has no bias")
    sums = _by_input(node, weight, shift).astype(np.float64)
    inner = 0 if node.op != "Conv" and not node.attrs.get("transB", 0) else 1
    axes = (inner, *range(2, weight.ndim))
    added = sums.sum(axes) * node.attrs.get("alpha", 1.0)
    return np.asarray(bias_of(node, added.size) + added).astype(weight.dtype)
