"""Activation functions. NaN stays NaN in all of them, as numpy's formulas have it."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any

import onnx_graphsurgeon as gs
from tvm import relax, tirx

from edgec.lower.context import Context, Refused, is_float, literal, select
from edgec.lower.elementwise import dtype_of, erf_of, libm, math, maximum, minimum, scalar

Fn = Callable[..., Any]


def lift(x: Any, value: float) -> Any:
    """A TIR immediate of the type of `x`."""
    return literal(value, dtype_of(x))


def relu_of(x: Any) -> Any:
    zero = lift(x, 0)
    return select(x < zero, zero, x)


def parametric(name: str, function: Fn, **defaults: float) -> Fn:
    """An entry for `function(x, *attributes)`; `defaults` are ONNX's, in that order."""

    def entry(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
        values = [float(ctx.attr(node, key, default)) for key, default in defaults.items()]
        return ctx.map(name, math(lambda x: function(x, *values)), inputs[0])

    return entry


def sigmoid_of(x: Any) -> Any:
    return lift(x, 1) / (lift(x, 1) + tirx.exp(-x))


def tanh_of(x: Any) -> Any:
    """Written out for vectors in float32 (`edgec.lower.fast_math`), libm's else."""
    return tirx.tanh(x) if dtype_of(x) == "float32" else libm("tanh")(x)


expm1_of = libm("expm1")


def softplus_of(x: Any) -> Any:
    """log(1 + exp(x)) without overflow."""
    positive = select(x < lift(x, 0), lift(x, 0), x)
    return positive + tirx.log1p(tirx.exp(-tirx.abs(x)))


def elu_of(x: Any, alpha: float) -> Any:
    return select(x < lift(x, 0), lift(x, alpha) * expm1_of(x), x)


def _selu(x: Any, alpha: float, gamma: float) -> Any:
    low = lift(x, alpha) * expm1_of(x)
    return lift(x, gamma) * select(x <= lift(x, 0), low, x)


def _celu(x: Any, alpha: float) -> Any:
    low = lift(x, alpha) * expm1_of(x / lift(x, alpha))
    return select(x < lift(x, 0), low, x)


def leaky_of(x: Any, alpha: float) -> Any:
    return select(x < lift(x, 0), lift(x, alpha) * x, x)


def thresholded_of(x: Any, alpha: float) -> Any:
    return select(x <= lift(x, alpha), lift(x, 0), x)


def hard_sigmoid_of(x: Any, alpha: float, beta: float) -> Any:
    y = lift(x, alpha) * x + lift(x, beta)
    return minimum(maximum(y, lift(x, 0)), lift(x, 1))


def softsign_of(x: Any) -> Any:
    return x / (lift(x, 1) + tirx.abs(x))


def _shrink(x: Any, lambd: float, bias: float) -> Any:
    low, high, zero = x < lift(x, -lambd), x > lift(x, lambd), lift(x, 0)
    keep = select(high, x - lift(x, bias), select(tirx.isnan(x), x, zero))
    return select(low, x + lift(x, bias), keep)


def shrink(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
    (x,) = inputs
    lambd, bias = float(ctx.attr(node, "lambd", 0.5)), float(ctx.attr(node, "bias", 0.0))
    if not is_float(ctx.dtype(x)):
        raise Refused("Shrink of integers is not lowered")
    return ctx.map("shrink", math(lambda v: _shrink(v, lambd, bias)), x)


def gelu(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
    approximate = ctx.attr(node, "approximate", "none")
    if approximate not in ("none", "tanh"):
        raise Refused(f"approximate={approximate!r} is not an approximation ONNX defines")

    def exact(x: Any) -> Any:
        return lift(x, 0.5) * x * (lift(x, 1) + erf_of(x * lift(x, sqrt(0.5))))

    def by_tanh(x: Any) -> Any:
        inner = lift(x, sqrt(2 / 3.141592653589793)) * (x + lift(x, 0.044715) * x * x * x)
        return lift(x, 0.5) * x * (lift(x, 1) + tanh_of(inner))

    return ctx.map("gelu", math(by_tanh if approximate == "tanh" else exact), inputs[0])


def prelu(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
    x, slope = inputs
    zero = literal(0, ctx.dtype(x))
    return ctx.map("prelu", lambda v, s: select(v < zero, s * v, v), x, slope)


def clip(ctx: Context, node: gs.Node, inputs: list[relax.Expr | None]) -> relax.Expr:
    x = inputs[0]
    dtype = ctx.dtype(x)
    low = inputs[1] if len(inputs) > 1 else None
    high = inputs[2] if len(inputs) > 2 else None
    bounds: list[relax.Expr] = []
    known: list[Any] = []
    for position, bound in ((1, low), (2, high)):
        value = ctx.constant(node, position)
        known.append(None if value is None else literal(value.item(), dtype))
        if bound is not None and value is None:
            bounds.append(bound)

    def clipped(v: Any, *runtime: Any) -> Any:
        rest = list(runtime)
        for position, (bound, limit) in enumerate(((low, maximum), (high, minimum))):
            if bound is None:
                continue
            limit_value = known[position] if known[position] is not None else rest.pop(0)
            v = limit(v, limit_value)
        return v

    return ctx.map("clip", clipped, x, *bounds)


def dropout(ctx: Context, node: gs.Node, inputs: list[relax.Expr | None]) -> list[relax.Expr]:
    """Inference only: the input itself and a mask of ones."""
    import numpy as np

    ctx.ignore("seed")
    training = ctx.constant(node, 2)
    ratio = ctx.constant(node, 1)
    absent = len(inputs) < 3 or inputs[2] is None
    zero_ratio = ratio is not None and float(ratio.item()) == 0.0
    if not absent and not zero_ratio and (training is None or bool(training.item())):
        raise Refused("training mode draws random numbers")
    x = inputs[0]
    return [x, ctx.const(np.ones(ctx.shape(x), np.bool_))]


ENTRIES = {
    "Relu": scalar("relu", relu_of),
    "Sigmoid": scalar("sigmoid", math(sigmoid_of)),
    "Tanh": scalar("tanh", math(tanh_of)),
    "Softplus": scalar("softplus", math(softplus_of)),
    "Softsign": scalar("softsign", math(softsign_of)),
    "HardSwish": scalar("hard_swish", math(lambda x: x * hard_sigmoid_of(x, 1 / 6, 0.5))),
    "Mish": scalar("mish", math(lambda x: x * tanh_of(softplus_of(x)))),
    "Swish": parametric("swish", lambda x, a: x * sigmoid_of(lift(x, a) * x), alpha=1.0),
    "Elu": parametric("elu", elu_of, alpha=1.0),
    "Selu": parametric(
        "selu", _selu, alpha=1.67326319217681884765625, gamma=1.05070102214813232421875
    ),
    "Celu": parametric("celu", _celu, alpha=1.0),
    "LeakyRelu": parametric("leaky_relu", leaky_of, alpha=0.01),
    "ThresholdedRelu": parametric("thresholded_relu", thresholded_of, alpha=1.0),
    "HardSigmoid": parametric("hard_sigmoid", hard_sigmoid_of, alpha=0.2, beta=0.5),
    "Shrink": shrink,
    "Gelu": gelu,
    "PRelu": prelu,
    "Clip": clip,
    "Dropout": dropout,
}
