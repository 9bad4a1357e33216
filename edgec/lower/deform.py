"""Convolutions whose taps are moved by offsets that another tensor gives."""

from __future__ import annotations

from itertools import product as combinations
from math import prod
from typing import Any

import onnx_graphsurgeon as gs
from tvm import relax, te, tirx

from edgec.lower.context import Context, Refused, literal
from edgec.lower.matmul import product
from edgec.lower.window import Window, window


def deform_conv(ctx: Context, node: gs.Node, inputs: list[relax.Expr | None]) -> relax.Expr:
    """The taps as columns, read between pixels where they fall there, then a matrix product."""
    x, weight, offset, bias, mask = [*inputs, None, None][:5]
    batch, channels, *space = ctx.shape(x)
    groups, offsets = (int(ctx.attr(node, f"{kind}group", 1)) for kind in ("", "offset_"))
    rows, depth, *kernel = ctx.shape(weight)
    w = window(ctx, node, tuple(space), tuple(kernel))
    taps, out, dtype = prod(kernel), w.sizes, ctx.dtype(x)
    if len(space) != 2 or dtype not in ("float32", "float64"):
        raise Refused(f"taps of {dtype} moved along {len(space)} axes are not lowered")
    if channels != depth * groups or rows % groups or channels % offsets:
        raise Refused(f"{groups} groups and {offsets} of offsets do not divide the channels")
    if ctx.shape(offset) != (batch, offsets * taps * 2, *out):
        raise Refused(f"offsets of shape {ctx.shape(offset)} do not fit {out}")
    moves = ctx.reshape(offset, (batch, offsets, taps, 2, *out))
    if mask is None:
        mask = ctx.full((1,), 1, dtype)
        strength = ctx.broadcast(mask, (batch, offsets, taps, *out))
    else:
        strength = ctx.reshape(mask, (batch, offsets, taps, *out))

    def compute(data: te.Tensor, move: te.Tensor, factor: te.Tensor) -> te.Tensor:
        def element(n: Any, c: Any, tap: Any, *at: Any) -> Any:
            group = tirx.floordiv(c, channels // offsets)
            start = _start(w, tap, at)
            place = [
                start[a].astype(dtype) + move(n, group, tap, a, *at) for a in range(len(space))
            ]
            return _between(data, (n, c), place, space, dtype) * factor(n, group, tap, *at)

        return te.compute((batch, channels, taps, *out), element, name="taps")

    columns = ctx.te("taps", compute, x, moves, strength)
    columns = ctx.reshape(columns, (batch, groups, depth * taps, prod(out)))
    matrix = ctx.reshape(weight, (1, groups, rows // groups, depth * taps))
    y = ctx.reshape(product(ctx, matrix, columns), (batch, rows, *out))
    if bias is None:
        return y
    return ctx.emit(relax.op.add(y, ctx.reshape(bias, (1, rows, 1, 1))))


def _start(w: Window, tap: Any, at: tuple[Any, ...]) -> list[Any]:
    """Where tap number `tap` of output position `at` would read, unmoved."""
    width = w.kernel[1]
    taps = tirx.floordiv(tap, width), tirx.floormod(tap, width)
    return [at[a] * w.strides[a] - w.before[a] + taps[a] * w.dilations[a] for a in range(len(at))]


def _between(
    data: te.Tensor, lead: tuple[Any, ...], place: list[Any], space: list[int], dtype: str
) -> Any:
    """The value at a fractional place by the pixels around it; those outside count as 0."""
    one, total = literal(1, dtype), literal(0, dtype)
    floors = [tirx.floor(p) for p in place]
    for corner in combinations((0, 1), repeat=len(place)):
        at, inside, share = [], [], one
        for p, low, step, size in zip(place, floors, corner, space, strict=True):
            pixel = low + literal(step, dtype)
            share = share * (p - low if step else one - (p - low))
            inside += [pixel >= literal(0, dtype), pixel < literal(size, dtype)]
            at.append(pixel.astype("int64"))
        value = tirx.if_then_else(tirx.all(*inside), data(*lead, *at), literal(0, dtype))
        total = total + value * share
    return total


ENTRIES = {"DeformConv": deform_conv}
