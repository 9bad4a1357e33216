"""Loop and Scan that run a known number of times: their body once, repeated over time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_graphsurgeon as gs
from tvm import relax

from edgec.lower.context import Context, Refused, axis_of
from edgec.lower.repeat import Exprs, repeat
from edgec.tensors import subgraphs

if TYPE_CHECKING:
    from edgec.lower.convert import Walk

MOST_TURNS = 1 << 16
"""The iterations a Loop may make whose body asks for their number: the numbers are a constant."""


@dataclass(frozen=True)
class _Body:
    """A body and what its inputs are: states, slices of what is scanned, or of a value known now.

    `goes_on` is the output that must be true for the loop to go on, None for a Scan.
    """

    graph: gs.Graph
    states: list[str]
    slices: list[str]
    known: dict[str, np.ndarray]
    goes_on: gs.Tensor | None

    @property
    def results(self) -> list[gs.Tensor]:
        """The next states, then what is yielded."""
        return [t for t in self.graph.outputs[self.goes_on is not None :]]


def scan(walk: Walk, node: gs.Node, name: str, depth: int) -> Exprs:
    """The last states, then what each iteration yields, stacked along its axis."""
    ctx, graph = walk.ctx, node.attrs["body"]
    count = int(ctx.attr(node, "num_scan_inputs"))
    states, yields = len(node.inputs) - count, len(node.outputs) - len(node.inputs) + count
    values = [walk.tensor(tensor) for tensor in node.inputs]
    axes = ctx.attr(node, "scan_input_axes", [0] * count)
    backwards = ctx.attr(node, "scan_input_directions", [0] * count)
    scanned = [
        (_to_front(ctx, x, axis), bool(back))
        for x, axis, back in zip(values[states:], axes, backwards, strict=True)
    ]
    lengths = {ctx.shape(x)[0] for x, _ in scanned}
    if len(lengths) != 1:
        raise Refused(f"its inputs have {sorted(lengths)} slices")
    names = [tensor.name for tensor in graph.inputs]
    body = _Body(graph, names[:states], names[states:], {}, None)
    flags = [bool(back) for back in ctx.attr(node, "scan_output_directions", [0] * yields)]
    last, stacked = _run(walk, body, values[:states], scanned, flags, lengths.pop(), name, depth)
    axes = ctx.attr(node, "scan_output_axes", [0] * yields)
    return [*last, *(_from_front(ctx, x, axis) for x, axis in zip(stacked, axes, strict=True))]


def loop(walk: Walk, node: gs.Node, name: str, depth: int) -> Exprs:
    """The last values of the loop's variables, then what each iteration yields, stacked."""
    ctx, graph = walk.ctx, node.attrs["body"]
    turns, condition = ctx.constant(node, 0), ctx.constant(node, 1)
    conditional = len(node.inputs) > 1 and bool(node.inputs[1].name)
    if turns is None or (conditional and condition is None):
        raise Refused("how often it runs is known at run time only")
    times = int(turns.item()) if condition is None or condition.item() else 0
    variables = [walk.tensor(tensor) for tensor in node.inputs[2:]]
    number, going, *states = (tensor.name for tensor in graph.inputs)
    numbered = number in _read(graph)
    if numbered and times > MOST_TURNS:
        raise Refused(f"{times} iterations are too many to number")
    scanned = [(ctx.const(np.arange(times, dtype=np.int64)), False)] if numbered else []
    body = _Body(graph, states, [number] * numbered, {going: np.array(True)}, graph.outputs[0])
    flags = [False] * (len(node.outputs) - len(variables))
    last, stacked = _run(walk, body, variables, scanned, flags, times, name, depth)
    return [*last, *stacked]


def _run(
    walk: Walk,
    body: _Body,
    states: Exprs,
    scanned: list[tuple[relax.Expr, bool]],
    backwards: list[bool],
    times: int,
    name: str,
    depth: int,
) -> tuple[Exprs, Exprs]:
    ctx = walk.ctx
    captured = _captured(walk, body.graph)

    def turn(carried: Exprs, slices: Exprs, others: Exprs) -> tuple[Exprs, Exprs]:
        given = [*body.states, *body.slices, *captured]
        exprs = dict(zip(given, [*carried, *slices, *others], strict=True))
        with _scope(ctx, exprs, body.known):
            inner = walk.inner()
            inner.nodes(body.graph.nodes, name, depth + 1)
            if body.goes_on is not None and not _is_true(ctx, body.goes_on):
                raise Refused("whether it goes on is known at run time only")
            results = [inner.tensor(tensor) for tensor in body.results]
        return results[: len(states)], results[len(states) :]

    return repeat(ctx, turn, states, scanned, [*captured.values()], backwards, times)


def _read(graph: gs.Graph) -> dict[str, gs.Tensor]:
    """What `graph` and the graphs inside it read or hand on, by name."""
    return {
        tensor.name: tensor
        for each in subgraphs(graph)
        for tensor in (*(t for node in each.nodes for t in node.inputs), *each.outputs)
        if tensor.name
    }


def _captured(walk: Walk, graph: gs.Graph) -> dict[str, relax.Expr]:
    """The tensors from around `graph` that it reads, apart from those of known value."""
    own = {
        tensor.name
        for each in subgraphs(graph)
        for tensor in (*each.inputs, *(t for node in each.nodes for t in node.outputs))
    }
    return {
        name: walk.tensor(tensor)
        for name, tensor in _read(graph).items()
        if name not in own and not isinstance(tensor, gs.Constant)
    }


@contextmanager
def _scope(
    ctx: Context, exprs: Mapping[str, relax.Expr], known: Mapping[str, np.ndarray]
) -> Iterator[None]:
    """Inside, `exprs` and values known now are all there is."""
    outer = ctx.exprs, ctx.values
    hidden = exprs.keys() - known.keys()
    ctx.exprs = dict(exprs)
    ctx.values = {k: v for k, v in ctx.values.items() if k not in hidden} | dict(known)
    try:
        yield
    finally:
        ctx.exprs, ctx.values = outer


def _is_true(ctx: Context, tensor: gs.Tensor) -> bool:
    value = tensor.values if isinstance(tensor, gs.Constant) else ctx.values.get(tensor.name)
    return value is not None and bool(np.all(value))


def _to_front(ctx: Context, x: relax.Expr, axis: int) -> relax.Expr:
    rank = len(ctx.shape(x))
    front = axis_of(axis, rank)
    return ctx.transpose(x, [front, *(a for a in range(rank) if a != front)])


def _from_front(ctx: Context, x: relax.Expr, axis: int) -> relax.Expr:
    order = list(range(1, len(ctx.shape(x))))
    order.insert(axis_of(axis, len(order) + 1), 0)
    return ctx.transpose(x, order)
