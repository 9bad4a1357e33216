"""The float32 twin of a model in half precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from edgec.external import all_tensors
from edgec.limits import graphs


def uses_half(model: onnx.ModelProto) -> bool:
    """Whether an input, a constant or a result of `model` is float16."""
    return widened(model) != model


def widened(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with float32 in place of float16."""
    twin = onnx.ModelProto()
    twin.CopyFrom(model)
    for tensor in all_tensors(twin):
        if tensor.data_type == TensorProto.FLOAT16:
            values = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for graph in graphs(twin.graph):
        for info in (*graph.input, *graph.output, *graph.value_info):
            if info.type.tensor_type.elem_type == TensorProto.FLOAT16:
                info.type.tensor_type.elem_type = TensorProto.FLOAT
        for node in graph.node:
            for attribute in node.attribute:
                if node.op_type == "Cast" and attribute.i == TensorProto.FLOAT16:
                    attribute.i = TensorProto.FLOAT
    return twin


def wide(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """`array` as the twin takes it."""
    return array.astype(np.float32) if array.dtype == np.float16 else array
