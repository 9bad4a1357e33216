"""Quantized patterns: operators between DequantizeLinear and QuantizeLinear, as integers.

What they become is standard ONNX again, and defines every integer operator to the bit: ONNX Runtime
computes the same of it (`edgec.passes.convert_qdq_to_integer`).
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from edgec.graph import Graph
from edgec.inspect import macs
from edgec.patterns import scalar
from edgec.tensors import Constant

INTEGER_OPERATORS = frozenset(["ConvInteger", "MatMulInteger"])
QUANTIZED = frozenset(
    ["QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul", "QGemm", "QLinearAdd"]
)


def is_quantized(graph: Graph) -> bool:
    """Whether anything in the graph is quantized."""
    return any(node.op in QUANTIZED for node in graph.nodes())


def has_integers(graph: Graph) -> bool:
    """Whether quantized patterns became integers: sums, tables, or what is in steps of its
    result."""
    return any(
        node.op in INTEGER_OPERATORS
        or (node.op == "QuantizeLinear" and scalar(node.inputs[1]) == 1.0)
        or (node.op == "Gather" and _is_table(node.inputs[0]))
        for node in graph.nodes()
    )


def _is_table(tensor: gs.Tensor) -> bool:
    """Whether it has a byte for every byte."""
    return isinstance(tensor, Constant) and tensor.shape == (256,) and tensor.dtype == np.uint8


def integer_share(graph: Graph) -> float:
    """The share of the multiply-accumulates that are of integers, 0 where there are none."""
    costs = [(node.op in INTEGER_OPERATORS, macs(node) or 0) for node in graph.nodes()]
    return sum(cost for integer, cost in costs if integer) / max(sum(c for _, c in costs), 1)


def described(graph: Graph) -> str:
    """The share of integers, and the nodes with multiply-accumulates that stayed in floats."""
    left = [
        node.name or node.outputs[0].name
        for node in graph.nodes()
        if node.op not in INTEGER_OPERATORS and macs(node)
    ]
    text = f"{integer_share(graph):.1%} of the multiply-adds are in integers"
    return f"{text}; in floats: {', '.join(left)}" if left else text
