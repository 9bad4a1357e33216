"""Matrix products, float and integer."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from tvm import relax, te, tirx
from tvm.ir import Constant

from edgec.lower import packed_matmul
from edgec.lower.context import Context, at, literal, sum_type
from edgec.lower.packed_weight import Stored
from edgec.targets.cpu.matmul import panel, whole_tiles


def matmul(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
    stored = ctx.stored.get(node.inputs[1].name)
    made = None if stored is None else packed_matmul.product(ctx, inputs[0], stored)
    return product(ctx, *inputs) if made is None else made


def product(ctx: Context, a: relax.Expr, b: relax.Expr) -> relax.Expr:
    """numpy's matmul; half precision is added up in float32."""
    return ctx.cast(_sums(ctx, a, b), ctx.dtype(a))


def _sums(ctx: Context, a: relax.Expr, b: relax.Expr) -> relax.Expr:
    """The same in its `sum_type`."""
    dtype = ctx.dtype(a)
    inner = ctx.shape(a)[-1]
    wide = sum_type(dtype)
    if inner == 0:
        shape = np.matmul(np.empty(ctx.shape(a)), np.empty(ctx.shape(b))).shape
        return ctx.full(shape, 0, wide)
    if wide != dtype:
        a = ctx.cast(a, wide)
        made = packed_matmul.product(ctx, a, Stored(b.value.numpy())) if _known(b) else None
        if made is not None:
            return made
        b = ctx.cast(b, wide)
    if wide == "float32" and min(len(ctx.shape(a)), len(ctx.shape(b))) > 1:
        return _in_tiles(ctx, a, b)
    return ctx.emit(relax.op.matmul(a, b))


def _in_tiles(ctx: Context, a: relax.Expr, b: relax.Expr) -> relax.Expr:
    """A product of float matrices with as many rows as whole tiles have; those beyond the last
    repeat it, and are left out of the result.

    A constant `b` is stored as the kernel reads it: panels of columns, row by row.
    """
    *lead, rows, inner = ctx.shape(a)
    *lead_b, _, columns = ctx.shape(b)
    width = panel(rows, columns)
    packed = bool(ctx.block) and _known(b) and not lead_b
    if packed:
        b = ctx.const(b.value.numpy().reshape(inner, -1, width).transpose(1, 0, 2))
    out = np.broadcast_shapes(tuple(lead), tuple(lead_b))
    computed = whole_tiles(rows)

    def compute(left: te.Tensor, right: te.Tensor) -> te.Tensor:
        k = te.reduce_axis((0, inner), "k")

        def sums(*index: Any) -> Any:
            *batch, i, j = index
            row = i if computed == rows else tirx.min(i, rows - 1)
            value = right(j // width, k, j % width) if packed else at(right, (*batch, k, j))
            return te.sum(at(left, (*batch, row, k)) * value, axis=k)

        name = "matmul_packed" if packed else "matmul"
        product = te.compute((*out, computed, columns), sums, name=name)
        if computed == rows:
            return product
        return te.compute((*out, rows, columns), lambda *index: product(*index), name="rows")

    return ctx.te("matmul", compute, a, b)


def gemm(ctx: Context, node: gs.Node, inputs: list[relax.Expr | None]) -> relax.Expr:
    a, b = inputs[0], inputs[1]
    c = inputs[2] if len(inputs) > 2 else None
    alpha, beta = float(ctx.attr(node, "alpha", 1.0)), float(ctx.attr(node, "beta", 1.0))
    if ctx.attr(node, "transA", 0):
        a = ctx.transpose(a, [1, 0])
    stored = ctx.stored.get(node.inputs[1].name)
    if ctx.attr(node, "transB", 0):
        b = ctx.transpose(b, [1, 0])
        stored = stored and stored.transposed([1, 0])
    made = stored and packed_matmul.product(ctx, a, stored.scaled(alpha))
    if made is not None:
        y = made
    elif _known(b):
        y = _sums(ctx, a, scaled(ctx, b, alpha))
    else:
        y = scaled(ctx, _sums(ctx, a, b), alpha)
    if c is not None and beta != 0.0:
        y = ctx.emit(relax.op.add(y, scaled(ctx, ctx.cast(c, ctx.dtype(y)), beta)))
    return ctx.cast(y, ctx.dtype(a))


def _known(expr: relax.Expr) -> bool:
    return isinstance(expr, Constant)


def scaled(ctx: Context, expr: relax.Expr, factor: float) -> relax.Expr:
    """`expr` times `factor`, computed at once for a constant."""
    if factor == 1.0:
        return expr
    dtype = ctx.dtype(expr)
    if _known(expr):
        array = expr.value.numpy()
        return ctx.const(array * array.dtype.type(factor))
    return ctx.map("scale", lambda v: v * literal(factor, dtype), expr)


def centred(
    ctx: Context, x: relax.Expr, zero: relax.Expr | None, axis: int | None = None
) -> relax.Expr:
    """`x` less its zero point, in int32; a zero point of rank 1 runs along `axis`."""
    wide = ctx.cast(x, "int32")
    if zero is None:
        return wide
    zero = ctx.cast(zero, "int32")
    shape = ctx.shape(zero)
    if len(shape) == 1 and prod(shape) > 1 and axis is not None:
        rank = len(ctx.shape(x))
        zero = ctx.reshape(zero, tuple(shape[0] if a == axis else 1 for a in range(rank)))
    elif prod(shape) == 1:
        zero = ctx.reshape(zero, ())
    if _known(wide) and _known(zero):
        return ctx.const(wide.value.numpy() - zero.value.numpy())
    return ctx.map("centre", lambda v, z: v - z, wide, zero)


def matmul_integer(ctx: Context, node: gs.Node, inputs: list[relax.Expr | None]) -> relax.Expr:
    a, b, a_zero, b_zero = [*inputs, None, None][:4]
    rows = max(len(ctx.shape(a)) - 2, 0)
    return product(
        ctx, centred(ctx, a, a_zero, rows), centred(ctx, b, b_zero, len(ctx.shape(b)) - 1)
    )


ENTRIES = {"MatMul": matmul, "Gemm": gemm}
