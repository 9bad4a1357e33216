"""A plan, written into the graph as QuantizeLinear and DequantizeLinear.

A tensor is quantized once, and dequantized for each of its readers: the form in which every
compiler finds its patterns. What an integer unit made is read through that by all; what a float
node made, or the model is given, only by the units.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from edgec.graph import Graph
from edgec.program import dtype_of
from edgec.quantize.formulas import Array, Grid, bias_scale, quantize_bias
from edgec.quantize.plan import Plan
from edgec.quantize.profiles import Profile
from edgec.quantize.units import Unit, find_units
from edgec.rewrite import Numerics, Pass
from edgec.tensors import Constant, Node, Variable


@dataclass(frozen=True)
class Insertion(Pass):
    """The pass that writes `plan`, made for the graph and the `profile`."""

    plan: Plan
    profile: Profile

    name: ClassVar[str] = "insert-qdq"
    numerics: ClassVar[Numerics] = "quantized"

    def run(self, graph: Graph) -> Iterator[Node]:
        yield from insert(graph, self.plan, self.profile)


def insert(graph: Graph, plan: Plan, profile: Profile) -> Iterator[Node]:
    """Quantize the units of `plan`; yields the first node of each."""
    chosen = set(plan.units)
    units = [unit for unit in find_units(graph, profile)[0] if unit.name in chosen]
    writer = _Writer(graph, plan)
    made = {t for unit in units for t in unit.outputs}
    readers: dict[gs.Tensor, list[tuple[Node, int]]] = {}
    for unit in units:
        for position in unit.data:
            readers.setdefault(unit.first.inputs[position], []).append((unit.first, position))
    scales = {unit.name: plan.activations[unit.inputs[0].name].scale for unit in units}
    for tensor, places in readers.items():
        if tensor in made:
            places = [
                (node, i)
                for node in dict.fromkeys(graph.consumers(tensor))
                for i, read in enumerate(node.inputs)
                if read is tensor
            ]
        writer.activation(tensor, places, beside=readers[tensor][0][0])
    for unit in units:
        if unit.weight is not None:
            writer.weights(unit, scales[unit.name])
        yield unit.first


class _Writer:
    def __init__(self, graph: Graph, plan: Plan) -> None:
        self.graph = graph
        self.plan = plan
        self.parameters: dict[Grid, tuple[Constant, Constant]] = {}

    def activation(self, tensor: gs.Tensor, places: list[tuple[Node, int]], beside: Node) -> None:
        """Let the inputs at `places` read `tensor` quantized, in the graph of `beside`."""
        grid = self.plan.activations[tensor.name]
        if isinstance(tensor, Constant):
            values = grid.quantize(tensor.values)
            quantized: gs.Tensor = self.graph.constant(values, f"{tensor.name}_quantized")
        else:
            maker = self.graph.producer(tensor) or beside
            quantized = self.variable(f"{tensor.name}_quantized", grid.dtype, tensor)
            inputs = [tensor, *self.of(grid, tensor.name)]
            self.graph.insert(maker, "QuantizeLinear", inputs, outputs=[quantized])
        for node, position in places:
            made = self.variable(f"{tensor.name}_dequantized", "float32", tensor)
            inputs = [quantized, *self.of(grid, tensor.name)]
            self.graph.insert(beside, "DequantizeLinear", inputs, outputs=[made])
            node.inputs[position] = made

    def weights(self, unit: Unit, x_scale: float) -> None:
        """Let the product of activations of `x_scale` read its weights and bias as integers."""
        assert unit.weight is not None
        node = unit.first
        weight = self.plan.weights[unit.name]
        tensor = node.inputs[unit.weight]
        integers = self.graph.constant(weight.integers, f"{tensor.name}_quantized")
        zero = np.zeros(weight.scale.shape, weight.integers.dtype)
        scale = self.graph.constant(weight.scale, f"{tensor.name}_scale")
        inputs = [integers, scale, self.graph.constant(zero, f"{tensor.name}_zero_point")]
        attrs = {"axis": weight.axis} if weight.scale.ndim else {}
        made = self.variable(f"{tensor.name}_dequantized", "float32", tensor)
        self.graph.insert(node, "DequantizeLinear", inputs, attrs, outputs=[made])
        node.inputs[unit.weight] = made
        if unit.bias is not None:
            self.bias(unit, unit.bias, bias_scale(x_scale, weight.scale))

    def bias(self, unit: Unit, bias: Constant, scale: Array) -> None:
        """Let the unit add its bias as int32 in steps of `scale`, that of its products."""
        node = next(n for n in unit.nodes if bias in n.inputs)
        integers = quantize_bias(bias.values.reshape(-1), scale)
        inputs = [
            self.graph.constant(integers, f"{bias.name}_quantized"),
            self.graph.constant(scale, f"{bias.name}_scale"),
        ]
        attrs = {"axis": 0} if scale.ndim else {}
        made = Variable(
            self.graph.unique_name(f"{bias.name}_dequantized"),
            np.dtype(np.float32),
            integers.shape,
        )
        self.graph.insert(node, "DequantizeLinear", inputs, attrs, outputs=[made])
        node.inputs[node.inputs.index(bias)] = made

    def of(self, grid: Grid, hint: str) -> tuple[Constant, Constant]:
        """Scale and zero point of `grid`, the same constants for all that have it."""
        if grid not in self.parameters:
            scale = self.graph.constant(np.array(grid.scale, np.float32), f"{hint}_scale")
            zero = np.array(grid.zero, dtype_of(grid.dtype))
            self.parameters[grid] = scale, self.graph.constant(zero, f"{hint}_zero_point")
        return self.parameters[grid]

    def variable(self, hint: str, dtype: str, like: gs.Tensor) -> Variable:
        """A new tensor of the shape of `like`."""
        return Variable(self.graph.unique_name(hint), dtype_of(dtype), like.shape)
