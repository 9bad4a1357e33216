"""Kernels around one reduction: convolution, matrix product, pooling, sums.

The output is cut into tiles of several rows by one vector; a tile is accumulated in registers over
the whole reduction, then the elementwise tail runs on it and stores it.

    parallel for tiles:
        tile = 0
        for reduction: tile[row, lane] += a * b      rows unrolled, lanes vectorised
        out[row, lane] = tail(tile[row, lane])
"""

from __future__ import annotations

import math

from tvm import s_tir
from tvm.s_tir.schedule import SBlockRV

from edgec.targets import Target
from edgec.targets.cpu.blocks import (
    SPATIAL,
    compute_blocks,
    extent,
    extents,
    is_spatial,
    iter_types,
    largest_divisor,
)
from edgec.targets.cpu.elementwise import vectorise_and_share
from edgec.targets.cpu.knobs import Choose, number
from edgec.targets.cpu.sharing import iterations_pay

_ROWS = 8
"""Accumulator rows per tile: enough independent chains to hide the latency of a fused
multiply-add."""

_STACK_LIMIT = 1024
"""TVM keeps a block-local buffer on the stack, hence in registers, only below this many bytes
(`kMaxStackAlloca`)."""


def schedule_reduction(schedule: s_tir.Schedule, target: Target, choose: Choose) -> bool:
    """Take kernels with exactly one reduction, at most one block behind it and any number before.

    A reduction of several values at once (the index of a maximum) is left alone: its updates must
    not be spread over lanes.
    """
    blocks = compute_blocks(schedule)
    reductions = [block for block in blocks if not is_spatial(schedule, block)]
    if len(reductions) != 1:
        return False
    reduction = reductions[0]
    position = next(
        i for i, b in enumerate(blocks) if schedule.get(b).same_as(schedule.get(reduction))
    )
    tail = blocks[position + 1 :]
    if len(tail) > 1 or iter_types(schedule, reduction) != sorted(iter_types(schedule, reduction)):
        return False
    if len(schedule.get(reduction).writes) > 1:
        return False
    if 0 in extents(schedule, reduction) or max(extents(schedule, reduction)) < 2:
        return False
    if all(kind != SPATIAL for kind in iter_types(schedule, reduction)):
        return False
    if tail and math.prod(extents(schedule, tail[0])) != _spatial_size(schedule, reduction):
        return False
    output = tail[0] if tail else schedule.cache_write(reduction, 0, "global")
    for block in blocks[:position]:
        vectorise_and_share(schedule, block, target)
    _tile(schedule, reduction, output, target, choose)
    return True


def _spatial_size(schedule: s_tir.Schedule, block: SBlockRV) -> int:
    kinds, sizes = iter_types(schedule, block), extents(schedule, block)
    return math.prod(size for kind, size in zip(kinds, sizes, strict=True) if kind == 0)


def _tile(
    schedule: s_tir.Schedule,
    reduction: SBlockRV,
    output: SBlockRV,
    target: Target,
    choose: Choose,
) -> None:
    loops = schedule.get_loops(output)
    work = math.prod(extents(schedule, reduction))
    lane_loop, row_loop = _pick_tile_loops([extent(schedule, loop) for loop in loops])
    whole, vector = extent(schedule, loops[lane_loop]), target.vector_bits // 32
    widths = [n * vector for n in (1, 2, 4) if whole % (n * vector) == 0]
    lanes = number(choose, "lanes", widths, largest_divisor(whole, 2 * vector))
    most_rows = min(_ROWS, (_STACK_LIMIT - 1) // (4 * lanes))
    outer, inner = [], []
    for index, loop in enumerate(loops):
        if index == lane_loop:
            rest, lane = schedule.split(loop, factors=[None, lanes])
            outer.append(rest)
        elif index == row_loop:
            rows = largest_divisor(extent(schedule, loop), most_rows)
            options = [
                n for n in (1, 2, 4, 7, 8) if n <= most_rows and extent(schedule, loop) % n == 0
            ]
            rows = number(choose, "rows", options, rows)
            rest, row = schedule.split(loop, factors=[None, rows])
            outer.append(rest)
            inner.append(row)
        else:
            outer.append(loop)
    inner.append(lane)
    schedule.reorder(*outer, *inner)
    tiles = schedule.fuse(*outer) if len(outer) > 1 else outer[0]
    if iterations_pay(work, choose):
        schedule.parallel(tiles)

    schedule.compute_at(reduction, tiles, preserve_unit_loops=True)
    own = schedule.get_loops(reduction)[1:]
    kinds = iter_types(schedule, reduction)
    spatial = [loop for loop, kind in zip(own, kinds, strict=True) if kind == 0]
    summed = [loop for loop, kind in zip(own, kinds, strict=True) if kind != 0]
    spatial.sort(key=lambda loop: extent(schedule, loop) > 1)
    schedule.reorder(*summed, *spatial)
    for loop in spatial[:-1]:
        schedule.unroll(loop)
    schedule.vectorize(spatial[-1])
    if len(inner) == 2:
        schedule.unroll(inner[0])
    schedule.vectorize(inner[-1])
    init = schedule.decompose_reduction(reduction, summed[0])
    *rows_of_init, lane_of_init = schedule.get_loops(init)[1:]
    for loop in rows_of_init:
        schedule.unroll(loop)
    schedule.vectorize(lane_of_init)


def _pick_tile_loops(sizes: list[int]) -> tuple[int, int]:
    """Positions of the loop to vectorise and the loop to unroll: the innermost two that iterate;
    the row loop of an image is its channel loop, so that one loaded input vector serves several
    rows."""
    lane = next((i for i in reversed(range(len(sizes))) if sizes[i] > 1), len(sizes) - 1)
    candidates = [i for i in range(lane) if sizes[i] > 1]
    if not candidates:
        return lane, -1
    return lane, candidates[0] if len(sizes) == 4 else candidates[-1]
