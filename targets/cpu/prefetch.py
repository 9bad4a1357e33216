"""Prefetching of weights: while one part of a sum is computed, those of the next part are fetched.

Schedules mark the loops around a block that reads constants as a stream:

    for part:        one part of the sum after the other, each with weights of its own
      for turn:      goes over the same weights again and again
        for step:    the innermost loop whose iterations are long enough for a few prefetches
          ...
            operand: unrolled; each of its iterations reads rows of weights of its own

The lines of all operands in the next part are spread evenly over the steps of this one, so that the
processor's buffers for pending loads suffice.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Any

import tvm_ffi
from tvm import tirx
from tvm.s_tir import SBlockRealize, Schedule
from tvm.s_tir.schedule import LoopRV

_LINE = 64
_PART, _TURN, _STEP = "edgec.prefetch.part", "edgec.prefetch.turn", "edgec.prefetch.step"
_OPERAND = "edgec.prefetch.operand"


def mark(
    schedule: Schedule,
    *,
    part: LoopRV,
    turn: LoopRV,
    step: LoopRV,
    reads: int,
    terms: int,
    ahead: int = 1,
    operand: LoopRV | None = None,
) -> None:
    """Ask for prefetches of what the block inside of `step` reads from its region `reads` so many
    parts `ahead`; none for 0.

    `terms` is how many rows of weights an operand, or without one the tile, reads in a part, one
    after the other in memory; the last axis of the region is such a row.
    """
    if ahead == 0:
        return
    schedule.annotate(part, _PART, True)
    schedule.annotate(turn, _TURN, True)
    schedule.annotate(step, _STEP, [reads, terms, ahead])
    if operand is not None:
        schedule.annotate(operand, _OPERAND, True)


@dataclass
class _Nest:
    """The loops from `part` down to where the visitor is, and what was found in them."""

    loops: list[tirx.For] = field(default_factory=list)
    turn: int = 0

    def position(self) -> tuple[Any, int]:
        """Which step of the part this is, and how many there are."""
        index: Any = 0
        for loop in self.loops[self.turn :]:
            index = index * loop.extent + loop.loop_var
        return index, prod(int(loop.extent) for loop in self.loops[self.turn :])


def insert_prefetches(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """A scheduled `function` with the prefetches that its loops are marked for."""
    nest = _Nest()
    prefetches: dict[Any, list[Any]] = {}

    def enter(loop: tirx.For, visitor: tvm_ffi.StructuralVisitor) -> None:
        inside = bool(nest.loops)
        if not inside and _PART not in loop.annotations:
            visitor.default_visit(loop)
            return
        if _TURN in loop.annotations:
            nest.turn = len(nest.loops)
        nest.loops.append(loop)
        if _STEP in loop.annotations:
            prefetches[loop.loop_var] = _prefetches(loop, nest)
        visitor.default_visit(loop)
        nest.loops.pop()

    tvm_ffi.structural_visit(function, (tirx.For, enter))

    def insert(loop: tirx.For) -> tirx.For:
        if _STEP not in loop.annotations:
            return loop
        body = tirx.SeqStmt([*map(tirx.Evaluate, prefetches[loop.loop_var]), loop.body])
        return tirx.For(loop.loop_var, loop.min, loop.extent, loop.kind, body)

    return tvm_ffi.structural_map(function, (tirx.For, insert)) if prefetches else function


def _prefetches(step: tirx.For, nest: _Nest) -> list[Any]:
    """The instructions for one step."""
    inner: list[tirx.For] = []
    realizes: list[Any] = []
    tvm_ffi.structural_walk(step.body, [(tirx.For, inner.append), (SBlockRealize, realizes.append)])
    *_, realize = realizes  # before it stand those that load for it
    operands = [loop for loop in inner if _OPERAND in loop.annotations]
    count = prod(int(loop.extent) for loop in operands)
    reads, terms, ahead = (int(value) for value in step.annotations[_STEP])
    region = realize.block.reads[reads]
    lines = -(-4 * int(region.source.shape[-1]) // _LINE)
    position, positions = nest.position()
    each = -(-terms * count * lines // positions)
    part = nest.loops[0]
    zero = tirx.const(0, part.loop_var.ty.dtype)
    bound = {
        var.var: value
        for var, value in zip(realize.block.iter_vars, realize.iter_values, strict=True)
    }
    first = {loop.loop_var: zero for loop in (*nest.loops, *inner)}
    first[part.loop_var] = part.loop_var + ahead
    result = []
    for k in range(each):
        line = tirx.min(position * each + k, terms * count * lines - 1)
        row, column = tirx.floordiv(line, lines), tirx.floormod(line, lines) * (_LINE // 4)
        first |= {loop.loop_var: tirx.floordiv(row, terms) for loop in operands}
        index = [_substituted(_substituted(item.min, bound), first) for item in region.region]
        index[-2] = index[-2] + tirx.floormod(row, terms)
        index[-1] = index[-1] + column
        result.append(_prefetch(tirx.address_of(tirx.BufferLoad(region.source, index))))
    return result


def _prefetch(address: Any) -> Any:
    to_read, into_first_level, data = 0, 3, 1
    return tirx.call_llvm_intrin(
        "void", "llvm.prefetch", address, *map(tirx.const, (to_read, into_first_level, data))
    )


def _substituted(expr: Any, values: dict[Any, Any]) -> Any:
    return tvm_ffi.structural_map(expr, (tirx.Var, lambda var: values.get(var, var)))
