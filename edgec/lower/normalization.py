"""Normalizations, each one kernel: statistics in float32 or wider, then the scaled output."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from tvm import relax, te, tirx
from tvm.ir import Constant

from edgec.lower.context import Context, Refused, at, axis_of, literal
from edgec.lower.ends import over_row
from edgec.lower.reduce import SUM, reduced


def batch_normalization(
    ctx: Context, node: gs.Node, inputs: list[relax.Expr]
) -> relax.Expr | list[relax.Expr]:
    """y = x * a + b with a = scale / sqrt(var + epsilon), b = bias - mean * a."""
    x, scale, bias, mean, variance = inputs
    ctx.ignore("spatial")
    epsilon, momentum = (
        float(ctx.attr(node, name, value)) for name, value in (("epsilon", 1e-5), ("momentum", 0.9))
    )
    if ctx.attr(node, "training_mode", 0):
        return _by_batch(ctx, inputs, epsilon, momentum)
    shape = ctx.shape(x)
    dtype = ctx.dtype(x)
    channel = (1, ctx.shape(scale)[0], *[1] * (len(shape) - 2))
    parameters = (scale, bias, mean, variance)
    if all(isinstance(p, Constant) for p in parameters):
        g, b, m, v = (p.value.numpy().astype(np.float64).reshape(channel) for p in parameters)
        factor = g / np.sqrt(v + epsilon)
        y = ctx.emit(relax.op.multiply(x, ctx.const(factor, dtype)))
        return ctx.emit(relax.op.add(y, ctx.const(b - m * factor, dtype)))
    columns = [ctx.reshape(ctx.cast(p, dtype), channel) for p in parameters]

    def normal(v: Any, g: Any, b: Any, m: Any, s: Any) -> Any:
        return (v - m) / tirx.sqrt(s + literal(epsilon, dtype)) * g + b

    return ctx.map("batch_norm", normal, x, *columns)


def _by_batch(
    ctx: Context, inputs: list[relax.Expr], epsilon: float, momentum: float
) -> list[relax.Expr]:
    """`x` normalized by its own mean and variance, and those mixed into the running ones."""
    x, scale, bias, *running = inputs
    dtype = ctx.dtype(x)
    wide = "float64" if dtype == "float64" else "float32"
    shape, x = ctx.shape(x), ctx.cast(x, wide)
    axes = tuple(a for a in range(len(shape)) if a != 1)
    share = literal(1.0 / max(prod(shape[a] for a in axes), 1), wide)

    def average(values: relax.Expr) -> relax.Expr:
        return ctx.map("mean", lambda v: v * share, reduced(ctx, values, axes, SUM, name="sum"))

    mean = average(x)
    centred = ctx.map("centred", lambda v, m: v - m, x, mean)
    variance = average(ctx.map("square", lambda v: v * v, centred))
    columns = [ctx.reshape(ctx.cast(p, wide), ctx.shape(mean)) for p in (scale, bias)]

    def normal(v: Any, s: Any, g: Any, b: Any) -> Any:
        return (v / tirx.sqrt(s + literal(epsilon, wide)) * g + b).astype(dtype)

    def mixed(old: Any, new: Any) -> Any:
        kept, gained = literal(momentum, wide), literal(1 - momentum, wide)
        return (old.astype(wide) * kept + new * gained).astype(str(old.ty.dtype))

    y = ctx.map("batch_norm", normal, centred, variance, *columns)
    return [y] + [
        ctx.map("running", mixed, old, ctx.reshape(new, ctx.shape(old)))
        for old, new in zip(running, (mean, variance), strict=True)
    ]


def normalized(
    ctx: Context,
    x: relax.Expr,
    epsilon: float,
    scale: relax.Expr | None = None,
    bias: relax.Expr | None = None,
    *,
    centre: bool = True,
    statistics: bool = False,
) -> list[relax.Expr]:
    """`x` to mean 0 and variance 1 over its last axis, times `scale`, plus `bias`.

    With `statistics` the mean and 1 / sqrt(variance + epsilon) follow. Without `centre` the mean is
    taken for 0. `x` is float32 or float64; scale and bias broadcast against it.
    """
    shape, dtype = ctx.shape(x), ctx.dtype(x)
    rows, size = shape[:-1], shape[-1]
    share = literal(1.0 / max(size, 1), dtype)
    parameters = [ctx.cast(p, dtype) for p in (scale, bias) if p is not None]

    def compute(data: te.Tensor, *given: te.Tensor) -> list[te.Tensor]:
        def average(name: str, transform: Any) -> te.Tensor:
            total = over_row(name, rows, size, ctx.block, transform, SUM, lambda a, b: a + b)
            return te.compute(rows, lambda *row: total(*row) * share, name=f"mean_{name}")

        def shifted(*index: Any) -> Any:
            return data(*index) - mean(*index[:-1]) if centre else data(*index)

        if centre:
            mean = average("sum", data)
        variance = average("squares", lambda *index: shifted(*index) * shifted(*index))
        factor = te.compute(
            rows,
            lambda *row: literal(1, dtype) / tirx.sqrt(variance(*row) + literal(epsilon, dtype)),
            name="factor",
        )

        def element(*index: Any) -> Any:
            values = iter(given)
            y = shifted(*index) * factor(*index[:-1])
            y = y if scale is None else y * at(next(values), index)
            return y if bias is None else y + at(next(values), index)

        y = te.compute(shape, element, name="normalized")
        if not statistics:
            return [y]
        return [y, mean, factor] if centre else [y, factor]

    results = ctx.te("normalize", compute, x, *parameters)
    return results if isinstance(results, list) else [results]


def _over_axes(
    ctx: Context,
    x: relax.Expr,
    first: int,
    epsilon: float,
    *parameters: relax.Expr | None,
    centre: bool = True,
    statistics: bool = False,
) -> list[relax.Expr]:
    """`normalized` over the axes from `first` on, in the type of `x`; parameters are of those."""
    shape = ctx.shape(x)
    size = prod(shape[first:])
    rows = ctx.reshape(_wide(ctx, x), (*shape[:first], size) if first else (1, size))
    each = [
        None if p is None else ctx.reshape(ctx.broadcast(p, shape[first:]), (size,))
        for p in parameters
    ]
    y, *rest = normalized(ctx, rows, epsilon, *each, centre=centre, statistics=statistics)
    kept = (*shape[:first], *[1] * (len(shape) - first))
    return [
        ctx.cast(ctx.reshape(y, shape), ctx.dtype(x)),
        *(ctx.reshape(value, kept) for value in rest),
    ]


def _affine(ctx: Context, y: relax.Expr, *parameters: relax.Expr) -> relax.Expr:
    """y * scale + bias."""
    scale, bias = (ctx.cast(p, ctx.dtype(y)) for p in parameters)
    return ctx.emit(relax.op.add(ctx.emit(relax.op.multiply(y, scale)), bias))


def _wide(ctx: Context, x: relax.Expr) -> relax.Expr:
    return ctx.cast(x, "float32") if ctx.dtype(x) in ("float16", "bfloat16") else x


def layer_normalization(
    ctx: Context, node: gs.Node, inputs: list[relax.Expr | None]
) -> list[relax.Expr]:
    x, scale, bias = [*inputs, None, None][:3]
    first = axis_of(ctx.attr(node, "axis", -1), len(ctx.shape(x)))
    if ctx.attr(node, "stash_type", 1) != 1:
        raise Refused("statistics in another type than float32 are not lowered")
    epsilon = float(ctx.attr(node, "epsilon", 1e-5))
    statistics = any(output.name for output in node.outputs[1:])
    return _over_axes(ctx, x, first, epsilon, scale, bias, statistics=statistics)


def rms_normalization(
    ctx: Context, node: gs.Node, inputs: list[relax.Expr | None]
) -> list[relax.Expr]:
    x, scale = inputs
    first = axis_of(ctx.attr(node, "axis", -1), len(ctx.shape(x)))
    if ctx.attr(node, "stash_type", 1) != 1:
        raise Refused("statistics in another type than float32 are not lowered")
    return _over_axes(ctx, x, first, float(ctx.attr(node, "epsilon", 1e-5)), scale, centre=False)


def instance_normalization(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
    x, scale, bias = inputs
    batch, channels, *space = shape = ctx.shape(x)
    column = (1, channels, 1)
    rows = ctx.reshape(_wide(ctx, x), (batch, channels, prod(space)))
    epsilon = float(ctx.attr(node, "epsilon", 1e-5))
    (y,) = normalized(ctx, rows, epsilon, ctx.reshape(scale, column), ctx.reshape(bias, column))
    return ctx.cast(ctx.reshape(y, shape), ctx.dtype(x))


def group_normalization(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
    x, scale, bias = inputs
    shape = ctx.shape(x)
    groups = int(ctx.attr(node, "num_groups"))
    if ctx.attr(node, "stash_type", 1) != 1:
        raise Refused("statistics in another type than float32 are not lowered")
    if groups < 1 or shape[1] % groups:
        raise Refused(f"{groups} groups do not divide {shape[1]} channels")
    epsilon = float(ctx.attr(node, "epsilon", 1e-5))
    column = (1, shape[1], *[1] * (len(shape) - 2))
    grouped = ctx.reshape(_wide(ctx, x), (shape[0], groups, prod(shape[1:]) // groups))
    (y,) = normalized(ctx, grouped, epsilon)
    y = ctx.reshape(y, shape)
    y = _affine(ctx, y, ctx.reshape(scale, column), ctx.reshape(bias, column))
    return ctx.cast(y, ctx.dtype(x))


def lp_normalization(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
    (x,) = inputs
    dtype = ctx.dtype(x)
    axis = axis_of(ctx.attr(node, "axis", -1), len(ctx.shape(x)))
    p = int(ctx.attr(node, "p", 2))
    if p not in (1, 2):
        raise Refused(f"p={p} is neither 1 nor 2")
    total = reduced(ctx, x, (axis,), SUM, tirx.abs if p == 1 else lambda v: v * v, "norm")
    zero = literal(0, dtype)

    def divide(v: Any, n: Any) -> Any:
        size = n if p == 1 else tirx.sqrt(n)
        return tirx.Select(size == zero, zero, v / size)

    return ctx.map("lp_normalize", divide, x, total)


def lrn(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
    (x,) = inputs
    shape, dtype = ctx.shape(x), ctx.dtype(x)
    size = int(ctx.attr(node, "size"))
    alpha, beta = float(ctx.attr(node, "alpha", 1e-4)), float(ctx.attr(node, "beta", 0.75))
    bias = float(ctx.attr(node, "bias", 1.0))
    below = (size - 1) // 2

    def compute(data: te.Tensor) -> te.Tensor:
        tap = te.reduce_axis((0, size), "k")

        def square(n: Any, c: Any, *at: Any) -> Any:
            channel = c + tap.var - below
            value = data(n, channel, *at)
            inside = tirx.all(channel >= 0, channel < shape[1])
            return SUM(tirx.if_then_else(inside, value * value, literal(0, dtype)), axis=[tap])

        squares = te.compute(shape, square, name="squares")

        def element(*i: Any) -> Any:
            scale = literal(bias, dtype) + literal(alpha / size, dtype) * squares(*i)
            return data(*i) / tirx.power(scale, literal(beta, dtype))

        return te.compute(shape, element, name="lrn")

    return ctx.te("lrn", compute, x)


ENTRIES = {
    "BatchNormalization": batch_normalization,
    "LayerNormalization": layer_normalization,
    "RMSNormalization": rms_normalization,
    "InstanceNormalization": instance_normalization,
    "GroupNormalization": group_normalization,
    "LpNormalization": lp_normalization,
    "LRN": lrn,
}
