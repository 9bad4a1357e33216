"""Conversions between element types.

A float goes to a narrow integer by way of a wider one, as numpy and ONNX Runtime do it; out of the
wide one's range the result is unspecified, as ONNX says.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from tvm import relax, tirx
from tvm.ir import Constant

from edgec.lower.context import (
    WIDER,
    Context,
    Refused,
    is_float,
    literal,
    numpy_dtype,
    tensor_dtype,
)
from edgec.lower.narrow import narrowed
from edgec.lower.packed_weight import Stored
from edgec.packing import is_packed

_VIA = {
    "int8": "int32",
    "uint8": "int32",
    "int16": "int32",
    "uint16": "int32",
    "uint32": "int64",
}

_WIDENED = (("float16", "float32"), ("bfloat16", "float32"))


def converted(x: Any, source: str, target: str) -> Any:
    """One element `x` of type `source` as type `target`."""
    if source == target:
        return x
    if target == "bool":
        return x != literal(0, source)
    if is_float(source) and target in _VIA:
        return x.astype(_VIA[target]).astype(target)
    if source == "bfloat16" and target != "float32":
        return converted(x.astype("float32"), "float32", target)
    if target == "bfloat16" and source != "float32":
        return converted(x, source, "float32").astype(target)
    return x.astype(target)


def _to(ctx: Context, x: relax.Expr, target: str) -> relax.Expr:
    source = ctx.dtype(x)
    if source == target:
        return x
    if isinstance(x, Constant):
        return ctx.const(x.value.numpy(), target)
    return ctx.map("cast", lambda v: converted(v, source, target), x)


def element_type(value: Any) -> str:
    """The TVM dtype of an ONNX element type, as a number or a numpy dtype; raises Refused."""
    return tensor_dtype(numpy_type(value))


def numpy_type(value: Any) -> Any:
    """The numpy dtype of an ONNX element type, narrow ones included; raises Refused for strings."""
    if value is None:
        raise Refused("its element type is missing")
    if not isinstance(value, int | np.integer):
        return value
    name = onnx.TensorProto.DataType.Name(int(value))
    if name in ("STRING", "UNDEFINED"):
        raise Refused(f"elements of type {name.lower()} are not lowered")
    return onnx.helper.tensor_dtype_to_np_dtype(int(value))


def as_narrow(ctx: Context, node: gs.Node, x: relax.Expr, dtype: str) -> relax.Expr:
    """`x` as values of a narrow type, rounded and saturated as `node` says."""
    source, wide = ctx.dtype(x), WIDER[dtype]
    if node.inputs[0].name in ctx.extents:
        raise Refused("narrow elements of an extent that a run decides are not lowered")
    saturate = bool(ctx.attr(node, "saturate", 1))
    way = str(ctx.attr(node, "round_mode", "up"))
    if way not in ("up", "down", "nearest"):
        raise Refused(f"round_mode={way!r} is unknown")
    via = "float32" if is_float(wide) else "int32"

    def value(v: Any) -> Any:
        return narrowed(converted(v, source, via), dtype, saturate, way)

    return ctx.map("narrowed", value, x)


def _cast(ctx: Context, node: gs.Node, x: relax.Expr, target: Any) -> relax.Expr:
    name = np.dtype(target).name
    if is_packed(name):
        return as_narrow(ctx, node, x, name)
    ctx.ignore("saturate", "round_mode")
    if isinstance(x, Constant) and (ctx.dtype(x), name) in _WIDENED:
        ctx.stored[node.outputs[0].name] = Stored(x.value.numpy())
    return _to(ctx, x, tensor_dtype(target))


def cast(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
    return _cast(ctx, node, inputs[0], numpy_type(ctx.attr(node, "to")))


def cast_like(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
    return _cast(ctx, node, inputs[0], node.inputs[1].dtype or numpy_dtype(ctx.dtype(inputs[1])))


def bit_cast(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
    target = element_type(ctx.attr(node, "to"))
    x = ctx.cast(inputs[0], "uint8") if ctx.dtype(inputs[0]) == "bool" else inputs[0]
    if target == "bool":
        return ctx.map("bit_cast", lambda v: v != literal(0, ctx.dtype(x)), x)
    return ctx.map("bit_cast", lambda v: tirx.reinterpret(target, v), x)


ENTRIES = {"Cast": cast, "CastLike": cast_like, "BitCast": bit_cast}
