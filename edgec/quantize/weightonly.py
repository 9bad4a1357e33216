"""Weights alone in fewer bits, or activations quantized as a run finds their range: what schemes
write that need no calibration."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from edgec.graph import Graph
from edgec.quantize.formulas import quantize_weight, weight_scale
from edgec.quantize.profiles import Profile
from edgec.quantize.units import Unit, find_units
from edgec.quantize.weights import Codes, float8, half, linear, logarithmic
from edgec.rewrite import Numerics, Pass, Skip
from edgec.tensors import Constant, Node, Variable

LEAST = 256
"""Weights of fewer elements stay in floats: nothing is saved."""

_FLOAT32 = np.dtype(np.float32)


@dataclass(frozen=True)
class Narrowed(Pass):
    """Keeps the weights of products in `dtype` by a `formula` of `edgec.quantize.weights`.

    y = MatMul(x, w)   =>   y = MatMul(x, DequantizeLinear(codes, scale))
    """

    profile: Profile
    dtype: str
    formula: str = "linear"
    exclude: Collection[str] = ()

    name: ClassVar[str] = "narrow-weights"
    numerics: ClassVar[Numerics] = "quantized"

    def run(self, graph: Graph) -> Iterator[Node | tuple[Node, Skip]]:
        for unit in _products(graph, self.profile):
            try:
                _guard(unit, self.exclude)
            except Skip as skip:
                yield unit.first, skip
                continue
            assert unit.weight is not None
            weight = unit.first.inputs[unit.weight]
            if self.formula == "logarithmic":
                made = _looked_up(graph, unit.first, weight)
            else:
                made = _widened(graph, unit.first, weight, self._codes(unit, weight))
            unit.first.inputs[unit.weight] = made
            yield unit.first

    def _codes(self, unit: Unit, weight: Constant) -> Codes:
        if self.dtype in ("float16", "bfloat16"):
            return half(weight.values, self.dtype)
        if self.formula.startswith("float8"):
            return float8(weight.values, self.formula, unit.axis)
        summed = 0 if unit.axis == 1 else 1
        power = self.formula == "power-of-two"
        return linear(weight.values, self.dtype, unit.axis, summed, power_of_two=power)


@dataclass(frozen=True)
class Dynamic(Pass):
    """Multiplies in integers, activations quantized to uint8 by the range that each run finds.

    y = MatMul(x, w)  =>  y = Cast(MatMulInteger(x8, w8, zero)) * (scale * t)
                          with x8, scale, zero = DynamicQuantizeLinear(x)
    """

    profile: Profile
    exclude: Collection[str] = ()

    name: ClassVar[str] = "quantize-dynamically"
    numerics: ClassVar[Numerics] = "quantized"

    def run(self, graph: Graph) -> Iterator[Node | tuple[Node, Skip]]:
        quantized: dict[gs.Tensor, list[gs.Tensor]] = {}
        for unit in _products(graph, self.profile):
            try:
                _guard(unit, self.exclude)
                if unit.first.op == "ConvTranspose":
                    raise Skip("there is no ConvTranspose of integers")
            except Skip as skip:
                yield unit.first, skip
                continue
            x = unit.first.inputs[0]
            if x not in quantized:
                node = graph.insert(unit.first, "DynamicQuantizeLinear", [x], outputs=3)
                quantized[x] = node.outputs
            _multiply(graph, unit, *quantized[x])
            yield unit.first


def _products(graph: Graph, profile: Profile) -> list[Unit]:
    return [unit for unit in find_units(graph, profile)[0] if unit.weight is not None]


def is_narrowed(unit: Unit, exclude: Collection[str]) -> bool:
    """Whether the weights of `unit` are kept in fewer bits."""
    try:
        _guard(unit, exclude)
    except Skip:
        return False
    return True


def _guard(unit: Unit, exclude: Collection[str]) -> None:
    if unit.weight is None:
        raise Skip("both operands are computed")
    if {unit.name, unit.first.op, unit.first.name}.intersection(exclude):
        raise Skip("it is excluded")
    if unit.first.inputs[unit.weight].values.size < LEAST:
        raise Skip(f"it has less than {LEAST} weights")


def _widened(graph: Graph, node: Node, weight: Constant, codes: Codes) -> Variable:
    stored = graph.constant(codes.codes, f"{weight.name}_codes")
    made = Variable(graph.unique_name(f"{weight.name}_widened"), _FLOAT32, weight.shape)
    if codes.scale is None:
        graph.insert(node, "Cast", [stored], {"to": TensorProto.FLOAT}, outputs=[made])
        return made
    inputs = [stored, graph.constant(codes.scale, f"{weight.name}_scale")]
    attrs = {"axis": codes.axis} if codes.scale.ndim else {}
    attrs |= {"block_size": codes.block} if codes.block else {}
    graph.insert(node, "DequantizeLinear", inputs, attrs, outputs=[made])
    return made


def _looked_up(graph: Graph, node: Node, weight: Constant) -> Variable:
    codes, table = logarithmic(weight.values)
    stored = graph.constant(codes, f"{weight.name}_codes")
    cast = graph.insert(node, "Cast", [stored], {"to": TensorProto.INT32})
    made = Variable(graph.unique_name(f"{weight.name}_widened"), _FLOAT32, weight.shape)
    inputs = [graph.constant(table, f"{weight.name}_table"), cast.outputs[0]]
    graph.insert(node, "Gather", inputs, {"axis": 0}, outputs=[made])
    return made


def _multiply(graph: Graph, unit: Unit, x: gs.Tensor, scale: gs.Tensor, zero: gs.Tensor) -> None:
    """Let integers make the result of the first node of `unit`."""
    node, position, axis = unit.first, unit.weight, unit.axis
    assert position is not None
    values = node.inputs[position].values
    made = quantize_weight(values, _positive(weight_scale(values, axis, "int8")), axis, "int8")
    integers = made.integers
    if node.op == "Gemm" and node.attrs.get("transB", 0):
        integers = integers.T
    op, attrs = "MatMulInteger", dict[str, Any]()
    if node.op == "Conv":
        op, attrs = "ConvInteger", dict(node.attrs)
    weights = graph.constant(integers, f"{node.inputs[position].name}_quantized")
    sums = graph.insert(node, op, [x, weights, zero], attrs).outputs[0]
    floats = graph.insert(node, "Cast", [sums], {"to": TensorProto.FLOAT}).outputs[0]
    rank = values.ndim if node.op == "Conv" else 1
    steps = graph.constant(_channels(made.scale, rank), f"{weights.name}_scale")
    whole = graph.insert(node, "Mul", [scale, steps]).outputs[0]
    last = graph.insert(node, "Mul", [floats, whole])
    if len(node.inputs) > 2 and node.inputs[2].name:
        bias = _channels(node.inputs[2].values.reshape(-1), rank)
        added = graph.constant(bias, f"{node.inputs[2].name}_bias")
        last = graph.insert(node, "Add", [last.outputs[0], added])
    result, new = node.outputs[0], last.outputs[0]
    new.dtype, new.shape = result.dtype, result.shape
    graph.replace(result, new)


def _channels(vector: np.ndarray[Any, Any], rank: int) -> np.ndarray[Any, Any]:
    """`vector` along the axis of channels: the second of an image, the last of a matrix."""
    return vector.reshape(-1, *[1] * (rank - 2)) if rank > 2 and vector.ndim else vector


def _positive(scale: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.where(scale > 0, scale, 1.0)
