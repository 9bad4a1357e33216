"""LSTM, GRU and RNN: one matrix product for the inputs of all steps, then a loop over time.

The loop has what depends on the state: a product with the recurrence weights and a few elementwise
kernels, `edgec.lower.cells`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx_graphsurgeon as gs
from tvm import relax, te
from tvm.ir import Constant

from edgec.lower.cells import CELLS, Weights, activations, clipping, columns
from edgec.lower.context import Context, Refused, Result, literal, select
from edgec.lower.matmul import product
from edgec.lower.repeat import Exprs, repeat
from edgec.lower.views import joined

_WAYS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
"""Which directions of a layer go backwards."""


@dataclass(frozen=True)
class _Layer:
    """One direction of a node.

    `gates` is what the inputs give, [steps, batch, gates * hidden]; `running` tells which sequences
    still run, bool [steps, batch, 1], None where all do; `initial` are the states [batch, hidden].
    `wanted` says whether anybody wants the outputs of all steps.
    """

    gates: relax.Expr
    running: relax.Expr | None
    initial: Exprs
    weights: Weights
    step: Callable[[relax.Expr, Exprs, Weights], Exprs]
    backwards: bool
    wanted: bool

    def run(self, ctx: Context) -> tuple[Exprs, Exprs]:
        """The outputs of all steps [steps, batch, hidden] where wanted, and the last states."""
        given = (self.weights.recurrence, self.weights.bias, self.weights.peepholes)

        def body(states: Exprs, slices: Exprs, others: Exprs) -> tuple[Exprs, Exprs]:
            left = iter(others)
            weights = Weights(*(None if w is None else next(left) for w in given))
            following = self.step(slices[0], states, weights)
            if self.running is None:
                return following, following[: self.wanted]
            flag = slices[1]
            kept = [
                ctx.map("state", select, flag, new, old)
                for new, old in zip(following, states, strict=True)
            ]
            if not self.wanted:
                return kept, []
            nothing = literal(0, ctx.dtype(following[0]))
            output = ctx.map("output", lambda f, y: select(f, y, nothing), flag, following[0])
            return kept, [output]

        scanned = [self.gates, *([] if self.running is None else [self.running])]
        states, outputs = repeat(
            ctx,
            body,
            self.initial,
            [(x, self.backwards) for x in scanned],
            [w for w in given if w is not None],
            [self.backwards] * self.wanted,
            ctx.shape(self.gates)[0],
        )
        return outputs, states


def recurrent(ctx: Context, node: gs.Node, inputs: list[relax.Expr | None]) -> Result:
    """Y [steps, directions, batch, hidden], then the last states [directions, batch, hidden]."""
    cell = CELLS[node.op]
    x, weights, recurrence, bias, lengths, *rest = [*inputs, *[None] * 8][:8]
    direction = str(ctx.attr(node, "direction", "forward"))
    if direction not in _WAYS:
        raise Refused(f"direction {direction!r} is not one that ONNX defines")
    hidden = ctx.shape(recurrence)[-1]
    if int(ctx.attr(node, "hidden_size", hidden)) != hidden:
        raise Refused(f"hidden_size is not the {hidden} of the weights")
    batch_first = bool(ctx.attr(node, "layout", 0))
    initial = rest[: cell.states]
    if batch_first:
        x = ctx.transpose(x, [1, 0, 2])
        initial = [s if s is None else ctx.transpose(s, [1, 0, 2]) for s in initial]
    steps, batch, _ = ctx.shape(x)
    dtype, ways = ctx.dtype(x), _WAYS[direction]
    functions = activations(ctx, node, cell, len(ways))
    clip = clipping(ctx.attr(node, "clip"), dtype)
    flag = int(ctx.attr(node, cell.flag, 0)) if cell.flag else 0
    running = None if lengths is None else _running(ctx, lengths, steps, batch)
    made = []
    for d, backwards in enumerate(ways):
        parts = [weights, recurrence, bias, *rest[cell.states :]]
        own, back, biases, peepholes, *_ = [w if w is None else _part(ctx, w, d) for w in parts]
        gates, bias_back = _gates(ctx, x, own, biases, cell.own_bias(flag))
        layer = _Layer(
            gates,
            running,
            [_state(ctx, state, d, (batch, hidden), dtype) for state in initial],
            Weights(ctx.transpose(back, [1, 0]), bias_back, peepholes),
            partial(cell.step, ctx, functions[d], clip, flag),
            backwards,
            bool(node.outputs[0].name),
        )
        made.append(layer.run(ctx))
    outputs = [_stacked(ctx, each, 1) for each in zip(*(y for y, _ in made), strict=True)]
    states = [_stacked(ctx, each, 0) for each in zip(*(s for _, s in made), strict=True)]
    if batch_first:
        outputs = [ctx.transpose(each, [2, 0, 1, 3]) for each in outputs]
        states = [ctx.transpose(state, [1, 0, 2]) for state in states]
    return [*(outputs or [None]), *states]


def _gates(
    ctx: Context, x: relax.Expr, weights: relax.Expr, bias: relax.Expr | None, apart: bool
) -> tuple[relax.Expr, relax.Expr | None]:
    """What the inputs give to the gates at all steps, and the bias of the recurrence.

    That bias is added already, and None, unless it is to be `apart`.
    """
    steps, batch, features = ctx.shape(x)
    flat = ctx.reshape(x, (steps * batch, features))
    gates = product(ctx, flat, ctx.transpose(weights, [1, 0]))
    count = ctx.shape(weights)[0]
    recurrence = None
    if bias is not None:
        both = ctx.reshape(bias, (1, 2 * count))
        first, recurrence = columns(ctx, both, 0, count), columns(ctx, both, count, 2 * count)
        if not apart:
            if isinstance(bias, Constant):
                first = ctx.const(first.value.numpy() + recurrence.value.numpy())
            else:
                first = ctx.emit(relax.op.add(first, recurrence))
            recurrence = None
        gates = ctx.emit(relax.op.add(gates, first))
    return ctx.reshape(gates, (steps, batch, count)), recurrence


def _running(ctx: Context, lengths: relax.Expr, steps: int, batch: int) -> relax.Expr | None:
    """Which sequences still run at which step, bool [steps, batch, 1]; None where all always do."""
    if isinstance(lengths, Constant):
        flags = np.arange(steps)[:, None, None] < lengths.value.numpy()[:, None]
        return None if flags.all() else ctx.const(flags)

    def compute(length: te.Tensor) -> te.Tensor:
        shape = (steps, batch, 1)
        return te.compute(shape, lambda t, n, _: t.astype(length.dtype) < length(n), name="running")

    return ctx.te("running", compute, lengths)


def _state(
    ctx: Context, initial: relax.Expr | None, direction: int, shape: tuple[int, int], dtype: str
) -> relax.Expr:
    return ctx.full(shape, 0, dtype) if initial is None else _part(ctx, initial, direction)


def _part(ctx: Context, x: relax.Expr, index: int) -> relax.Expr:
    """x[index], computed at once for a constant."""
    count, *shape = ctx.shape(x)
    if isinstance(x, Constant):
        return ctx.const(x.value.numpy()[index])
    if count == 1:
        return ctx.reshape(x, tuple(shape))
    return ctx.te("part", lambda t: te.compute(shape, lambda *i: t(index, *i), name="part"), x)


def _stacked(ctx: Context, parts: Sequence[relax.Expr], axis: int) -> relax.Expr:
    shape = list(ctx.shape(parts[0]))
    shape.insert(axis, 1)
    widened = [ctx.reshape(part, tuple(shape)) for part in parts]
    return joined(ctx, widened, axis)


ENTRIES = dict.fromkeys(CELLS, recurrent)
