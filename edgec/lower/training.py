"""Steps of gradient descent (ai.onnx.preview.training): parameters moved by their gradients.

Inputs are the rate R, the count T of steps before, then all parameters, all gradients and all
moments; outputs are the parameters and moments afterwards, in the same order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx_graphsurgeon as gs
from tvm import relax, tirx

from edgec.lower.context import Context, Refused, literal, select

Update = Callable[..., list[relax.Expr]]


def _descent(update: Update, moments: int) -> Any:
    """An entry that applies `update` to each parameter, its gradient and its `moments`."""

    def entry(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> list[relax.Expr]:
        rate, count, *rest = inputs
        each = len(rest) // (2 + moments)
        updated = []
        for x, gradient, *state in (rest[k::each] for k in range(each)):
            dtype = ctx.dtype(x)
            decay = literal(ctx.attr(node, "norm_coefficient", 0.0), dtype)
            slope = ctx.map("slope", lambda x, g, d=decay: d * x + g, x, gradient)
            step = ctx.cast(ctx.reshape(rate, ()), dtype)
            updated.append(update(ctx, node, step, ctx.reshape(count, ()), x, slope, *state))
        return [result for kind in zip(*updated, strict=True) for result in kind]

    return entry


def _adagrad(
    ctx: Context,
    node: gs.Node,
    rate: relax.Expr,
    count: relax.Expr,
    x: relax.Expr,
    slope: relax.Expr,
    squares: relax.Expr,
) -> list[relax.Expr]:
    dtype = ctx.dtype(x)
    decay = literal(ctx.attr(node, "decay_factor", 0.0), dtype)
    epsilon = literal(ctx.attr(node, "epsilon", 1e-6), dtype)
    one = literal(1, dtype)
    slower = ctx.map("rate", lambda r, t: r / (one + t.astype(dtype) * decay), rate, count)
    total = ctx.map("squares", lambda h, g: h + g * g, squares, slope)
    moved = ctx.map(
        "adagrad",
        lambda x, g, h, r: x - r * g / (tirx.sqrt(h) + epsilon),
        *(x, slope, total, slower),
    )
    return [moved, total]


def _adam(
    ctx: Context,
    node: gs.Node,
    rate: relax.Expr,
    count: relax.Expr,
    x: relax.Expr,
    slope: relax.Expr,
    momentum: relax.Expr,
    squares: relax.Expr,
) -> list[relax.Expr]:
    dtype = ctx.dtype(x)
    alpha, beta = float(ctx.attr(node, "alpha", 0.9)), float(ctx.attr(node, "beta", 0.999))
    epsilon = literal(ctx.attr(node, "epsilon", 1e-6), dtype)
    kept = literal(1.0 - float(ctx.attr(node, "norm_coefficient_post", 0.0)), dtype)

    def unbiased(r: Any, t: Any) -> Any:
        def missing(factor: float) -> Any:
            power = tirx.power(literal(factor, "float64"), t.astype("float64"))
            return literal(1, "float64") - power

        later = r.astype("float64") * tirx.sqrt(missing(beta)) / missing(alpha)
        return select(t > literal(0, "int64"), later.astype(dtype), r)

    def mixed(factor: float) -> Callable[[Any, Any], Any]:
        old, new = literal(factor, dtype), literal(1.0 - factor, dtype)
        return lambda before, now: old * before + new * now

    first = ctx.map("momentum", mixed(alpha), momentum, slope)
    second = ctx.map("squares", lambda h, g: mixed(beta)(h, g * g), squares, slope)
    moved = ctx.map(
        "adam",
        lambda x, v, h, r: kept * (x - r * (v / (tirx.sqrt(h) + epsilon))),
        *(x, first, second, ctx.map("rate", unbiased, rate, count)),
    )
    return [moved, first, second]


def _momentum(
    ctx: Context,
    node: gs.Node,
    rate: relax.Expr,
    count: relax.Expr,
    x: relax.Expr,
    slope: relax.Expr,
    momentum: relax.Expr,
) -> list[relax.Expr]:
    dtype, mode = ctx.dtype(x), ctx.attr(node, "mode")
    alpha, beta = (literal(ctx.attr(node, name), dtype) for name in ("alpha", "beta"))
    if mode not in ("standard", "nesterov"):
        raise Refused(f"mode={mode!r} is unknown")

    def gathered(v: Any, g: Any, t: Any) -> Any:
        return alpha * v + select(t > literal(0, "int64"), beta, literal(1, dtype)) * g

    def moved(x: Any, g: Any, v: Any, r: Any) -> Any:
        return x - r * (v if mode == "standard" else g + alpha * v)

    gained = ctx.map("gained", gathered, momentum, slope, count)
    return [ctx.map("momentum", moved, x, slope, gained, rate), gained]


ENTRIES = {
    "ai.onnx.preview.training.Adagrad": _descent(_adagrad, 1),
    "ai.onnx.preview.training.Adam": _descent(_adam, 2),
    "ai.onnx.preview.training.Momentum": _descent(_momentum, 1),
}
