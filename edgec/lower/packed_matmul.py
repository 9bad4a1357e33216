"""Products with a constant matrix that stays as narrow in memory as the model has it.

    y[i, j] = sum over runs r: scale[r, j] * sum over terms k of the run: a[i, k] * b[k, j]

A run is a stretch of terms with one scale, or a part of one. The codes of `b` are stored panel by
panel, as `edgec.lower.matmul` stores float matrices, and widened in registers
(`edgec.lower.packed_weight`).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd
from typing import Any

import numpy as np
from tvm import relax, te, tirx

from edgec.lower.context import OUT_ELEMENTWISE_FUSABLE, Context, at
from edgec.lower.packed_weight import Codes, Stored, centred, codes_of
from edgec.targets.cpu.matmul import panel, whole_tiles

_LONGEST_RUN = 128
"""Terms that are added one after the other before they are scaled."""

_SHORTEST_RUN = 16
"""Runs below this cost more than the rounding of a long sum, or than wider elements."""


@dataclass(frozen=True)
class _Sizes:
    """Of a product: all axes of `a` but the last, the terms, columns of `b` and of its panels,
    terms in a run, and runs with the same scale."""

    lead: tuple[int, ...]
    inner: int
    columns: int
    width: int
    run: int
    share: int


def product(ctx: Context, a: relax.Expr, b: Stored) -> relax.Expr | None:
    """`a` [..., M, K] by `b` [K, N], float32; None where there is no kernel for such codes."""
    shape = ctx.shape(a)
    group = _group(b)
    if not ctx.block or group is None or ctx.dtype(a) != "float32":
        return None
    inner, columns = b.codes.shape
    if len(shape) < 2 or shape[-1] != inner or 0 in (*shape, columns):
        return None
    numbers, zero = centred(b)
    run = _run(inner, group)
    codes = codes_of(numbers, run)
    if codes is None:
        return None
    width = panel(shape[-2], columns)
    elements = codes.pack(numbers, 0).reshape(inner // codes.each, -1, width)
    sizes = _Sizes(shape[:-1], inner, columns, width, run, group // run)
    tables = [
        ctx.const(np.broadcast_to(table, (table.shape[0], columns)))
        for table in (b.scale, zero)
        if table is not None
    ]

    def compute(left: te.Tensor, right: te.Tensor, *tables: te.Tensor) -> te.Tensor:
        scale = tables[0] if b.scale is not None else None
        return _compute(sizes, codes, left, right, scale, tables[-1] if zero is not None else None)

    operands = [a, ctx.const(elements.transpose(1, 0, 2)), *tables]
    kind = {"op_pattern": OUT_ELEMENTWISE_FUSABLE}
    return ctx.te("matmul", compute, *operands, attributes=kind)


def _compute(
    sizes: _Sizes,
    codes: Codes,
    left: te.Tensor,
    right: te.Tensor,
    scale: te.Tensor | None,
    zero: te.Tensor | None,
) -> te.Tensor:
    *batch, rows = sizes.lead
    computed = whole_tiles(rows)
    element = te.reduce_axis((0, sizes.run // codes.each), "element")
    place = te.reduce_axis((0, codes.each), "place")
    run = te.reduce_axis((0, sizes.inner // sizes.run), "run")

    def term(*index: Any) -> Any:
        *outer, i, j, r = index
        row = i if computed == rows else tirx.min(i, rows - 1)
        k = r * sizes.run + element * codes.each + place
        first = r * (sizes.run // codes.each) + element
        origin = None if zero is None else zero(r // sizes.share, j).astype("int32")
        number = codes.number(
            right(j // sizes.width, first, j % sizes.width), place.var.astype("int32"), origin
        )
        return te.sum(at(left, (*outer, row, k)) * number, axis=[element, place])

    def total(*index: Any) -> Any:
        value = part(*index, run)
        return te.sum(
            value if scale is None else value * scale(run // sizes.share, index[-1]), axis=run
        )

    shape = (*batch, computed, sizes.columns)
    part = te.compute((*shape, sizes.inner // sizes.run), term, name="packed_part")
    made = te.compute(shape, total, name="packed_matmul")
    if computed == rows:
        return made
    whole = (*batch, rows, sizes.columns)
    return te.compute(whole, lambda *index: made(*index), name="rows")


def _group(b: Stored) -> int | None:
    """Terms that share a scale in every column; None where scales are not arranged so."""
    if b.codes.ndim != 2:
        return None
    tables = [table for table in (b.scale, b.zero) if table is not None]
    if not tables or all(table.shape[0] == 1 for table in tables):
        return int(b.codes.shape[0])
    terms, columns = b.step
    return terms if terms > 1 and columns <= 1 else None


def _run(inner: int, group: int) -> int:
    """Terms in a run: a divisor of the group and of what the last group may lack of it, so that
    many codes fit into an element."""
    common = gcd(inner, group)
    divisors = [n for n in range(1, min(common, _LONGEST_RUN) + 1) if common % n == 0]
    best = max(divisors, key=lambda n: (n >= _SHORTEST_RUN, gcd(n, 8), n))
    return inner if group == inner and best < _SHORTEST_RUN else best
