"""Convolutions by weights that stay as narrow in memory as the model has them.

As `edgec.lower.blocked_conv`, whose images they read and write, with the codes of neighbouring
input channels in one element (`edgec.lower.packed_weight`). A scale for each output channel is
multiplied to the sums; scales for groups of input channels to the sums over each block of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import relax, te

from edgec.lower.border import padded_for
from edgec.lower.context import OUT_ELEMENTWISE_FUSABLE, Context
from edgec.lower.image import Blocked, spread
from edgec.lower.lanes import in_blocks
from edgec.lower.packed_weight import Array, Codes, Stored, centred, codes_of
from edgec.lower.window import Window

_KIND = {"op_pattern": OUT_ELEMENTWISE_FUSABLE}


@dataclass(frozen=True)
class _Taps:
    """Weights [O/b, I/b, kh, kw, b/each, b] in elements of codes, with tables of scales and zero
    points [O/b, I/b/share, kh, kw, b], kh and kw 1 where all taps have the same."""

    codes: Codes
    elements: Array
    scale: Array | None
    zero: Array | None
    share: int


def packed_conv(
    ctx: Context, x: Blocked | relax.Expr, weight: Stored, w: Window
) -> relax.Expr | None:
    """The sums [N, O/b, H, W, b] of an image by weights [O, I, kh, kw]; None where there is no
    kernel for them."""
    taps = _taps(weight, ctx.block)
    if taps is None:
        return None
    image = x if isinstance(x, Blocked) else in_blocks(ctx, x)
    tables = [ctx.const(table) for table in (taps.scale, taps.zero) if table is not None]
    operands = [image.expr, ctx.const(taps.elements), *tables]
    if taps.scale is None or taps.scale.shape[1:4] != (1, 1, 1):
        compute = _by_blocks if taps.scale is not None else _in_one_sum
        return ctx.te("conv2d", lambda *t: compute(taps, w, *t), *operands, attributes=_KIND)
    del operands[2]
    sums = ctx.te("conv2d", lambda *t: _in_one_sum(taps, w, *t), *operands, attributes=_KIND)
    lanes = taps.scale.reshape(1, -1, 1, 1, ctx.block)
    return ctx.emit(relax.op.multiply(sums, ctx.const(lanes)))


def _taps(weight: Stored, block: int) -> _Taps | None:
    """The weights in blocks of channels; None where they do not come so, or need other scales."""
    channels = weight.codes.shape[1]
    tables = [table for table in (weight.scale, weight.zero) if table is not None]
    group = weight.step[1] if tables and any(table.shape[1] > 1 for table in tables) else channels
    if channels % block or group % block or (weight.step and max(weight.step[2:]) > 1):
        return None
    numbers, zero = centred(weight)
    codes = codes_of(numbers, block)
    if codes is None:
        return None
    lanes = spread(numbers, 0, block)
    blocks = lanes.reshape(lanes.shape[0], -1, block, *lanes.shape[2:])
    elements = codes.pack(np.moveaxis(blocks, 2, -2), -2)

    def table(values: Array | None) -> Array | None:
        if values is None:
            return None
        whole = np.broadcast_to(values, (weight.codes.shape[0], *values.shape[1:]))
        return np.ascontiguousarray(spread(whole, 0, block))

    return _Taps(codes, elements, table(weight.scale), table(zero), group // block)


def _in_one_sum(
    taps: _Taps, w: Window, data: te.Tensor, filt: te.Tensor, zero: te.Tensor | None = None
) -> te.Tensor:
    padded = padded_for(data, w)
    outer, kh, kw = _axes(taps)
    element, place = _terms(taps)

    def sums(n: Any, o: Any, i: Any, j: Any, v: Any) -> Any:
        at = (o, outer.var, kh.var, kw.var)
        value = _term(taps, w, padded, filt, zero, (n, i, j, v), at, element.var, place.var)
        return te.sum(value, axis=[outer, kh, kw, element, place])

    shape = (data.shape[0], filt.shape[0], *w.sizes, filt.shape[-1])
    return te.compute(shape, sums, name="conv2d_packed")


def _by_blocks(
    taps: _Taps,
    w: Window,
    data: te.Tensor,
    filt: te.Tensor,
    scale: te.Tensor,
    zero: te.Tensor | None = None,
) -> te.Tensor:
    padded = padded_for(data, w)
    outer, kh, kw = _axes(taps)
    element, place = _terms(taps)
    shape = (data.shape[0], filt.shape[0], *w.sizes, filt.shape[-1])

    def part(n: Any, o: Any, i: Any, j: Any, v: Any, *tap: Any) -> Any:
        at = (o, *tap)
        value = _term(taps, w, padded, filt, zero, (n, i, j, v), at, element.var, place.var)
        return te.sum(value, axis=[element, place])

    parts = te.compute((*shape, *filt.shape[1:4]), part, name="packed_taps")

    def total(n: Any, o: Any, i: Any, j: Any, v: Any) -> Any:
        tap = (outer.var, kh.var, kw.var)
        return te.sum(
            parts(n, o, i, j, v, *tap) * _shared(taps, scale, (o, *tap), v), axis=[outer, kh, kw]
        )

    return te.compute(shape, total, name="conv2d_scaled")


def _axes(taps: _Taps) -> tuple[Any, Any, Any]:
    _, blocks, kh, kw, _, _ = taps.elements.shape
    outer, down = te.reduce_axis((0, blocks), "ib"), te.reduce_axis((0, kh), "k0")
    return outer, down, te.reduce_axis((0, kw), "k1")


def _terms(taps: _Taps) -> tuple[Any, Any]:
    element = te.reduce_axis((0, taps.elements.shape[4]), "element")
    return element, te.reduce_axis((0, taps.codes.each), "place")


def _term(
    taps: _Taps,
    w: Window,
    padded: te.Tensor,
    filt: te.Tensor,
    zero: te.Tensor | None,
    out: tuple[Any, Any, Any, Any],
    at: tuple[Any, ...],
    element: Any,
    place: Any,
) -> Any:
    """The product of one pixel with the code at `place` of an element of the tap `at`."""
    (n, i, j, v), (_, outer, kh, kw) = out, at
    row = i * w.strides[0] + kh * w.dilations[0]
    column = j * w.strides[1] + kw * w.dilations[1]
    origin = None if zero is None else _shared(taps, zero, at, v).astype("int32")
    number = taps.codes.number(filt(*at, element, v), place.astype("int32"), origin)
    return padded(n, outer, row, column, element * taps.codes.each + place) * number


def _shared(taps: _Taps, table: te.Tensor, at: tuple[Any, ...], lane: Any) -> Any:
    """The entry of a table for the tap `at`."""
    o, *tap = at
    places = (
        0 if int(size) == 1 else index
        for size, index in zip(table.shape[1:4], (tap[0] // taps.share, *tap[1:]), strict=True)
    )
    return table(o, *places, lane)
