"""One step of an LSTM, a GRU or an RNN, by the equations of the ONNX standard.

A step gets what the inputs give to the gates, [batch, gates * hidden] with all biases added that
can be, and the states [batch, hidden]; it returns the next states, the output first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import onnx_graphsurgeon as gs
from tvm import relax, te, tirx
from tvm.ir import Constant

from edgec.lower.activation import (
    elu_of,
    hard_sigmoid_of,
    leaky_of,
    lift,
    relu_of,
    sigmoid_of,
    softplus_of,
    softsign_of,
    tanh_of,
    thresholded_of,
)
from edgec.lower.context import Context, Refused, literal
from edgec.lower.elementwise import math
from edgec.lower.matmul import product
from edgec.lower.repeat import Exprs

Fn = Callable[..., Any]


@dataclass(frozen=True)
class Weights:
    """What a step reads besides the states: the recurrence weights [hidden, gates * hidden], their
    bias [gates * hidden] where it is not yet added, and an LSTM's peepholes [3 * hidden]; None
    where absent."""

    recurrence: relax.Expr
    bias: relax.Expr | None
    peepholes: relax.Expr | None


@dataclass(frozen=True)
class Cell:
    """A kind of cell: `gates` and `states` are counts, `functions` the default activations of a
    direction, `step(ctx, functions, clip, flag, gates, states, weights)` its equations.

    `flag` is the attribute named so, 0 or 1. `own_bias(flag)` says whether the step adds the bias
    of the recurrence itself.
    """

    gates: int
    states: int
    functions: tuple[str, ...]
    flag: str
    own_bias: Callable[[int], bool]
    step: Callable[..., Exprs]


def _lstm(
    ctx: Context,
    functions: list[Fn],
    clip: Fn,
    input_forget: int,
    gates: relax.Expr,
    states: Exprs,
    weights: Weights,
) -> Exprs:
    """Gates i, o, f, c; functions f, g, h."""
    hidden, cell = states
    batch, size = ctx.shape(hidden)
    sums = ctx.emit(relax.op.add(product(ctx, hidden, weights.recurrence), gates))
    squash, candidate, out = functions
    peepholes = [] if weights.peepholes is None else [weights.peepholes]

    def peep(kind: int, before: Any, j: Any, rest: tuple[te.Tensor, ...]) -> Any:
        return rest[0](kind * size + j) * before if rest else literal(0, ctx.dtype(cell))

    def next_cell(g: te.Tensor, c: te.Tensor, *rest: te.Tensor) -> te.Tensor:
        def element(n: Any, j: Any) -> Any:
            i = squash(clip(g(n, j) + peep(0, c(n, j), j, rest)))
            f = squash(clip(g(n, 2 * size + j) + peep(2, c(n, j), j, rest)))
            if input_forget:
                f = literal(1, ctx.dtype(cell)) - i
            return f * c(n, j) + i * candidate(clip(g(n, 3 * size + j)))

        return te.compute((batch, size), element, name="lstm_cell")

    def next_hidden(g: te.Tensor, c: te.Tensor, *rest: te.Tensor) -> te.Tensor:
        def element(n: Any, j: Any) -> Any:
            o = squash(clip(g(n, size + j) + peep(1, c(n, j), j, rest)))
            return o * out(c(n, j))

        return te.compute((batch, size), element, name="lstm_hidden")

    cell = ctx.te("lstm_cell", next_cell, sums, cell, *peepholes)
    return [ctx.te("lstm_hidden", next_hidden, sums, cell, *peepholes), cell]


def _gru(
    ctx: Context,
    functions: list[Fn],
    clip: Fn,
    linear_before_reset: int,
    gates: relax.Expr,
    states: Exprs,
    weights: Weights,
) -> Exprs:
    """Gates z, r, h; functions f, g."""
    (hidden,) = states
    batch, size = ctx.shape(hidden)
    squash, candidate = functions
    one = literal(1, ctx.dtype(hidden))
    squashed = 3 * size if linear_before_reset else 2 * size
    sums = product(ctx, hidden, columns(ctx, weights.recurrence, 0, squashed))
    if linear_before_reset and weights.bias is not None:
        sums = ctx.emit(relax.op.add(sums, weights.bias))

    def reset(g: te.Tensor, s: te.Tensor) -> te.Tensor:
        def element(n: Any, j: Any) -> Any:
            return squash(clip(g(n, size + j) + s(n, size + j)))

        return te.compute((batch, size), element, name="gru_reset")

    r = ctx.te("gru_reset", reset, gates, sums)
    if linear_before_reset:
        after = ctx.emit(relax.op.multiply(r, columns(ctx, sums, 2 * size, 3 * size)))
    else:
        before = ctx.emit(relax.op.multiply(r, hidden))
        after = product(ctx, before, columns(ctx, weights.recurrence, 2 * size, 3 * size))

    def update(g: te.Tensor, s: te.Tensor, k: te.Tensor, h: te.Tensor) -> te.Tensor:
        def element(n: Any, j: Any) -> Any:
            z = squash(clip(g(n, j) + s(n, j)))
            return (one - z) * candidate(clip(g(n, 2 * size + j) + k(n, j))) + z * h(n, j)

        return te.compute((batch, size), element, name="gru_hidden")

    return [ctx.te("gru_hidden", update, gates, sums, after, hidden)]


def _rnn(
    ctx: Context,
    functions: list[Fn],
    clip: Fn,
    _: int,
    gates: relax.Expr,
    states: Exprs,
    weights: Weights,
) -> Exprs:
    (hidden,) = states
    sums = product(ctx, hidden, weights.recurrence)
    return [ctx.map("rnn_hidden", lambda s, g: functions[0](clip(s + g)), sums, gates)]


def columns(ctx: Context, x: relax.Expr, first: int, end: int) -> relax.Expr:
    """Columns `first` to `end` of a matrix, computed at once for a constant."""
    if isinstance(x, Constant):
        return ctx.const(x.value.numpy()[:, first:end])
    shape = (ctx.shape(x)[0], end - first)
    return ctx.te(
        "columns",
        lambda t: te.compute(shape, lambda i, j: t(i, first + j), name="columns"),
        x,
    )


def clipping(limit: float | None, dtype: str) -> Fn:
    """What bounds the argument of an activation to -limit .. limit.

    Not by Select, over several of which, one inside another, TVM's simplifier takes minutes.
    """
    if limit is None:
        return lambda x: x
    high, low = literal(limit, dtype), literal(-limit, dtype)
    return lambda x: tirx.min(tirx.max(x, low), high)


_FUNCTIONS: dict[str, tuple[Fn, tuple[float, ...]]] = {
    "relu": (relu_of, ()),
    "tanh": (math(tanh_of), ()),
    "sigmoid": (math(sigmoid_of), ()),
    "softsign": (math(softsign_of), ()),
    "softplus": (math(softplus_of), ()),
    "affine": (lambda x, a, b: lift(x, a) * x + lift(x, b), (1.0, 0.0)),
    "leakyrelu": (leaky_of, (0.01,)),
    "thresholdedrelu": (thresholded_of, (1.0,)),
    "scaledtanh": (lambda x, a, b: lift(x, a) * math(tanh_of)(lift(x, b) * x), (1.0, 1.0)),
    "hardsigmoid": (hard_sigmoid_of, (0.2, 0.5)),
    "elu": (elu_of, (1.0,)),
}
"""Activations by lower-case name, and the defaults of alpha and beta where they have them."""


def activations(ctx: Context, node: gs.Node, cell: Cell, directions: int) -> list[list[Fn]]:
    """The functions of each direction; alpha and beta are given to those that have them, in
    order. Raises Refused for one that ONNX does not define."""
    names = [str(n) for n in ctx.attr(node, "activations", [])] or [*cell.functions] * directions
    alphas = [float(v) for v in ctx.attr(node, "activation_alpha", [])]
    betas = [float(v) for v in ctx.attr(node, "activation_beta", [])]
    if len(names) != len(cell.functions) * directions:
        raise Refused(f"{len(names)} activations are given")
    functions: list[Fn] = []
    for name in names:
        if name.lower() not in _FUNCTIONS:
            raise Refused(f"there is no activation {name!r}")
        function, defaults = _FUNCTIONS[name.lower()]
        values = [
            given.pop(0) if given else default
            for given, default in zip((alphas, betas), defaults, strict=False)
        ]
        functions.append(lambda x, f=function, v=tuple(values): f(x, *v))
    count = len(cell.functions)
    return [functions[d * count : (d + 1) * count] for d in range(directions)]


CELLS = {
    "LSTM": Cell(4, 2, ("Sigmoid", "Tanh", "Tanh"), "input_forget", lambda _: False, _lstm),
    "GRU": Cell(3, 1, ("Sigmoid", "Tanh"), "linear_before_reset", bool, _gru),
    "RNN": Cell(1, 1, ("Tanh",), "", lambda _: False, _rnn),
}
