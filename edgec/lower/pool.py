"""Pooling over any number of spatial axes. MaxPool keeps NaN, as its definition by max does."""

from __future__ import annotations

from math import prod
from typing import Any

import onnx_graphsurgeon as gs
from tvm import relax, te, tirx

from edgec.lower.context import Context, Shape, literal, select, sum_type
from edgec.lower.elementwise import maximum
from edgec.lower.loops import Loops
from edgec.lower.reduce import lowest, reducer
from edgec.lower.window import Window, window


def max_pool(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
    (x,) = inputs
    column_major = bool(ctx.attr(node, "storage_order", 0))
    w = window(ctx, node, ctx.shape(x)[2:])
    if len(node.outputs) > 1 and node.outputs[1].name:
        return _max_with_indices(ctx, x, w, column_major)
    return max_of(ctx, node, x, w)


def max_of(ctx: Context, node: gs.Node, x: relax.Expr, w: Window) -> relax.Expr:
    """The largest of each window over the axes after the first two."""
    largest = reducer(maximum, lambda t: lowest(t), "max")

    def pooled(data: te.Tensor) -> te.Tensor:
        return _over_window(
            data, w, lambda v, axes: largest(v, axis=axes), lowest(ctx.dtype(x)), "max_pool"
        )

    return ctx.te("max_pool", pooled, x)


def _over_window(data: te.Tensor, w: Window, combine: Any, outside: Any, name: str) -> te.Tensor:
    """`combine` of each window's elements, `outside` standing for the padding."""
    space = [int(n) for n in data.shape[2:]]
    padded = _pad(data, w, outside)
    taps = [te.reduce_axis((0, k), f"k{a}") for a, k in enumerate(w.kernel)]

    def element(n: Any, c: Any, *at: Any) -> Any:
        where = [at[a] * w.strides[a] + taps[a].var * w.dilations[a] for a in range(len(space))]
        return combine(padded(n, c, *where), taps)

    return te.compute((*data.shape[:2], *w.sizes), element, name=name)


def _pad(data: te.Tensor, w: Window, outside: Any) -> te.Tensor:
    """The input with what its windows reach beyond it filled in; itself if nothing is."""
    space = [int(n) for n in data.shape[2:]]
    spans = [(o - 1) * s + r for o, s, r in zip(w.sizes, w.strides, w.reach, strict=True)]
    grown = [max(span, n + b) for span, n, b in zip(spans, space, w.before, strict=True)]
    if grown == space and not any(w.before):
        return data

    def element(n: Any, c: Any, *at: Any) -> Any:
        where = [i - b for i, b in zip(at, w.before, strict=True)]
        inside = [
            condition
            for i, size, g, b in zip(where, space, grown, w.before, strict=True)
            for condition in ([i >= 0] if b else []) + ([i < size] if g > size + b else [])
        ]
        return tirx.if_then_else(tirx.all(*inside), data(n, c, *where), outside)

    return te.compute((*data.shape[:2], *grown), element, name="pad")


def _max_with_indices(
    ctx: Context, x: relax.Expr, w: Window, column_major: bool
) -> list[relax.Expr]:
    """The maxima and where each lies in the flattened input; the first of equal ones."""
    batch, channels, *space = ctx.shape(x)
    dtype = ctx.dtype(x)
    strides = _flat_strides(space, column_major)

    def better(a: Any, b: Any) -> Any:
        take = (
            tirx.any(b[0] > a[0], tirx.all(tirx.isnan(b[0]), tirx.Not(tirx.isnan(a[0]))))
            if (dtype.startswith("float"))
            else b[0] > a[0]
        )
        take = tirx.any(take, a[1] < literal(0, "int64"))
        take = tirx.all(take, b[1] >= literal(0, "int64"))
        return select(take, b[0], a[0]), select(take, b[1], a[1])

    best = te.comm_reducer(better, lambda t, _: (lowest(t), literal(-1, "int64")), "max_pool")

    def pooled(data: te.Tensor) -> list[te.Tensor]:
        taps = [te.reduce_axis((0, k), f"k{a}") for a, k in enumerate(w.kernel)]

        def element(n: Any, c: Any, *at: Any) -> Any:
            where = [
                at[a] * w.strides[a] + taps[a].var * w.dilations[a] - w.before[a]
                for a in range(len(space))
            ]
            inside = tirx.all(
                *(c for i, size in zip(where, space, strict=True) for c in (i >= 0, i < size))
            )
            flat = (n * channels + c) * prod(space)
            flat += sum(i * s for i, s in zip(where, strides, strict=True))
            value = tirx.if_then_else(inside, data(n, c, *where), lowest(dtype))
            place = tirx.if_then_else(inside, flat.astype("int64"), literal(-1, "int64"))
            return best((value, place), axis=taps)

        return list(te.compute((batch, channels, *w.sizes), element, name="max_pool"))

    return list(ctx.te("max_pool_indices", pooled, x))


def _flat_strides(space: list[int], column_major: bool) -> list[int]:
    if column_major:
        return [prod(space[:a]) for a in range(len(space))]
    return [prod(space[a + 1 :]) for a in range(len(space))]


def average_pool(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
    (x,) = inputs
    return average_of(ctx, node, x, window(ctx, node, ctx.shape(x)[2:]))


def average_of(ctx: Context, node: gs.Node, x: relax.Expr, w: Window) -> relax.Expr:
    """The mean of each window over the axes after the first two."""
    mean = divided(ctx, node, _summed(ctx, x, w, lambda v: v), ctx.shape(x)[2:], w)
    return ctx.cast(mean, ctx.dtype(x))


def divided(ctx: Context, node: gs.Node, total: relax.Expr, space: Shape, w: Window) -> relax.Expr:
    """Sums over windows of an image of `space`, each divided by the elements that it averages."""
    include = bool(ctx.attr(node, "count_include_pad", 0))
    dtype = ctx.dtype(total)
    counts = [_counts(n, w, a, include) for a, n in enumerate(space)]
    if all(len(set(c)) == 1 for c in counts):
        scale = 1.0 / prod(c[0] for c in counts)
        return ctx.map("average", lambda v: v * literal(scale, dtype), total)
    import numpy as np

    count = np.ones((1, 1), np.float32)
    for axis in counts:
        count = count[..., None] * np.asarray(axis, np.float32)
    return ctx.map("average", lambda v, n: v / n, total, ctx.const(count, dtype))


def _counts(size: int, w: Window, axis: int, include: bool) -> list[int]:
    """How many elements each window position along `axis` averages."""
    stride, before, spacing = w.strides[axis], w.before[axis], w.dilations[axis]
    low, high = (-before, size + w.after[axis]) if include else (0, size)
    taps = [
        [o * stride - before + k * spacing for k in range(w.kernel[axis])]
        for o in range(w.sizes[axis])
    ]
    return [sum(low <= t < high for t in row) for row in taps]


def _summed(ctx: Context, x: relax.Expr, w: Window, transform: Any) -> relax.Expr:
    """Sums of what `transform` makes of each window's elements, in their `sum_type`."""
    zero, wide = literal(0, ctx.dtype(x)), sum_type(ctx.dtype(x))

    def pooled(data: te.Tensor) -> te.Tensor:
        return _over_window(
            data, w, lambda v, axes: te.sum(transform(v.astype(wide)), axis=axes), zero, "pool_sum"
        )

    return ctx.te("pool_sum", pooled, x)


def lp_pool(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
    (x,) = inputs
    w = window(ctx, node, ctx.shape(x)[2:])
    return _lp(ctx, x, w, int(ctx.attr(node, "p", 2)))


def _lp(ctx: Context, x: relax.Expr, w: Window, p: int) -> relax.Expr:
    if p == 2:
        y = ctx.map("lp_root", tirx.sqrt, _summed(ctx, x, w, lambda v: v * v))
    elif p == 1:
        y = _summed(ctx, x, w, tirx.abs)
    else:
        wide = sum_type(ctx.dtype(x))
        power, root = literal(p, wide), literal(1 / p, wide)
        total = _summed(ctx, x, w, lambda v: tirx.power(tirx.abs(v), power))
        y = ctx.map("lp_root", lambda v: tirx.power(v, root), total)
    return ctx.cast(y, ctx.dtype(x))


def whole(space: Shape) -> Window:
    """One window over everything."""
    ones, zeros = (1,) * len(space), (0,) * len(space)
    return Window(space, ones, ones, zeros, zeros, ones)


def global_average_pool(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
    (x,) = inputs
    return average_of(ctx, node, x, whole(ctx.shape(x)[2:]))


def global_max_pool(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
    (x,) = inputs
    return max_of(ctx, node, x, whole(ctx.shape(x)[2:]))


def global_lp_pool(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
    return _lp(ctx, inputs[0], whole(ctx.shape(inputs[0])[2:]), int(ctx.attr(node, "p", 2)))


def max_unpool(ctx: Context, node: gs.Node, inputs: list[relax.Expr | None]) -> relax.Expr:
    """Maxima put back where `MaxPool` found them, 0 elsewhere."""
    x, indices = inputs[0], inputs[1]
    batch, channels, *space = ctx.shape(x)
    rank = len(space)
    kernel = ctx.attr(node, "kernel_shape")
    strides = ctx.attr(node, "strides", [1] * rank)
    pads = ctx.attr(node, "pads", [0] * (2 * rank))
    natural = [
        (space[a] - 1) * strides[a] + kernel[a] - pads[a] - pads[a + rank] for a in range(rank)
    ]
    given = len(inputs) > 2 and inputs[2] is not None
    out = [int(n) for n in ctx.required(node, 2, "output_shape")] if given else []
    shape = tuple(out) or (batch, channels, *natural)
    dtype = ctx.dtype(x)
    whole = (batch, channels, *natural)
    steps = [prod(whole[a + 1 :]) for a in range(rank + 2)]

    def body(loops: Loops, data: Any, places: Any, result: Any) -> None:
        with loops.over(shape) as i:
            result[i] = literal(0, dtype)
        with loops.over((batch, channels, *space)) as i:
            flat = places[i]
            at = [
                tirx.truncmod(tirx.truncdiv(flat, s), n) for s, n in zip(steps, whole, strict=True)
            ]
            inside = tirx.all(flat >= 0, flat < prod(whole))
            with loops.when(inside):
                result[at] = data[i]

    return ctx.loops("max_unpool", body, [x, indices], [(shape, dtype)])


ENTRIES = {
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "LpPool": lp_pool,
    "MaxUnpool": max_unpool,
    "GlobalAveragePool": global_average_pool,
    "GlobalMaxPool": global_max_pool,
    "GlobalLpPool": global_lp_pool,
}
