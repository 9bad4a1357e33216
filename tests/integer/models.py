"""Small quantized models, as other tools write them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from integer.contract import Scaled


class Model:
    """Collects nodes and constants; inputs, x of `shape` and `others`, and outputs are
    float32."""

    def __init__(self, shape: Sequence[int], **others: Sequence[int]) -> None:
        self.shape = tuple(shape)
        self.others = others
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: Any, dtype: str) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(value, dtype), name))
        return name

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        name = f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name, **attributes))
        return name

    def through(self, x: str, by: Scaled) -> str:
        """`x` quantized and dequantized."""
        parameters = self.constant(by.scale, "float32"), self.constant(by.zero, by.dtype)
        return self.node(
            "DequantizeLinear", self.node("QuantizeLinear", x, *parameters), *parameters
        )

    def weights(self, values: np.ndarray, scales: np.ndarray, axis: int = 0) -> str:
        """Constant integers, dequantized."""
        constants = self.constant(values, values.dtype.name), self.constant(scales, "float32")
        attributes = {"axis": axis} if scales.ndim else {}
        return self.node("DequantizeLinear", *constants, **attributes)

    def proto(self, output: str, shape: Sequence[int], **others: Sequence[int]) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "quantized",
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, given)
                for name, given in {"x": self.shape, **self.others}.items()
            ],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, made)
                for name, made in {output: shape, **others}.items()
            ],
            self.constants,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
