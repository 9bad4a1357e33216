"""Write quantized operators as float operators between DequantizeLinear and QuantizeLinear.

    y = QLinearConv(x, s, z, w, t, 0, u, v, b)
      =>   y = QuantizeLinear(Conv(DequantizeLinear(x, s, z), DequantizeLinear(w, t, 0),
                                   DequantizeLinear(b, s * t)), u, v)

That is the form that compilers and accelerators read: QLinearConv, QLinearMatMul, and ONNX
Runtime's QGemm, QLinearAdd, QLinearMul, QLinearConcat, QLinearSigmoid, QLinearLeakyRelu,
QLinearSoftmax, QLinearAveragePool and QLinearGlobalAveragePool.

*Needs* constant scales and zero points, one of each or, of the weights, one for each output channel
(opset 13), channels before the spatial axes, and of QGemm an alpha of 1.

*Numerics*: rounding. The sum is one of floats, so that a result just between two integers may
become the other: off by one quantum, where integer sums are exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from edgec.graph import Graph
from edgec.onnx_io import attribute_types
from edgec.patterns import substitute
from edgec.rewrite import Numerics, Pass, Skip
from edgec.tensors import Constant, Node

Array = np.ndarray[Any, Any]

_UNARY = {
    "QLinearAveragePool": "AveragePool",
    "QLinearGlobalAveragePool": "GlobalAveragePool",
    "QLinearLeakyRelu": "LeakyRelu",
    "QLinearSigmoid": "Sigmoid",
    "QLinearSoftmax": "Softmax",
}
_BINARY = {"QLinearAdd": "Add", "QLinearMul": "Mul"}
_STANDARD = ("QLinearConv", "QLinearMatMul")
_OF_ONNXRUNTIME = (*_STANDARD, *_UNARY, *_BINARY, "QGemm", "QLinearConcat")
_PER_CHANNEL_OPSET = 13
_SOFTMAX_OPSET = 13


@dataclass(frozen=True)
class ConvertQoperatorToQdq(Pass):
    name: ClassVar[str] = "convert-qoperator-to-qdq"
    numerics: ClassVar[Numerics] = "rounding"

    def run(self, graph: Graph) -> Iterator[Node | tuple[Node, Skip]]:
        known = {"": _STANDARD, "com.microsoft": _OF_ONNXRUNTIME}
        for node in list(graph.nodes()):
            if node.op not in known.get(node.domain, ()) or not node.outputs:
                continue
            try:
                meaning = _Reader(node, graph).read()
            except Skip as skip:
                yield node, skip
            else:
                _write(node, graph, meaning)
                yield node


@dataclass(frozen=True)
class _Quantized:
    """A tensor with its scale, of no or one axis, and zero point; None where that is 0."""

    tensor: gs.Tensor | None
    scale: Array
    zero: Array | None
    axis: int = 0


@dataclass(frozen=True)
class _Meaning:
    """The float operator `op`, and how its result is quantized, if it is."""

    op: str
    operands: list[_Quantized]
    result: _Quantized | None


class _Reader:
    def __init__(self, node: Node, graph: Graph) -> None:
        self.node = node
        self.graph = graph
        self.inputs = [t if t.name else None for t in node.inputs] + [None] * 9

    def read(self) -> _Meaning:
        """What the node computes. Skips what cannot be written in floats."""
        op = self.node.op
        if self.node.attrs.get("channels_last", 0):
            raise Skip("its channels are last")
        if op == "QLinearSoftmax" and self.node.attrs.get("opset", 1) < _SOFTMAX_OPSET:
            raise Skip(f"it is the Softmax of an opset before {_SOFTMAX_OPSET}")
        if op == "QLinearConv":
            return self._conv()
        if op == "QGemm":
            return self._gemm()
        if op == "QLinearConcat":
            count = (len(self.node.inputs) - 2) // 3
            operands = [self._quantized(2 + 3 * i) for i in range(count)]
            return _Meaning("Concat", operands, self._result(0, operands[0]))
        if op in _UNARY:
            x = self._quantized(0)
            return _Meaning(_UNARY[op], [x], self._result(3, x))
        a, b = self._quantized(0), self._quantized(3, -1 if op == "QLinearMatMul" else None)
        return _Meaning(_BINARY.get(op, "MatMul"), [a, b], self._result(6, a))

    def _conv(self) -> _Meaning:
        x, w = self._quantized(0), self._quantized(3, 0)
        operands = [x, w, *self._bias(self.inputs[8], x, w)]
        return _Meaning("Conv", operands, self._result(6, x))

    def _gemm(self) -> _Meaning:
        if self.node.attrs.get("alpha", 1.0) != 1.0:
            raise Skip("its alpha is not 1")
        a = self._quantized(0)
        b = self._quantized(3, 0 if self.node.attrs.get("transB", 0) else 1)
        operands = [a, b, *self._bias(self.inputs[6], a, b)]
        return _Meaning("Gemm", operands, self._result(7, a) if self.inputs[7] else None)

    def _bias(self, tensor: gs.Tensor | None, x: _Quantized, w: _Quantized) -> list[_Quantized]:
        """An int32 tensor; where scales differ it is a vector of the channels of the result."""
        if tensor is None:
            return []
        if w.scale.size > 1 and (tensor.shape is None or len(tensor.shape) != 1):
            raise Skip("its bias is no vector")
        return [_Quantized(tensor, x.scale * w.scale, None)]

    def _quantized(self, position: int, axis: int | None = None) -> _Quantized:
        """Input `position` with its scale and zero point, which may have an `axis`."""
        tensor = self.inputs[position]
        scale, zero = self._values(position + 1), self._values(position + 2)
        if scale is None:
            raise Skip("a scale is missing")
        size = max(scale.size, 1 if zero is None else zero.size)
        if size > 1:
            self._check_axis(tensor, size, axis)
        shape = () if size == 1 else (size,)
        scale = np.broadcast_to(scale.reshape(-1), (size,)).reshape(shape)
        if zero is not None:
            zero = np.broadcast_to(zero.reshape(-1), (size,)).reshape(shape)
        return _Quantized(tensor, scale, zero, axis or 0)

    def _check_axis(self, tensor: gs.Tensor | None, size: int, axis: int | None) -> None:
        limit = self.graph.opset_limit
        if axis is None or tensor is None or tensor.shape is None or tensor.shape[axis] != size:
            raise Skip("a scale is for each channel where it cannot be")
        if limit < _PER_CHANNEL_OPSET:
            raise Skip(f"scales of channels need opset {_PER_CHANNEL_OPSET}, the model has {limit}")

    def _result(self, position: int, first: _Quantized) -> _Quantized:
        """Scale and zero point of the result; a missing one is 0 in the type of the input."""
        scale, zero = self._values(position), self._values(position + 1)
        if scale is None:
            raise Skip("a scale is missing")
        if scale.size > 1 or (zero is not None and zero.size > 1):
            raise Skip("a scale is for each channel where it cannot be")
        if zero is None:
            assert first.tensor is not None
            dtype = first.zero.dtype if first.zero is not None else first.tensor.dtype
            if dtype is None:
                raise Skip("its type is not known")
            zero = np.zeros((), dtype)
        return _Quantized(None, scale.reshape(()), zero.reshape(()))

    def _values(self, position: int) -> Array | None:
        tensor = self.inputs[position]
        if tensor is not None and not isinstance(tensor, Constant):
            raise Skip("a scale or zero point is not constant")
        return None if tensor is None else tensor.values


def _write(node: Node, graph: Graph, meaning: _Meaning) -> None:
    inputs = [_dequantized(node, graph, operand) for operand in meaning.operands]
    known = attribute_types(meaning.op, "", graph.opset)
    attrs = {name: value for name, value in node.attrs.items() if name in known}
    if meaning.result is None:
        substitute(graph, node, meaning.op, inputs, attrs)
        return
    made = graph.insert(node, meaning.op, inputs, attrs).outputs[0]
    result = node.outputs[0]
    quantize = [made, *_parameters(graph, meaning.result)]
    result.dtype = quantize[-1].dtype
    substitute(graph, node, "QuantizeLinear", quantize)


def _dequantized(node: Node, graph: Graph, operand: _Quantized) -> gs.Tensor:
    inputs = [operand.tensor, *_parameters(graph, operand)]
    attrs: Mapping[str, int] = {"axis": operand.axis} if operand.scale.ndim else {}
    return graph.insert(node, "DequantizeLinear", inputs, attrs).outputs[0]


def _parameters(graph: Graph, quantized: _Quantized) -> list[Constant]:
    scale = graph.constant(quantized.scale, "scale")
    zero = quantized.zero
    return [scale] if zero is None else [scale, graph.constant(zero, "zero_point")]
