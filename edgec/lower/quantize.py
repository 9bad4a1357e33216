"""Quantized tensors, computed in float; constants are dequantized here, in numpy."""

from __future__ import annotations

from math import prod
from typing import Any

import ml_dtypes
import numpy as np
import onnx_graphsurgeon as gs
from tvm import relax, tirx
from tvm.ir import Constant

from edgec.lower.cast import element_type, numpy_type
from edgec.lower.context import (
    WIDER,
    Context,
    Refused,
    axis_of,
    held_dtype,
    is_float,
    literal,
    numpy_dtype,
)
from edgec.lower.conv import convolution
from edgec.lower.dot import rounded as rounded_product
from edgec.lower.integer_rows import rows
from edgec.lower.magnitude import magnitude
from edgec.lower.matmul import centred, product
from edgec.lower.narrow import narrowed
from edgec.lower.packed_weight import Stored, spread
from edgec.lower.requantize import requantized, saturated
from edgec.packing import is_packed

_SUMS = {"Add", "Sub"}
"""What processors may fuse a product with."""


def _spread(
    ctx: Context, node: gs.Node, x: relax.Expr, parameter: relax.Expr
) -> tuple[relax.Expr, tuple[int, ...]]:
    """A scale or zero point with `x`'s rank, and how many elements of `x` share one, per axis."""
    shape, own = ctx.shape(x), ctx.shape(parameter)
    axis_value, block = ctx.attr(node, "axis", 1), int(ctx.attr(node, "block_size", 0))
    if prod(own) == 1:
        return ctx.reshape(parameter, (1,) * len(shape)), (0,) * len(shape)
    axis = axis_of(axis_value, len(shape))
    if len(own) == 1 and block == 0:
        if own[0] != shape[axis]:
            raise Refused(f"{own[0]} scales do not fit axis {axis} of {shape}")
        spread = tuple(own[0] if a == axis else 1 for a in range(len(shape)))
        return ctx.reshape(parameter, spread), tuple(int(a == axis) for a in range(len(shape)))
    if len(own) != len(shape) or block < 1:
        raise Refused(f"scales of shape {own} do not fit {shape}")
    return parameter, tuple(block if a == axis else 1 for a in range(len(shape)))


def _shared(tensor: Any, index: tuple[Any, ...], step: tuple[int, ...]) -> Any:
    return tensor(
        *(
            0 if s == 0 or int(n) == 1 else i // s if s > 1 else i
            for i, s, n in zip(index, step, tensor.shape, strict=True)
        )
    )


def _single(scale: relax.Expr, zero: relax.Expr) -> tuple[float, int] | None:
    """The scale, not 0, and the zero point, where all elements share one of each, known now."""
    if not (isinstance(scale, Constant) and isinstance(zero, Constant)):
        return None
    scales, zeros = scale.value.numpy(), zero.value.numpy()
    if not scales.size == zeros.size == 1 or zeros.dtype.kind not in "iu" or not scales.all():
        return None
    return scales.item(), int(zeros.item())


def rounded(value: Any, zero: Any, dtype: str) -> Any:
    """A float to the nearest integer, ties to even, plus `zero`, saturated to `dtype`; held."""
    range_ = ml_dtypes.iinfo(numpy_dtype(dtype))  # type: ignore[no-untyped-call]
    low, high = int(range_.min), int(range_.max)
    kind = str(value.ty.dtype if hasattr(value, "ty") else value.dtype)
    moved = tirx.nearbyint(value) + zero.astype(kind)
    inside = tirx.min(tirx.max(moved, literal(low, kind)), literal(high, kind))
    return inside.astype("int32").astype(WIDER.get(dtype, dtype))


def quantize_linear(ctx: Context, node: gs.Node, inputs: list[relax.Expr | None]) -> relax.Expr:
    from tvm import te

    x, scale = inputs[0], inputs[1]
    zero = inputs[2] if len(inputs) > 2 else None
    saturate = bool(ctx.attr(node, "saturate", 1))
    if ctx.attr(node, "precision", 0) not in (0, 1):
        raise Refused("a precision other than float32 is not lowered")
    target = ctx.attr(node, "output_dtype", 0)
    kind = np.dtype(numpy_type(target) if target else np.uint8)
    if zero is not None:
        kind = np.dtype(node.inputs[2].dtype or ctx.dtype(zero))
    dtype = held_dtype(kind)
    if dtype not in ("int8", "uint8", "int16", "uint16") and not is_packed(kind.name):
        raise Refused(f"quantizing to {dtype} is not lowered")
    if ctx.dtype(x) != "float32":
        x = ctx.cast(x, "float32")
    scale, step = _spread(ctx, node, x, ctx.cast(scale, "float32"))
    if zero is None:
        zero = ctx.const(np.zeros((1,) * len(ctx.shape(x))), dtype)
        zero_step = (0,) * len(ctx.shape(x))
    else:
        zero, zero_step = _spread(ctx, node, x, zero)

    single = _single(scale, zero)
    if single and kind.name in ("int8", "uint8"):
        size, origin = single
        low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
        by_rows = rows(ctx, node, origin) if size == 1.0 and dtype == "uint8" else None
        if by_rows is not None:
            return by_rows
        in_int32 = size == 1.0 and ctx.unsigned and magnitude(node.inputs[0]) < 2**30

        def element(value: Any) -> Any:
            if in_int32:
                return saturated(value, origin, low, high, dtype)
            steps = value if size == 1.0 else value / literal(size, "float32")
            return requantized(steps, origin, low, high, dtype)

        return ctx.map("quantize", element, x)

    def quantized(value: Any, origin: Any) -> Any:
        if is_float(dtype):
            return narrowed(value + origin, kind.name, saturate)
        return rounded(value, origin, kind.name)

    def compute(data: Any, scales: Any, zeros: Any) -> Any:
        return te.compute(
            data.shape,
            lambda *i: quantized(data(*i) / _shared(scales, i, step), _shared(zeros, i, zero_step)),
            name="quantize",
        )

    return ctx.te("quantize", compute, x, scale, zero)


