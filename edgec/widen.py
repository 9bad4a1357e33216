"""Models whose inputs and outputs ONNX Runtime's Python cannot exchange, made so that it can.

bfloat16 and the narrow types (see `edgec.packing`) are cast inside the model, from and to the next
type that numpy has.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper

from edgec.arrays import Array
from edgec.packing import is_packed

Types = dict[str, np.dtype[np.generic]]


def widen(model: onnx.ModelProto) -> tuple[Types, Types]:
    """Change `model` in place; the original dtypes of the inputs and outputs that were changed.

    They are called by the names that `wide` makes of theirs.
    """
    graph = model.graph
    filled = {tensor.name for tensor in graph.initializer}
    inputs = _changed([value for value in graph.input if value.name not in filled])
    outputs = _changed(list(graph.output))
    first = [
        helper.make_node("Cast", [wide(name)], [name], to=helper.np_dtype_to_tensor_dtype(dtype))
        for name, dtype in inputs.items()
    ]
    last = [
        helper.make_node("Cast", [name], [wide(name)], to=_wider(dtype))
        for name, dtype in outputs.items()
    ]
    nodes = [*first, *graph.node, *last]
    del graph.node[:]
    graph.node.extend(nodes)
    return inputs, outputs


def wide(name: str) -> str:
    """What an input or output is called once it was changed."""
    return f"{name}@wide"


def widened(arrays: Mapping[str, Array], types: Types) -> dict[str, Array]:
    """`arrays` as the changed model takes them."""
    return {
        wide(name) if name in types else name: array.astype(
            helper.tensor_dtype_to_np_dtype(_wider(types[name]))
        )
        if name in types
        else array
        for name, array in arrays.items()
    }


def restored(arrays: Mapping[str, Array], types: Types) -> dict[str, Array]:
    """Results of the changed model with their own names and dtypes."""
    names = {wide(name): name for name in types}
    return {
        names.get(name, name): array.astype(types[names[name]]) if name in names else array
        for name, array in arrays.items()
    }


def _changed(values: list[onnx.ValueInfoProto]) -> Types:
    """Rename and retype what numpy has no type for."""
    found: Types = {}
    for value in values:
        tensor = value.type.tensor_type
        if tensor.elem_type in (TensorProto.UNDEFINED, TensorProto.STRING):
            continue
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        if dtype.name == "bfloat16" or is_packed(dtype.name):
            found[value.name] = dtype
            tensor.elem_type = _wider(dtype)
            value.name = wide(value.name)
    return found


def _wider(dtype: np.dtype[np.generic]) -> int:
    if "float" in dtype.name:
        return int(TensorProto.FLOAT)
    return int(TensorProto.UINT8 if dtype.name.startswith("u") else TensorProto.INT8)
