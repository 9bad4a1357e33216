"""Models whose weights are stored in few bits: DequantizeLinear or Cast in front of products."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


@dataclass
class Packed:
    """Nodes over inputs of random data, each weight in a form of its own."""

    seed: int = 5
    inputs: list[Any] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)
    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)

    def constant(self, array: np.ndarray) -> str:
        """The name of a new initializer."""
        self.constants.append(numpy_helper.from_array(array, f"c{len(self.constants)}"))
        return str(self.constants[-1].name)

    def node(self, op: str, inputs: list[str], **attrs: Any) -> str:
        """The name of a new node's output."""
        self.nodes.append(helper.make_node(op, inputs, [f"t{len(self.nodes)}"], **attrs))
        return str(self.nodes[-1].output[0])

    def input(self, shape: tuple[int, ...]) -> str:
        """The name of a new float32 input."""
        name = f"x{len(self.inputs)}"
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return name

    def output(self, name: str, shape: tuple[int, ...]) -> None:
        """Make a tensor an output of the model."""
        self.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    def weight(
        self,
        kind: str,
        shape: tuple[int, ...],
        axis: int = 1,
        block: int = 0,
        zero: str = "none",
    ) -> str:
        """The name of a float32 weight, stored as `kind`: scales along `axis`, or by blocks of it,
        and `zero` points "none", "same" or "each"; one scale for all with axis -1."""
        dtype = np.dtype(getattr(ml_dtypes, kind, kind))
        size = math.sqrt(math.prod(shape) / shape[1])
        if "float" in kind:
            values = (self.random.standard_normal(shape) / size).astype(dtype)
            return self.node("Cast", [self.constant(values)], to=TensorProto.FLOAT)
        limits = ml_dtypes.iinfo(dtype)
        low, high = int(limits.min), int(limits.max) + 1
        codes = self.random.integers(low, high, shape).astype(dtype)
        scales: tuple[int, ...] = () if axis < 0 else (shape[axis],)
        attrs = {} if axis < 0 else {"axis": axis}
        if block:
            scales = tuple(-(-n // block) if a == axis else n for a, n in enumerate(shape))
            attrs["block_size"] = block
        scale = self.random.uniform(0.5, 1, scales) / (high * size)
        inputs = [self.constant(codes), self.constant(np.asarray(scale, np.float32))]
        if zero == "same":
            inputs.append(self.constant(np.full(scales, (low + high) // 2, np.int64).astype(dtype)))
        elif zero == "each":
            inputs.append(self.constant(self.random.integers(low, high, scales).astype(dtype)))
        return self.node("DequantizeLinear", inputs, **attrs)

    def model(self) -> onnx.ModelProto:
        """The model, at the first opset with integers of 2 bits."""
        graph = helper.make_graph(self.nodes, "g", self.inputs, self.outputs, self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)], ir_version=13)