def dequantize_linear(ctx: Context, node: gs.Node, inputs: list[relax.Expr | None]) -> relax.Expr:
    from tvm import te

    x, scale = inputs[0], inputs[1]
    zero = inputs[2] if len(inputs) > 2 else None
    target = ctx.attr(node, "output_dtype", 0)
    dtype = element_type(target) if target else ctx.dtype(scale)
    scale, step = _spread(ctx, node, x, ctx.cast(scale, "float32"))
    if zero is None:
        zero = ctx.const(np.zeros((1,) * len(ctx.shape(x))), ctx.dtype(x))
        zero_step = (0,) * len(ctx.shape(x))
    else:
        zero, zero_step = _spread(ctx, node, x, zero)
    via = "float32" if is_float(ctx.dtype(x)) else "int32"
    single = _single(scale, zero)
    if single and via == "int32" and dtype == "float32" and not isinstance(x, Constant):
        factor, origin = single
        readers = {reader.op for tensor in node.outputs for reader in tensor.outputs}

        def number(value: Any) -> Any:
            centre = value.astype("int32") - literal(origin, "int32")
            product = centre.astype("float32") * literal(factor, "float32")
            return rounded_product(product) if readers & _SUMS else product

        return ctx.map("dequantize", number, x)
    known = [e.value.numpy() for e in (x, scale, zero) if isinstance(e, Constant)]
    if len(known) == 3:
        shape = ctx.shape(x)
        if dtype == "float32":
            note_stored(ctx, node, known, step, zero_step)
        whole = spread(known[2], zero_step, shape).astype(via)
        centre = known[0].astype(via) - whole
        return ctx.const(centre.astype(np.float32) * spread(known[1], step, shape), dtype)

    def compute(data: Any, scales: Any, zeros: Any) -> Any:
        def element(*i: Any) -> Any:
            centre = data(*i).astype(via) - _shared(zeros, i, zero_step).astype(via)
            return (centre.astype("float32") * _shared(scales, i, step)).astype(dtype)

        return te.compute(data.shape, element, name="dequantize")

    return ctx.te("dequantize", compute, x, scale, zero)


def note_stored(
    ctx: Context,
    node: gs.Node,
    known: list[np.ndarray],
    step: tuple[int, ...],
    zero_step: tuple[int, ...],
) -> None:
    """Remember the codes, scales and zero points that the node's result was made of."""
    codes, scale, zero = known
    if not any(zero_step):
        zero = np.broadcast_to(zero, scale.shape)
    elif zero_step != step:
        return
    if codes.dtype.itemsize == 1 and not is_float(codes.dtype.name):
        ctx.stored[node.outputs[0].name] = Stored(codes, scale, zero, step)


def _requantized(
    ctx: Context,
    total: relax.Expr,
    scales: tuple[relax.Expr, relax.Expr, relax.Expr],
    zero: relax.Expr,
    axis: int,
) -> relax.Expr:
    """int32 sums of products of scale a*b as numbers of scale y; b's scale may run along `axis`."""
    rank = len(ctx.shape(total))
    spread = []
    for scale in scales:
        own = ctx.shape(scale)
        size = prod(own)
        if len(own) > 1 and size > 1:
            spread.append(scale)
        else:
            spread.append(ctx.reshape(scale, tuple(size if a == axis else 1 for a in range(rank))))
    dtype = ctx.dtype(zero)
    zero = ctx.reshape(zero, ()) if prod(ctx.shape(zero)) == 1 else zero
    return ctx.map(
        "requantize",
        lambda v, a, b, y, z: rounded(
            v.astype("float32") * (a.astype("float32") * b.astype("float32") / y.astype("float32")),
            z,
            dtype,
        ),
        total,
        *spread,
        zero,
    )


def qlinear_conv(ctx: Context, node: gs.Node, inputs: list[relax.Expr | None]) -> relax.Expr:
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero = inputs[:8]
    bias = inputs[8] if len(inputs) > 8 else None
    total = convolution(ctx, node, centred(ctx, x, x_zero), centred(ctx, w, w_zero, 0), bias)
    return _requantized(ctx, total, (x_scale, w_scale, y_scale), y_zero, 1)


def conv_integer(ctx: Context, node: gs.Node, inputs: list[relax.Expr | None]) -> relax.Expr:
    x, w, x_zero, w_zero = [*inputs, None, None][:4]
    return convolution(ctx, node, centred(ctx, x, x_zero), centred(ctx, w, w_zero, 0), None)


def qlinear_matmul(ctx: Context, node: gs.Node, inputs: list[relax.Expr | None]) -> relax.Expr:
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = inputs
    rows = max(len(ctx.shape(a)) - 2, 0)
    if prod(ctx.shape(a_scale)) > 1:
        raise Refused("a scale per row is not lowered")
    left = centred(ctx, a, a_zero, rows)
    right = centred(ctx, b, b_zero, len(ctx.shape(b)) - 1)
    total = product(ctx, left, right)
    return _requantized(ctx, total, (a_scale, b_scale, y_scale), y_zero, len(ctx.shape(total)) - 1)


ENTRIES = {
    "QuantizeLinear": quantize_linear,
    "DequantizeLinear": dequantize_linear,
    "QLinearConv": qlinear_conv,
    "ConvInteger": conv_integer,
    "QLinearMatMul": qlinear_matmul,
}
