"""Products of uint8 matrices and int8 weights, summed four bytes at a time.

As in `edgec.lower.integer_conv`, the left side's zero point makes a constant of the result. The
weights lie in panels of columns, as those of float products do (`edgec.lower.matmul`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax, te, tirx

from edgec.lower.context import Context
from edgec.lower.dot_forms import BYTES, form_for
from edgec.targets.cpu.matmul import panel, whole_tiles


def sums(ctx: Context, a: relax.Expr, zero: int, weights: np.ndarray) -> relax.Expr:
    """`a` - `zero`, uint8 [..., M, K], times `weights`, int8 [K, N]: int32 [..., M, N]."""
    total, origin = _sums(ctx, _whole_quads(ctx, a), weights)
    if origin == zero:
        return total
    moved = (origin - zero) * weights.astype(np.int32).sum(axis=0)
    return ctx.emit(relax.op.add(total, ctx.const(moved.astype(np.int32))))


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


def _sums(ctx: Context, a: relax.Expr, weights: np.ndarray) -> tuple[relax.Expr, int]:
    """The sums, and what was taken from each element of `a` first."""
    *lead, rows, filled = ctx.shape(a)
    inner, columns = weights.shape
    width, terms = panel(rows, columns), filled // BYTES
    whole = np.zeros((filled, columns), np.int8)
    whole[:inner] = weights
    form = form_for(ctx.dots, weights)
    packed = form.packed(whole.reshape(terms, BYTES, -1, width).transpose(2, 0, 3, 1))
    computed = whole_tiles(rows)

    def compute(left: te.Tensor, right: te.Tensor) -> te.Tensor:
        k = te.reduce_axis((0, terms), "k")
        factors = form.factors(left, filled)

        def sums(*index: Any) -> Any:
            *batch, i, j = index
            row = i if computed == rows else tirx.min(i, rows - 1)
            place, panel = (*batch, row), (j // width, k.var)
            return te.sum(form.product(factors, place, k.var, right, panel, j % width), axis=k)

        product = te.compute((*lead, computed, columns), sums, name="matmul_packed")
        if computed == rows:
            return product
        return te.compute((*lead, rows, columns), lambda *index: product(*index), name="rows")

    return ctx.te("matmul", compute, a, ctx.const(packed)), form.origin
