"""Loops over time: a body that runs again and again, as a Relax function of its own.

`main` calls the body by `R.call_dps_packed("edgec.repeat.NAME", (carried..., scanned...,
others...))`, which fusion leaves alone; the body's function attribute `LOOP` says how often it runs
and what its parameters are. `edgec.lower.extract_loop` makes a `Repeat` of both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tvm import relax
from tvm.ir import BaseFunc, Constant

from edgec.lower.context import Context, Refused

Exprs = list[relax.Expr]
Body = Callable[[Exprs, Exprs, Exprs], tuple[Exprs, Exprs]]
"""(carried, slices, others) -> (carried next, yielded)."""

LOOP = "edgec.loop"
"""Function attribute of a body: the fields of `Loop`."""

_REPEAT = "edgec.repeat."


@dataclass(frozen=True)
class Loop:
    """How a body runs: `times` times; its parameters are `carried` values, then one slice of each
    scanned tensor, then what does not change. It returns the next carried values, then what it
    yields. Each flag says whether a scanned tensor is read, or a yielded one written, last slice
    first.
    """

    times: int
    carried: int
    scanned: tuple[bool, ...]
    yielded: tuple[bool, ...]

    @staticmethod
    def of(function: relax.Function) -> Loop:
        """What the attribute of a body says."""
        times, carried, scanned, yielded = function.attrs[LOOP]
        return Loop(int(times), int(carried), tuple(map(bool, scanned)), tuple(map(bool, yielded)))

    def attribute(self) -> list[object]:
        """The value of the attribute `LOOP`."""
        return [self.times, self.carried, [*map(int, self.scanned)], [*map(int, self.yielded)]]


def repeat(
    ctx: Context,
    body: Body,
    carried: Exprs,
    scanned: Sequence[tuple[relax.Expr, bool]],
    others: Exprs,
    yielded: Sequence[bool],
    times: int,
) -> tuple[Exprs, Exprs]:
    """`body` run `times` times: the last carried values, and what was yielded, stacked.

    `carried` are the first values, each of the shape and dtype the body returns. `scanned` are
    tensors [times, ...] whose slices [...] the body sees, and `yielded` says of each thing the body
    yields [...] where it goes in [times, ...]; both from the last slice on where the flag is set.
    `others` are what else the body uses: it must not refer to any other variable. Constants stay
    constants inside. Raises Refused for a loop that never runs.
    """
    if times == 0:
        raise Refused("a loop that never runs is not lowered")
    if times == 1:
        slices = [ctx.reshape(x, ctx.shape(x)[1:]) for x, _ in scanned]
        following, made = body(carried, slices, others)
        return following, [ctx.reshape(x, (1, *ctx.shape(x))) for x in made]
    invariant = [x for x in others if not isinstance(x, Constant)]
    parameters = [_parameter("carried", ctx.shape(x), ctx.dtype(x)) for x in carried]
    parameters += [_parameter("slice", ctx.shape(x)[1:], ctx.dtype(x)) for x, _ in scanned]
    parameters += [_parameter("other", ctx.shape(x), ctx.dtype(x)) for x in invariant]
    inner = iter(parameters[len(carried) + len(scanned) :])
    seen = [x if isinstance(x, Constant) else next(inner) for x in others]
    with _function(ctx.builder, parameters) as emit:
        following, made = body(
            parameters[: len(carried)],
            parameters[len(carried) : len(carried) + len(scanned)],
            seen,
        )
        for before, after in zip(carried, following, strict=True):
            if (ctx.shape(before), ctx.dtype(before)) != (ctx.shape(after), ctx.dtype(after)):
                raise Refused(
                    f"a loop begins with {ctx.dtype(before)}{list(ctx.shape(before))} and goes on "
                    f"with {ctx.dtype(after)}{list(ctx.shape(after))}"
                )
        function = emit([*following, *made])
    loop = Loop(times, len(carried), tuple(back for _, back in scanned), tuple(yielded))
    name = ctx.builder.get_unique_name("loop")
    function = function.with_attr({LOOP: loop.attribute(), "global_symbol": name})
    ctx.builder.add_func(function, name)
    types = [relax.TensorType(list(ctx.shape(x)), ctx.dtype(x)) for x in following]
    types += [relax.TensorType([times, *ctx.shape(x)], ctx.dtype(x)) for x in made]
    arguments = relax.Tuple([*carried, *(x for x, _ in scanned), *invariant])
    result = ctx.emit(relax.op.call_dps_packed(_REPEAT + name, arguments, out_ty=types))
    if len(types) == 1:
        parts = [result]
    else:
        parts = [ctx.emit(relax.TupleGetItem(result, i)) for i in range(len(types))]
    return parts[: len(carried)], parts[len(carried) :]


def is_body(function: BaseFunc) -> bool:
    """Whether a function of a module is the body of a loop."""
    return function.attrs is not None and LOOP in function.attrs


def is_repeat(value: relax.Expr) -> bool:
    """Whether a bound value is the call of a body as a loop."""
    return isinstance(value, relax.Call) and value.op.name == "relax.call_dps_packed"


def body_of(call: relax.Call) -> str:
    """The name of the body that such a call repeats."""
    return str(call.args[0].global_symbol).removeprefix(_REPEAT)


def _parameter(name: str, shape: Sequence[int], dtype: str) -> relax.Var:
    return relax.Var(name, relax.TensorType(list(shape), dtype))


@contextmanager
def _function(
    builder: relax.BlockBuilder, parameters: list[relax.Var]
) -> Iterator[Callable[[Exprs], relax.Function]]:
    """What is emitted inside goes into a function of its own, which the yielded callable returns.

    BlockBuilder has no functions inside functions, but its blocks nest.
    """
    builder.begin_scope(parameters)
    builder._begin_dataflow_block()
    open_ = True

    def emit(results: Exprs) -> relax.Function:
        nonlocal open_
        output = builder.emit_output(relax.Tuple(results))
        block = builder._end_block()
        open_ = False
        return relax.Function(parameters, builder.normalize(relax.SeqExpr([block], output)))

    try:
        yield emit
    finally:
        if open_:
            builder._end_block()
        builder.end_scope()
