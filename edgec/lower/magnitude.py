"""How large the elements of a quantized pattern's tensors can become."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

_INTEGERS = (np.int8, np.uint8, np.int16, np.uint16, np.int32)


def magnitude(tensor: gs.Tensor) -> float:
    """An upper bound of the magnitude of a tensor's elements; infinity where none is known.

    Known are sums of products by constant weights, and what scales, adds up and converts integers
    (`edgec.qdq.tail`).
    """
    if isinstance(tensor, gs.Constant):
        return _largest(np.abs(tensor.values.astype(np.float64)))
    node = tensor.inputs[0] if tensor.inputs else None
    if node is None or node.op not in _BOUNDS:
        return _most_of(tensor.dtype)
    return _BOUNDS[node.op](node)


def _most_of(dtype: Any) -> float:
    if dtype not in _INTEGERS:
        return math.inf
    limits = np.iinfo(np.dtype(dtype))
    return float(max(-int(limits.min), int(limits.max)))


def _largest(values: np.ndarray) -> float:
    """NaN counts as infinity."""
    largest = float(values.max(initial=0.0))
    return math.inf if math.isnan(largest) else largest


def _of_sums(node: gs.Node) -> float:
    """Of ConvInteger with weights [O, ...] and MatMulInteger with [..., K, N], whose zero point
    is 0."""
    _, weights, *zeros = node.inputs
    if not isinstance(weights, gs.Constant) or (len(zeros) > 1 and magnitude(zeros[1])):
        return math.inf
    wide = np.abs(weights.values.astype(np.float64))
    terms = tuple(range(1, wide.ndim)) if node.op == "ConvInteger" else (wide.ndim - 2,)
    return 255 * _largest(wide.sum(axis=terms))


def _of_dequantized(node: gs.Node) -> float:
    is_byte = node.inputs[0].dtype in (np.int8, np.uint8)
    return 255 * magnitude(node.inputs[1]) if is_byte else math.inf


_BOUNDS: dict[str, Callable[[gs.Node], float]] = {
    "ConvInteger": _of_sums,
    "MatMulInteger": _of_sums,
    "DequantizeLinear": _of_dequantized,
    "Add": lambda node: magnitude(node.inputs[0]) + magnitude(node.inputs[1]),
    "Sub": lambda node: magnitude(node.inputs[0]) + magnitude(node.inputs[1]),
    "Mul": lambda node: magnitude(node.inputs[0]) * magnitude(node.inputs[1]),
    "Cast": lambda node: magnitude(node.inputs[0]),
    "Clip": lambda node: magnitude(node.inputs[0]),
}
