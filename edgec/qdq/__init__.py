"""Quantized patterns: operators between DequantizeLinear and QuantizeLinear, as integers.

What they become is standard ONNX again, and defines every integer operator to the bit: ONNX Runtime
computes the same of it (`edgec.passes.convert_qdq_to_integer`).
"""

from __future__ import annotations

from edgec.graph import Graph

INTEGER_OPERATORS = frozenset(["ConvInteger", "MatMulInteger"])
QUANTIZED = frozenset(
    ["QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul", "QGemm", "QLinearAdd"]
)


def is_quantized(graph: Graph) -> bool:
    """Whether anything in the graph is quantized."""
    return any(node.op in QUANTIZED for node in graph.nodes())


def has_integers(graph: Graph) -> bool:
    """Whether sums of products are computed in integers."""
    return any(node.op in INTEGER_OPERATORS for node in graph.nodes())
