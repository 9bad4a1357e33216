"""Products of uint8 matrices by int8 weights or by each other, summed four bytes at a time.

As in `edgec.lower.integer_conv`, the left side's zero point makes a constant of the result. The
weights lie in panels of columns, as those of float products do (`edgec.lower.matmul`). A right side
that a run computes is brought there first, each byte less 128, to be one with a sign:

    sum((a - z) * (b - w)) = sum(a * b') - z * sum(b') - w' * sum(a) + terms * z * w'
        with b' = b - 128, w' = w - 128
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax, te, tirx
from tvm.ir import Constant

from edgec.lower.context import Context, literal
from edgec.lower.dot import dot4, quad
from edgec.lower.dot_forms import BYTES, SIGNED, UNSIGNED, Form, form_for
from edgec.targets.cpu.matmul import panel, whole_tiles


def sums(ctx: Context, a: relax.Expr, zero: int, weights: np.ndarray) -> relax.Expr:
    """`a` - `zero`, uint8 [..., M, K], times `weights`, int8 [K, N]: int32 [..., M, N]."""
    rows, (inner, columns) = ctx.shape(a)[-2], weights.shape
    width, terms = panel(rows, columns), -(-inner // BYTES)
    whole = np.zeros((terms * BYTES, columns), np.int8)
    whole[:inner] = weights
    form = form_for(ctx.dots, weights, width)
    packed = form.packed(whole.reshape(terms, BYTES, -1, width).transpose(2, 0, 3, 1))
    total = _sums(ctx, _whole_quads(ctx, a), ctx.const(packed), form)
    if form.origin == zero:
        return total
    moved = (form.origin - zero) * weights.astype(np.int32).sum(axis=0)
    return ctx.emit(relax.op.add(total, ctx.const(moved.astype(np.int32))))


def sums_of_two(
    ctx: Context, a: relax.Expr, b: relax.Expr, a_zero: relax.Expr, b_zero: relax.Expr
) -> relax.Expr:
    """`a` - `a_zero`, uint8 [..., M, K], times `b` - `b_zero`, uint8 [..., K, N]: int32
    [..., M, N]. Zero points are scalars, int32; K is at most `MOST_TERMS`."""
    a, (*_, inner, columns) = _whole_quads(ctx, a), ctx.shape(b)
    packed = _packed(ctx, b, panel(ctx.shape(a)[-2], columns))
    form = SIGNED if ctx.dots == "signed" else UNSIGNED
    total = _sums(ctx, a, packed, form)
    middle, origin = literal(_MIDDLE, "int32"), literal(form.origin, "int32")
    b_zero = _number(ctx, lambda w: w - middle, b_zero)
    moved = _number(ctx, lambda z: z - origin, a_zero)
    for zero, others in ((moved, _of_columns), (b_zero, _of_rows)):
        if not _is_zero(zero):
            of = others(ctx, packed if others is _of_columns else a)
            total = ctx.map("less", lambda v, z, s: v - z * s, total, zero, of)
    constant = _number(ctx, lambda z, w: z * w * literal(inner, "int32"), a_zero, b_zero)
    if _is_zero(constant):
        return total
    return ctx.map("more", lambda v, c: v + c, total, constant)


MOST_TERMS = 2**31 // (4 * 255 * 128)
"""Of a product of two, so that none of the four parts of its sums leaves int32, nor all of them."""

_MIDDLE = 128
_FLIPPED = np.array([0x80808080], np.uint32).view(np.int32)[0]
_ONES = 0x01010101


def _number(ctx: Context, function: Any, *numbers: relax.Expr) -> relax.Expr:
    """`function` of scalars, computed at once where they are known."""
    if all(isinstance(each, Constant) for each in numbers):
        known = (literal(each.value.numpy(), "int32") for each in numbers)
        return ctx.const(np.array(int(function(*known)), np.int32))
    return ctx.map("number", function, *numbers)


def _is_zero(number: relax.Expr) -> bool:
    return isinstance(number, Constant) and not number.value.numpy().any()


def _packed(ctx: Context, b: relax.Expr, width: int) -> relax.Expr:
    """uint8 [..., K, N] as int8 quads, int32 [..., N / width, K / 4, width], 0 beyond K.

    What was transposed so that the terms of a column no longer are neighbours is read as it was.
    """
    *lead, inner, columns = ctx.shape(b)
    source, axes = _before_transpose(ctx, b)
    across, whole = axes[-2] == len(axes) - 1, inner % BYTES == 0

    def compute(data: te.Tensor) -> te.Tensor:
        def byte(batch: list[Any], k: Any, column: Any) -> Any:
            index = [*batch, k if whole else tirx.min(k, inner - 1), column]
            value = data(*(index[axes.index(axis)] for axis in range(len(axes))))
            if whole:
                return value
            middle, none = literal(_MIDDLE, "uint8"), literal(0, "uint8")
            return tirx.Select(k < inner, value ^ middle, none)

        def element(*index: Any) -> Any:
            *batch, strip, k, v = index
            column = strip * width + v
            four = quad(*(byte(batch, BYTES * k + part, column) for part in range(BYTES)))
            return four ^ literal(_FLIPPED, "int32") if whole else four

        shape = (*lead, columns // width, -(-inner // BYTES), width)
        return te.compute(shape, element, name="quads_across" if across else "quads")

    return ctx.te("pack", compute, source)


def _before_transpose(ctx: Context, b: relax.Expr) -> tuple[relax.Expr, list[int]]:
    """What `b` is with its axes in another order, and that order."""
    value = ctx.builder.lookup_binding(b) if isinstance(b, relax.Var) else None
    if isinstance(value, relax.Call) and value.op.name == "relax.permute_dims":
        return value.args[0], [int(axis) for axis in value.attrs.axes]
    return b, list(range(len(ctx.shape(b))))


def _of_columns(ctx: Context, packed: relax.Expr) -> relax.Expr:
    """The sums of the columns of panels, int32 [..., 1, N]."""
    *lead, strips, terms, width = ctx.shape(packed)

    def compute(data: te.Tensor) -> te.Tensor:
        k = te.reduce_axis((0, terms), "k")
        ones = literal(_ONES, "int32")

        def element(*index: Any) -> Any:
            *batch, _, j = index
            return te.sum(dot4(ones, data(*batch, j // width, k.var, j % width)), axis=k)

        return te.compute((*lead, 1, strips * width), element, name="columns")

    return ctx.te("columns", compute, packed)


def _of_rows(ctx: Context, a: relax.Expr) -> relax.Expr:
    """The sums of the rows of uint8 [..., M, K], int32 [..., M, 1]."""
    *lead, rows, filled = ctx.shape(a)

    def compute(data: te.Tensor) -> te.Tensor:
        k = te.reduce_axis((0, filled), "k")

        def row_sum(*row: Any) -> Any:
            return te.sum(data(*row, k.var).astype("int32"), axis=k)

        sums = te.compute((*lead, rows), row_sum, name="sum")
        return te.compute((*lead, rows, 1), lambda *index: sums(*index[:-1]), name="rows")

    return ctx.te("rows", compute, a)


def _whole_quads(ctx: Context, a: relax.Expr) -> relax.Expr:
    """`a` with columns of 0 up to a multiple of four."""
    *lead, inner = ctx.shape(a)
    filled = -(-inner // BYTES) * BYTES
    if filled == inner:
        return a

    def compute(data: te.Tensor) -> te.Tensor:
        def element(*index: Any) -> Any:
            value = data(*index[:-1], tirx.min(index[-1], inner - 1))
            return tirx.Select(index[-1] < inner, value, tirx.const(0, data.dtype))

        return te.compute((*lead, filled), element, name="fill")

    return ctx.te("fill", compute, a)


def _sums(ctx: Context, a: relax.Expr, packed: relax.Expr, form: Form) -> relax.Expr:
    """The sums of products of `a`, uint8 [..., M, K], K of whole quads, less the origin of `form`,
    and of panels of columns, int32 [..., N / width, K / 4, width], or as `form` has them."""
    *lead, rows, filled = ctx.shape(a)
    *lead_b, strips, terms = ctx.shape(packed)[: -form.rank]
    width = form.columns(ctx.shape(packed))
    out = np.broadcast_shapes(tuple(lead), tuple(lead_b))
    columns, computed = strips * width, whole_tiles(rows)

    def compute(left: te.Tensor, right: te.Tensor) -> te.Tensor:
        k = te.reduce_axis((0, terms), "k")
        factors = form.factors(left, filled, False)

        def sums(*index: Any) -> Any:
            *batch, i, j = index
            row = i if computed == rows else tirx.min(i, rows - 1)
            left_at, panel = (*batch, row), (*batch, j // width, k.var)
            product = form.product(factors, left_at, k.var, right, panel, j % width)
            return te.sum(product, axis=k)

        product = te.compute((*out, computed, columns), sums, name="matmul_packed")
        if computed == rows:
            return product
        return te.compute((*out, rows, columns), lambda *index: product(*index), name="rows")

    return ctx.te("matmul", compute, a, packed)
