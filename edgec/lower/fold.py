"""Values that can be known while lowering: shapes, constants, and arithmetic on a few integers.

Large constants are the fold-constants pass's business; here only what shape computations need is
evaluated, by ONNX's reference implementation, on arrays of at most `LIMIT` elements.
"""

from __future__ import annotations

import math
from math import prod

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx.reference import ReferenceEvaluator

from edgec.lower.context import operator
from edgec.onnx_io import export_node
from edgec.tensors import onnx_dtype

LIMIT = 4096
"""Elements an input or an output may have for a node to be evaluated here."""

SHAPE_ARITHMETIC = frozenset(
    [
        "Abs",
        "Add",
        "And",
        "BitShift",
        "Cast",
        "CastLike",
        "Ceil",
        "Concat",
        "ConstantOfShape",
        "Div",
        "Equal",
        "Expand",
        "Floor",
        "Gather",
        "Greater",
        "GreaterOrEqual",
        "Identity",
        "Less",
        "LessOrEqual",
        "Max",
        "Min",
        "Mod",
        "Mul",
        "Neg",
        "Not",
        "Or",
        "Pow",
        "Range",
        "ReduceMax",
        "ReduceMin",
        "ReduceProd",
        "ReduceSum",
        "Reshape",
        "Round",
        "Slice",
        "Split",
        "Sqrt",
        "Squeeze",
        "Sub",
        "Transpose",
        "Unsqueeze",
        "Where",
        "Xor",
    ]
)


def evaluate(
    node: gs.Node, values: dict[str, np.ndarray], shapes: dict[str, tuple[int, ...]], opset: int
) -> list[np.ndarray] | None:
    """The outputs of `node` where they follow from known `values` and `shapes`, else None."""
    if operator(node) != node.op:
        return None
    if node.op == "Constant":
        value = _constant(node)
        return None if value is None else [value]
    if node.op in ("Shape", "Size"):
        name = node.inputs[0].name
        shape = values[name].shape if name in values else shapes.get(name)
        if shape is None:
            return None
        if node.op == "Size":
            return [np.array(prod(shape), np.int64)]
        return [np.array(shape[slice(node.attrs.get("start", 0), node.attrs.get("end"))], np.int64)]
    if node.op not in SHAPE_ARITHMETIC:
        return None
    feeds = {}
    for tensor in node.inputs:
        if not tensor.name:
            continue
        if tensor.name not in values or values[tensor.name].size > LIMIT:
            return None
        feeds[tensor.name] = values[tensor.name]
    if _size(node, [feeds[t.name] for t in node.inputs if t.name]) > LIMIT:
        return None
    return _run(node, feeds, opset)


def _constant(node: gs.Node) -> np.ndarray | None:
    for name, value in node.attrs.items():
        if name == "value":
            array = value.values if isinstance(value, gs.Constant) else np.asarray(value)
            return np.asarray(array)
        if name in ("value_int", "value_ints"):
            return np.asarray(value, np.int64)
        if name in ("value_float", "value_floats"):
            return np.asarray(value, np.float32)
    return None


def _size(node: gs.Node, arrays: list[np.ndarray]) -> int:
    """An upper bound of the elements that `node` makes of its inputs `arrays`."""
    if node.op == "ConstantOfShape":
        return prod(int(n) for n in arrays[0])
    if node.op == "Expand":
        return max(arrays[0].size, 1) * prod(int(n) for n in arrays[1])
    if node.op == "Range":
        start, limit, delta = (float(a.item()) for a in arrays)
        steps = abs((limit - start) / delta) if delta else math.inf
        return int(steps) + 1 if steps < LIMIT else LIMIT + 1
    if node.op == "Gather":
        return max(arrays[0].size, 1) * max(arrays[1].size, 1)
    return prod(max(a.size, 1) for a in arrays) if len(arrays) < 3 else 0


def _run(node: gs.Node, feeds: dict[str, np.ndarray], opset: int) -> list[np.ndarray] | None:
    proto = onnx.helper.make_model(
        onnx.helper.make_graph(
            [export_node(node, opset, frozenset())],
            "fold",
            [
                onnx.helper.make_tensor_value_info(n, onnx_dtype(a.dtype), a.shape)
                for n, a in feeds.items()
            ],
            [onnx.ValueInfoProto(name=t.name) for t in node.outputs if t.name],
        ),
        opset_imports=[onnx.helper.make_opsetid("", opset)],
    )
    try:
        with np.errstate(all="ignore"):
            results = ReferenceEvaluator(proto).run(None, feeds)
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError):
        return None
    return [np.asarray(r) for r in results]


def onnx_type(dtype: str) -> int:
    """The ONNX element type of a TVM or numpy dtype name."""
    return int(onnx.TensorProto.DataType.Value(_ONNX_NAMES.get(dtype, dtype.upper())))


_ONNX_NAMES = {"float32": "FLOAT", "float64": "DOUBLE"}
