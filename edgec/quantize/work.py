"""How much units compute and move."""

from __future__ import annotations

import math

import onnx_graphsurgeon as gs

from edgec.quantize.units import Unit
from edgec.tensors import Constant


def macs(unit: Unit) -> int:
    """The multiply-adds of a product for one sample; a dimension that is not known counts as 1."""
    node = unit.first
    if isinstance(node.inputs[1], Constant) and node.op == "Conv":
        return elements(node.outputs[0]) * _sizes(node.inputs[1].shape[1:])
    if node.op == "ConvTranspose":
        return elements(node.inputs[0]) * _sizes(node.inputs[1].shape[1:])
    return elements(node.outputs[0]) * _sizes(node.inputs[0].shape[-1:])


def elements(tensor: gs.Tensor) -> int:
    """How many elements `tensor` has; a dimension that is not known counts as 1."""
    return _sizes(tensor.shape)


def _sizes(shape: tuple[object, ...] | None) -> int:
    return math.prod(d for d in shape or () if isinstance(d, int))
