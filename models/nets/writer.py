"""Writing an ONNX model node by node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

IR_VERSION = 8
OPSET = 17


class Net:
    """A model under construction.

    Tensors are handled by name. A node and its (first) output share one name: the one asked for, or
    the op's with a number. The result depends on the calls alone, so equal calls give equal bytes.
    """

    def __init__(self, name: str, doc: str = "") -> None:
        self.name = name
        self.doc = doc
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._numbers: dict[str, int] = {}

    def input(self, name: str, shape: Sequence[int | str], dtype: str = "float32") -> str:
        """Declare a graph input; a string in `shape` is a symbolic dimension."""
        self._inputs.append(_value_info(name, shape, dtype))
        return name

    def output(self, tensor: str, shape: Sequence[int | str], dtype: str = "float32") -> None:
        """Declare `tensor` a graph output."""
        self._outputs.append(_value_info(tensor, shape, dtype))

    def weight(self, name: str, value: np.ndarray) -> str:
        """Add an initializer."""
        self._weights.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def constant(self, value: object, dtype: str = "float32") -> str:
        """Add a Constant node, the way exporters write scalars, shapes and axes."""
        tensor = numpy_helper.from_array(np.asarray(value, dtype))
        return self.op("Constant", value=tensor)

    def op(self, op_type: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        """Add a node with one output and return it; "" leaves an optional input out."""
        return self.ops(op_type, *inputs, outputs=1, name=name, **attributes)[0]

    def ops(
        self,
        op_type: str,
        *inputs: str,
        outputs: int | Sequence[str],
        name: str | None = None,
        **attributes: Any,
    ) -> list[str]:
        """Add a node with several outputs, given by number or by name ("" for one not wanted)."""
        if name is None:
            number = self._numbers[op_type] = self._numbers.get(op_type, -1) + 1
            name = f"{op_type}_{number}"
        if isinstance(outputs, int):
            outputs = [name, *(f"{name}.{i}" for i in range(1, outputs))]
        self._nodes.append(helper.make_node(op_type, inputs, outputs, name, **attributes))
        return list(outputs)

    def model(self, metadata: Mapping[str, str] | None = None) -> onnx.ModelProto:
        """The finished model, checked in full, with `metadata` as its metadata_props."""
        graph = helper.make_graph(
            self._nodes, self.name, self._inputs, self._outputs, self._weights, doc_string=self.doc
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="edgec-models",
            doc_string=self.doc,
        )
        helper.set_model_props(model, dict(metadata or {}))
        onnx.checker.check_model(model, full_check=True)
        return model


def _value_info(name: str, shape: Sequence[int | str], dtype: str) -> onnx.ValueInfoProto:
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return helper.make_tensor_value_info(name, element, shape)
