"""Normalizations, each one kernel: statistics in float32 or wider, then the scaled output."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from tvm import relax, te, tirx
from tvm.ir import Constant

from edgec.lower.context import Context, Refused, axis_of, literal
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
    ctx: Context, x: relax.Expr, axes: tuple[int, ...], epsilon: float, *, centre: bool = True
) -> tuple[relax.Expr, relax.Expr, relax.Expr]:
    """`x` to mean 0 and variance 1 over `axes`, the mean, and 1 / sqrt(variance + epsilon).

    Without `centre` the mean is taken for 0. `x` is float32 or float64.
    """
    shape, dtype = ctx.shape(x), ctx.dtype(x)
    count = literal(1.0 / prod(shape[a] for a in axes), dtype)
    kept = tuple(1 if a in axes else n for a, n in enumerate(shape))

    def compute(data: te.Tensor) -> list[te.Tensor]:
        def total(name: str, transform: Any) -> te.Tensor:
            spans = {a: te.reduce_axis((0, shape[a]), f"k{a}") for a in axes}

            def element(*index: Any) -> Any:
                where = [spans[a].var if a in spans else i for a, i in enumerate(index)]
                return SUM(transform(where), axis=list(spans.values()))

            return te.compute(kept, element, name=name)

        def group(index: Any) -> list[Any]:
            return [0 if a in axes else i for a, i in enumerate(index)]

        def shifted(where: Any) -> Any:
            return data(*where) - mean(*group(where)) if centre else data(*where)

        if centre:
            sums = total("sum", lambda where: data(*where))
            mean = te.compute(kept, lambda *i: sums(*i) * count, name="mean")
        squares = total("squares", lambda where: shifted(where) * shifted(where))
        factor = te.compute(
            kept,
            lambda *i: literal(1, dtype) / tirx.sqrt(squares(*i) * count + literal(epsilon, dtype)),
            name="factor",
        )
        y = te.compute(shape, lambda *i: shifted(i) * factor(*group(i)), name="normalized")
        return [y, mean, factor] if centre else [y, factor]

    results = ctx.te("normalize", compute, x)
    return (results[0], results[1], results[-1])


def _affine(ctx: Context, y: relax.Expr, *parameters: relax.Expr | None) -> relax.Expr:
    """y * scale + bias, either of which may be absent."""
    scale, bias = parameters
    if scale is not None:
        y = ctx.emit(relax.op.multiply(y, ctx.cast(scale, ctx.dtype(y))))
    if bias is not None:
        y = ctx.emit(relax.op.add(y, ctx.cast(bias, ctx.dtype(y))))
    return y


def _wide(ctx: Context, x: relax.Expr) -> relax.Expr:
    return ctx.cast(x, "float32") if ctx.dtype(x) in ("float16", "bfloat16") else x


def layer_normalization(
    ctx: Context, node: gs.Node, inputs: list[relax.Expr | None]
) -> list[relax.Expr]:
    x, scale, bias = [*inputs, None, None][:3]
    rank = len(ctx.shape(x))
    first = axis_of(ctx.attr(node, "axis", -1), rank)
    if ctx.attr(node, "stash_type", 1) != 1:
        raise Refused("statistics in another type than float32 are not lowered")
    epsilon = float(ctx.attr(node, "epsilon", 1e-5))
    y, mean, factor = normalized(ctx, _wide(ctx, x), tuple(range(first, rank)), epsilon)
    return [ctx.cast(_affine(ctx, y, scale, bias), ctx.dtype(x)), mean, factor]


def rms_normalization(ctx: Context, node: gs.Node, inputs: list[relax.Expr | None]) -> relax.Expr:
    x, scale = inputs
    rank = len(ctx.shape(x))
    first = axis_of(ctx.attr(node, "axis", -1), rank)
    if ctx.attr(node, "stash_type", 1) != 1:
        raise Refused("statistics in another type than float32 are not lowered")
    epsilon = float(ctx.attr(node, "epsilon", 1e-5))
    axes = tuple(range(first, rank))
    y, _, _ = normalized(ctx, _wide(ctx, x), axes, epsilon, centre=False)
    return ctx.cast(_affine(ctx, y, scale, None), ctx.dtype(x))


def instance_normalization(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
    x, scale, bias = inputs
    rank = len(ctx.shape(x))
    column = (1, ctx.shape(scale)[0], *[1] * (rank - 2))
    epsilon = float(ctx.attr(node, "epsilon", 1e-5))
    y, _, _ = normalized(ctx, _wide(ctx, x), tuple(range(2, rank)), epsilon)
    y = _affine(ctx, y, ctx.reshape(scale, column), ctx.reshape(bias, column))
    return ctx.cast(y, ctx.dtype(x))


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
    y, _, _ = normalized(ctx, grouped, (2,), epsilon)
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
