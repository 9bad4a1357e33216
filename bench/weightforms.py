"""Models with their weights in fewer bits: float32 initializers of products and convolutions as
codes of DequantizeLinear, as 16-bit floats, or as ONNX Runtime's own MatMulNBits."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
from onnx import helper, numpy_helper

LEAST = 4096
"""Elements of a weight below which it stays float32."""

GROUP = 32
FORMS = ("w8", "w4", "w2", "fp16", "bf16")
_HALF = {"fp16": np.float16, "bf16": ml_dtypes.bfloat16}
_CODES = {"w8": "int8", "w4": "int4", "w2": "int2"}
_OPSET = 25
"""The first with integers of 2 bits."""


def weight_only(model: onnx.ModelProto, form: str) -> onnx.ModelProto:
    """A copy of `model` with its weights in one of `FORMS`: w8 with a scale for each output, w4 and
    w2 with one for each `GROUP` terms where these divide the sum."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    known = {t.name: t for t in graph.initializer}
    for node in list(graph.node):
        weight = known.get(node.input[1]) if len(node.input) > 1 else None
        if node.op_type not in ("MatMul", "Gemm", "Conv") or weight is None:
            continue
        values = numpy_helper.to_array(weight)
        if values.dtype == np.float32 and values.size > LEAST:
            _narrow(graph, node, values, form)
    used = {name for node in graph.node for name in node.input}
    for tensor in [t for t in graph.initializer if t.name not in used]:
        graph.initializer.remove(tensor)
    made.opset_import[0].version = max(made.opset_import[0].version, _OPSET)
    made.ir_version = max(made.ir_version, 13)
    return made


def _narrow(graph: onnx.GraphProto, node: onnx.NodeProto, values: np.ndarray, form: str) -> None:
    name = f"{node.input[1]}_{form}_of_{node.output[0]}"
    if form in _HALF:
        graph.initializer.append(numpy_helper.from_array(values.astype(_HALF[form]), f"{name}_q"))
        widen = helper.make_node("Cast", [f"{name}_q"], [name], to=onnx.TensorProto.FLOAT)
    else:
        transposed = any(a.name == "transB" and a.i for a in node.attribute)
        outputs = 0 if node.op_type == "Conv" or transposed else 1
        codes, scale, attrs = quantized(values, form, outputs)
        graph.initializer.append(numpy_helper.from_array(codes, f"{name}_q"))
        graph.initializer.append(numpy_helper.from_array(scale, f"{name}_s"))
        inputs = [f"{name}_q", f"{name}_s"]
        widen = helper.make_node("DequantizeLinear", inputs, [name], **attrs)
    graph.node.insert(list(graph.node).index(node), widen)
    node.input[1] = name


def quantized(
    values: np.ndarray, form: str, outputs: int
) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """Codes, scales and attributes of DequantizeLinear, symmetric; `outputs` is the axis of a
    weight's outputs, 0 or 1, and the other one is summed."""
    dtype = np.dtype(getattr(ml_dtypes, _CODES[form], _CODES[form]))
    most = float(ml_dtypes.iinfo(dtype).max) + (0.5 if form == "w2" else 0.0)
    summed, size = 1 - outputs, values.shape[1 - outputs]
    if form == "w8" or size % GROUP:
        axes = tuple(axis for axis in range(values.ndim) if axis != outputs)
        scale = np.maximum(np.abs(values).max(axes), 1e-12) / most
        steps = np.expand_dims(scale, axes)
        attrs = {"axis": outputs}
    else:
        shape = (*values.shape[:summed], size // GROUP, GROUP, *values.shape[summed + 1 :])
        scale = np.maximum(np.abs(values.reshape(shape)).max(summed + 1), 1e-12) / most
        steps = scale.repeat(GROUP, summed)
        attrs = {"axis": summed, "block_size": GROUP}
    info = ml_dtypes.iinfo(dtype)
    codes = np.clip(np.rint(values / steps), float(info.min), float(info.max))
    return codes.astype(np.int8).astype(dtype), scale.astype(np.float32), attrs


def matmul_nbits(model: onnx.ModelProto, accuracy_level: int = 0) -> onnx.ModelProto:
    """A copy of `model` with its products of constants by ONNX Runtime's operator for weights of 4
    bits; at accuracy level 4 it quantizes activations to int8, too."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    known = {t.name: t for t in made.graph.initializer}
    for node in made.graph.node:
        weight = known.get(node.input[1]) if node.op_type == "MatMul" else None
        if weight is None:
            continue
        values = numpy_helper.to_array(weight)
        codes, scale, _ = quantized(values, "w4", 1)
        inner, columns = values.shape
        bytes_ = (codes.astype(np.int8) + 8).astype(np.uint8).T.reshape(columns, -1, GROUP // 2, 2)
        stored = bytes_[..., 0] | bytes_[..., 1] << 4
        made.graph.initializer.remove(weight)
        name = weight.name
        made.graph.initializer.append(numpy_helper.from_array(stored, f"{name}_q"))
        made.graph.initializer.append(
            numpy_helper.from_array(np.ascontiguousarray(scale.T), f"{name}_s")
        )
        node.op_type, node.domain = "MatMulNBits", "com.microsoft"
        node.input[1:] = [f"{name}_q", f"{name}_s"]
        attrs = {"K": inner, "N": columns, "bits": 4, "block_size": GROUP}
        for key, value in (attrs | {"accuracy_level": accuracy_level}).items():
            node.attribute.append(helper.make_attribute(key, value))
    made.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return made
