"""Tensors made from little or nothing."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from tvm import relax, te

from edgec.lower.cast import element_type
from edgec.lower.context import Context, Refused


def constant_of_shape(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
    value = ctx.attr(node, "value")
    fill = np.float32(0) if value is None else np.asarray(value.values).reshape(-1)[0]
    wanted = ctx.constant(node, 0)
    shape = ctx.output_shape(node) if wanted is None else tuple(int(n) for n in wanted)
    return filled(ctx, shape, fill)


def filled(ctx: Context, shape: tuple[int, ...], fill: Any) -> relax.Expr:
    """`fill` everywhere, written by a kernel rather than stored."""
    value = np.asarray(fill)
    if prod(shape) == 0:
        return ctx.empty(shape, value.dtype.name)
    return ctx.broadcast(ctx.emit(ctx.const(value)), shape) if shape else ctx.const(value)


def eye_like(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
    (x,) = inputs
    shape, k = ctx.shape(x), int(ctx.attr(node, "k", 0))
    target = ctx.attr(node, "dtype")
    dtype = ctx.dtype(x) if target is None else element_type(target)
    if len(shape) != 2:
        raise Refused(f"a tensor of rank {len(shape)} is no matrix")
    return ctx.const(np.eye(*shape, k=k), dtype)


def range_(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
    start, _, delta = inputs
    (count,) = ctx.output_shape(node)
    dtype = ctx.dtype(start)
    if count == 0:
        return ctx.empty((0,), dtype)

    def compute(first: te.Tensor, step: te.Tensor) -> te.Tensor:
        return te.compute((count,), lambda i: first() + i.astype(dtype) * step(), name="range")

    return ctx.te("range", compute, ctx.reshape(start, ()), ctx.reshape(delta, ()))


ENTRIES = {
    "ConstantOfShape": constant_of_shape,
    "EyeLike": eye_like,
    "Range": range_,
}
