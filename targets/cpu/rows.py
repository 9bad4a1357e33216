"""Kernels that work row by row: softmax, normalisations, sums over the last axis.

Every block runs on one row before the next row begins, so that a row stays in the cache; rows are
shared among threads. A sum is kept in a vector of partial sums, halved until one is left.

    parallel for row:
        partial[lane] = 0
        for k / lanes:  partial[lane] += x[k, lane]
        total = partial[:lanes / 2] + partial[lanes / 2:], and so on
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
from edgec.targets.cpu.knobs import Choose, by_rule, number
from edgec.targets.cpu.sharing import iterations_pay

_FEWEST_LANES, _MOST_LANES = 4, 16
"""Of the vectors that partial results are kept in. Fewer terms than the most, as the end of a row
has, may be added up one by one; TVM's rfactor loses the bound of a loop that its factor does not
divide."""


def schedule_rows(schedule: s_tir.Schedule, target: Target, choose: Choose) -> bool:
    """Take kernels whose reductions all run over the last axis, one output block at the end."""
    blocks = compute_blocks(schedule)
    if len(blocks) < 2:
        return False
    output = blocks[-1]
    if not is_spatial(schedule, output) or not is_output(schedule, output):
        return False
    lead = extents(schedule, output)[:-1]
    if 0 in lead or not lead or any(is_output(schedule, block) for block in blocks[:-1]):
        return False
    reductions = [block for block in blocks if not is_spatial(schedule, block)]
    if any(len(schedule.get(block).writes) > 1 for block in blocks):
        return False
    if not reductions or any(not _over_rows(schedule, block, lead) for block in reductions):
        return False
    if all(extents(schedule, block)[-1] % _FEWEST_LANES for block in reductions):
        return False
    if any(extents(schedule, block)[: len(lead)] != lead for block in blocks):
        return False
    work = sum(math.prod(extents(schedule, block)) for block in blocks)
    loops = schedule.get_loops(output)
    row = schedule.fuse(*loops[: len(lead)]) if len(lead) > 1 else loops[0]
    if iterations_pay(work, choose):
        schedule.parallel(row)
    row_by_row(schedule, blocks, target, choose)
    return True


def row_by_row(
    schedule: s_tir.Schedule, blocks: list[SBlockRV], target: Target, choose: Choose = by_rule
) -> None:
    """Run all `blocks` on one row before the next, in vectors; the innermost loop of the last one,
    which stays where it is, is the one over the elements of a row."""
    *others, output = blocks
    vector = target.vector_bits // 32
    lanes = number(choose, "lanes", [vector // 2, vector, 2 * vector], vector)
    parts: list[SBlockRV] = []
    partial: list[SBlockRV] = []
    for block in others:
        if not is_spatial(schedule, block):
            halves = _partial_results(schedule, block, lanes)
            partial += halves
            parts += halves
        parts.append(block)
    *outside, _ = schedule.get_loops(output)
    for block in reversed(parts):
        schedule.compute_at(block, outside[-1], preserve_unit_loops=True)
    for block in partial:
        _vectorise_partial(schedule, block, len(outside))
    for block in (*parts, output):
        if is_spatial(schedule, block):
            _vectorise(schedule, block, lanes)


def _over_rows(schedule: s_tir.Schedule, block: SBlockRV, lead: list[int]) -> bool:
    """Whether `block` reduces one axis, of whole vectors or short, and has no others but `lead`."""
    kinds, sizes = iter_types(schedule, block), extents(schedule, block)
    spatial = [size for kind, size in zip(kinds, sizes, strict=True) if kind == 0]
    one_axis = kinds[-1] != 0 and kinds.count(0) == len(kinds) - 1
    short = sizes[-1] % _FEWEST_LANES == 0 or sizes[-1] < _MOST_LANES
    return one_axis and math.prod(spatial) == math.prod(lead) and short


def _partial_results(schedule: s_tir.Schedule, block: SBlockRV, lanes: int) -> list[SBlockRV]:
    """New blocks for one partial result per lane, then half as many, down to the two that are left
    to `block`."""
    parts = []
    width = math.gcd(extents(schedule, block)[-1], lanes)
    while width > 1:
        summed = schedule.get_loops(block)[-1]
        _, lane = schedule.split(summed, factors=[None, width])
        parts.append(schedule.rfactor(lane, factor_axis=len(iter_types(schedule, block)) - 1))
        width //= 2
    return parts


def _vectorise_partial(schedule: s_tir.Schedule, block: SBlockRV, outside: int) -> None:
    """Make a vector of the partial results; `outside` loops are those of all rows."""
    *outer, summed = schedule.get_loops(block)[outside:]
    lane = max(outer, key=lambda loop: extent(schedule, loop))
    schedule.reorder(summed, lane)
    schedule.vectorize(lane)
    init = schedule.decompose_reduction(block, summed)
    schedule.vectorize(schedule.get_loops(init)[-1])


def _vectorise(schedule: s_tir.Schedule, block: SBlockRV, lanes: int) -> None:
    """In vectors of all lanes, then of half as many, and so on, as far as the row goes."""
    last = schedule.get_loops(block)[-1]
    size, width = extent(schedule, last), lanes
    if size < lanes:
        width = largest_divisor(size, lanes)
    elif size % lanes:
        shorter = [lanes >> n for n in range(1, lanes.bit_length()) if size % lanes & lanes >> n]
        whole = size - size % lanes
        last, *ends = schedule.loop_partition(last, [whole, *shorter[:-1], None])
        for loop in ends:
            if extent(schedule, loop) > 1:
                schedule.vectorize(loop)
    if width > 1:
        _, lane = schedule.split(last, factors=[None, width])
        schedule.vectorize(lane)
