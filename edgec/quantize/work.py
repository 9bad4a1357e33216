"""How much units compute and move."""

from __future__ import annotations

import math

import onnx_graphsurgeon as gs

import edgec.inspect
from edgec.quantize.units import Unit


def macs(unit: Unit) -> int:
    """The multiply-adds of a product for one sample; a dimension that is not known counts as 1."""
    return edgec.inspect.macs(unit.first, unknown=1) or 0


def elements(tensor: gs.Tensor) -> int:
    """How many elements `tensor` has; a dimension that is not known counts as 1."""
    return math.prod(d for d in tensor.shape or () if isinstance(d, int))
