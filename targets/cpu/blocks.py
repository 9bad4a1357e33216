"""What the rules ask of a kernel's blocks."""

from __future__ import annotations

import math

from tvm import s_tir
from tvm.s_tir.schedule import LoopRV, SBlockRV

SPATIAL, REDUCTION = 0, 2
"""`tirx.IterVar` types: data parallel, and commutative reduction."""


def compute_blocks(schedule: s_tir.Schedule) -> list[SBlockRV]:
    """The blocks below the root, in order of execution."""
    return list(schedule.get_child_blocks(schedule.get_sblock("root")))


def iter_types(schedule: s_tir.Schedule, block: SBlockRV) -> list[int]:
    """The type of each iteration variable of `block`."""
    return [int(var.iter_type) for var in schedule.get(block).iter_vars]


def is_spatial(schedule: s_tir.Schedule, block: SBlockRV) -> bool:
    """Whether every iteration of `block` writes an element of its own."""
    return all(kind == SPATIAL for kind in iter_types(schedule, block))


def extents(schedule: s_tir.Schedule, block: SBlockRV) -> list[int]:
    """Extent of each iteration variable of `block`."""
    return [int(var.dom.extent) for var in schedule.get(block).iter_vars]


def extent(schedule: s_tir.Schedule, loop: LoopRV) -> int:
    """Extent of a loop."""
    return int(schedule.get(loop).extent)


def is_output(schedule: s_tir.Schedule, block: SBlockRV) -> bool:
    """Whether `block` writes a parameter of the kernel."""
    params = schedule.mod["main"].params
    return any(
        region.source.same_as(param) for region in schedule.get(block).writes for param in params
    )


def inline_cheap_producers(schedule: s_tir.Schedule) -> None:
    """Compute elementwise intermediates where they are used, when that repeats no work.

    A block is inlined when it and all its consumers are spatial and no consumer has more iterations
    than it, or it is a single number: LLVM takes that out of loops. Inlining into a reduction is
    left alone: there it would repeat the work per term. So are blocks that the annotation
    `edgec.kept` marks as stages of their own.
    """
    for block in compute_blocks(schedule):
        if is_output(schedule, block) or not is_spatial(schedule, block):
            continue
        if "edgec.kept" in schedule.get(block).annotations:
            continue
        size = math.prod(extents(schedule, block))
        consumers = schedule.get_consumers(block)
        if not consumers or not all(
            is_spatial(schedule, consumer)
            and (size == 1 or math.prod(extents(schedule, consumer)) <= size)
            for consumer in consumers
        ):
            continue
        try:
            schedule.compute_inline(block)
        except s_tir.ScheduleError:
            continue


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of `number` that is at most `limit`."""
    return max(d for d in range(1, min(number, limit) + 1) if number % d == 0)
