"""Kernels that work row by row: softmax, normalisations, sums over the last axis.

Every block runs on one row before the next row begins, so that a row stays in the cache; rows are
shared among threads. A sum is kept in a vector of partial sums, added up at the end.

    parallel for row:
        partial[lane] = 0
        for k / lanes:  partial[lane] += x[k, lane]
        total = sum of partial
        for k / lanes:  out[k, lane] = f(x[k, lane], total)
"""

from __future__ import annotations

import math

from tvm import s_tir
from tvm.s_tir.schedule import SBlockRV

from edgec.targets import Target
from edgec.targets.cpu.blocks import (
    compute_blocks,
    extent,
    extents,
    is_output,
    is_spatial,
    iter_types,
    largest_divisor,
)
from edgec.targets.cpu.elementwise import PARALLEL_ITERATIONS


def schedule_rows(schedule: s_tir.Schedule, target: Target) -> bool:
    """Take kernels whose reductions all run over the last axis, one output block at the end."""
    blocks = compute_blocks(schedule)
    if len(blocks) < 2:
        return False
    output = blocks[-1]
    lanes = target.vector_bits // 32
    if not is_spatial(schedule, output) or not is_output(schedule, output):
        return False
    lead = extents(schedule, output)[:-1]
    if not lead or any(is_output(schedule, block) for block in blocks[:-1]):
        return False
    reductions = [block for block in blocks if not is_spatial(schedule, block)]
    if any(len(schedule.get(block).writes) > 1 for block in blocks):
        return False
    if not reductions or any(not _over_rows(schedule, block, lead, lanes) for block in reductions):
        return False
    if any(extents(schedule, block)[: len(lead)] != lead for block in blocks):
        return False
    work = sum(math.prod(extents(schedule, block)) for block in blocks)
    parts: list[SBlockRV] = []
    partial: list[SBlockRV] = []
    for block in blocks[:-1]:
        if not is_spatial(schedule, block):
            partial.append(_partial_results(schedule, block, lanes))
            parts.append(partial[-1])
        parts.append(block)
    loops = schedule.get_loops(output)
    row = schedule.fuse(*loops[: len(lead)]) if len(lead) > 1 else loops[0]
    if work >= PARALLEL_ITERATIONS:
        schedule.parallel(row)
    for block in reversed(parts):
        schedule.compute_at(block, row, preserve_unit_loops=True)
    for block in partial:
        _vectorise_partial(schedule, block, lanes)
    for block in (*parts, output):
        if is_spatial(schedule, block):
            _vectorise(schedule, block, lanes)
    return True


def _over_rows(schedule: s_tir.Schedule, block: SBlockRV, lead: list[int], lanes: int) -> bool:
    """Whether `block` reduces one axis of whole vectors, and has no other axis besides `lead`."""
    kinds, sizes = iter_types(schedule, block), extents(schedule, block)
    spatial = [size for kind, size in zip(kinds, sizes, strict=True) if kind == 0]
    one_axis = kinds[-1] != 0 and kinds.count(0) == len(kinds) - 1
    return one_axis and math.prod(spatial) == math.prod(lead) and sizes[-1] % lanes == 0


def _partial_results(schedule: s_tir.Schedule, block: SBlockRV, lanes: int) -> SBlockRV:
    """Leave to `block` only the combination of one partial result per lane, of a new block."""
    summed = schedule.get_loops(block)[-1]
    _, lane = schedule.split(summed, factors=[None, lanes])
    return schedule.rfactor(lane, factor_axis=len(iter_types(schedule, block)) - 1)


def _vectorise_partial(schedule: s_tir.Schedule, block: SBlockRV, lanes: int) -> None:
    *outer, summed = schedule.get_loops(block)[1:]
    lane = next(loop for loop in outer if extent(schedule, loop) == lanes)
    schedule.reorder(summed, lane)
    schedule.vectorize(lane)
    init = schedule.decompose_reduction(block, summed)
    schedule.vectorize(schedule.get_loops(init)[-1])


def _vectorise(schedule: s_tir.Schedule, block: SBlockRV, lanes: int) -> None:
    last = schedule.get_loops(block)[-1]
    width = largest_divisor(extent(schedule, last), lanes)
    if width > 1:
        _, lane = schedule.split(last, factors=[None, width])
        schedule.vectorize(lane)
