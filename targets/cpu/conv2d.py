"""Convolutions on blocked images (`edgec.lower.blocked`).

A tile is `columns` neighbouring columns of one row in `blocks` blocks of output channels; its sums
stay in registers over the whole reduction. Rows are shared among threads. Where windows reach
beyond the image, the rows a thread needs are copied with their border first: they stay in its
cache.

    parallel for row:
        border = the input's rows, padded
        for channel tile, column tile:
            sums[block, column, lane] = 0
            for input channel, tap:  sums += border[column] * taps[block, lane]
            out = tail(sums)
"""

from __future__ import annotations

import math

from tvm import s_tir
from tvm.s_tir.schedule import LoopRV, SBlockRV

from edgec.targets import Target
from edgec.targets.cpu.blocks import (
    SPATIAL,
    compute_blocks,
    extents,
    is_spatial,
    iter_types,
    largest_divisor,
)
from edgec.targets.cpu.elementwise import PARALLEL_ITERATIONS, vectorise_and_share

_SPARE_REGISTERS = 4
"""Registers left for the operands while the sums are accumulated."""

_CHAINS = 12
"""Multiply-adds under way at once that keep both units busy through their latency."""

_SHORT = 64
"""Terms of a sum up to which a smaller tile is better."""

_L1_BYTES = 32 << 10
"""Weights of a tile above this are gone from the first-level cache when the next tile begins."""

_CACHED_BYTES = 1 << 20
"""Weights above this are not read once per row: threads then take channel tiles first."""


def schedule_conv2d(schedule: s_tir.Schedule, target: Target) -> bool:
    """Take kernels whose one reduction is a blocked convolution, with at most one tail block."""
    blocks = compute_blocks(schedule)
    names = [schedule.get(block).name_hint for block in blocks]
    found = [i for i, name in enumerate(names) if name in ("conv2d_blocked", "depthwise_blocked")]
    if len(found) != 1 or sum(not is_spatial(schedule, block) for block in blocks) != 1:
        return False
    conv = blocks[found[0]]
    before, after = blocks[: found[0]], blocks[found[0] + 1 :]
    if len(after) > 1 or len(before) > 1 or (before and names[0] != "pad"):
        return False
    output = after[0] if after else schedule.cache_write(conv, 0, "global")
    if extents(schedule, output) != extents(schedule, conv)[:5]:
        return False
    _schedule(schedule, before, conv, output, target)
    return True


def _schedule(
    schedule: s_tir.Schedule,
    before: list[SBlockRV],
    conv: SBlockRV,
    output: SBlockRV,
    target: Target,
) -> None:
    depthwise = schedule.get(conv).name_hint == "depthwise_blocked"
    _, channels, rows, width, lanes = extents(schedule, output)
    summed = extents(schedule, conv)[5:]
    blocks, columns = tile(
        channels, width, target, lanes, wide=len(summed) == 4 and math.prod(summed) > _SHORT
    )
    if depthwise:
        blocks, columns = 1, largest_divisor(width, max(1, _sums(target, lanes) // 2))
    batch, channel, row, column, lane = schedule.get_loops(output)
    channel, channel_in = schedule.split(channel, factors=[None, blocks])
    column, column_in = schedule.split(column, factors=[None, columns])
    taps = 4 * math.prod(summed) * lanes
    rows_first = not depthwise and taps * channels <= _CACHED_BYTES and rows >= 4
    outer = [batch, row, channel] if rows_first else [batch, channel, row]
    schedule.reorder(*outer, column, column_in, channel_in, lane)
    by_parts = len(summed) == 4 and not rows_first and summed[0] > 1 and rows > 1
    by_parts = (
        by_parts and taps * blocks > _L1_BYTES and rows * width * blocks * lanes * 4 < 1 << 16
    )
    shared = schedule.fuse(*(outer[:2] if rows_first or by_parts else outer))
    if math.prod(extents(schedule, conv)) >= PARALLEL_ITERATIONS:
        schedule.parallel(shared)
    for loop in (channel_in, column_in):
        schedule.unroll(loop)
    schedule.vectorize(lane)
    tile_loop = column
    if by_parts:
        conv, tile_loop = _part_sums(schedule, conv, shared, columns)
    schedule.compute_at(conv, tile_loop, preserve_unit_loops=True)
    for border in before:
        if depthwise or (len(extents(schedule, border)) == 4):
            schedule.compute_inline(border)
        elif rows_first:
            _border(schedule, border, shared)
        else:
            vectorise_and_share(schedule, border, target)
    kinds = iter_types(schedule, conv)
    loops = schedule.get_loops(conv)[-len(kinds) :]
    spatial = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == SPATIAL][-5:]
    reduced = [loop for loop, kind in zip(loops, kinds, strict=True) if kind != SPATIAL]
    batch_in, block_in, row_in, pixel, vector = spatial
    schedule.reorder(*reduced, batch_in, row_in, pixel, block_in, vector)
    for loop in spatial[:4]:
        schedule.unroll(loop)
    schedule.vectorize(vector)
    if depthwise:
        for loop in reduced:
            schedule.unroll(loop)
    elif before and len(reduced) == 3 and len(summed) == 3:
        schedule.unroll(reduced[-1])
    init = schedule.decompose_reduction(conv, reduced[0])
    *flat, vector = schedule.get_loops(init)[-5:]
    for loop in flat:
        schedule.unroll(loop)
    schedule.vectorize(vector)


def _part_sums(
    schedule: s_tir.Schedule, conv: SBlockRV, shared: LoopRV, columns: int
) -> tuple[SBlockRV, LoopRV]:
    """Sum one block of input channels over the whole image before the next, so that its weights
    stay in the first-level cache; returns the block of such a sum and the loop over its tiles."""
    part = schedule.rfactor(schedule.get_loops(conv)[5], factor_axis=0)
    schedule.compute_at(conv, shared, preserve_unit_loops=True)
    summed, batch, block, row, column, lane = schedule.get_loops(conv)[-6:]
    column, pixel = schedule.split(column, factors=[None, columns])
    schedule.reorder(summed, batch, row, column, pixel, block, lane)
    for loop in (pixel, block):
        schedule.unroll(loop)
    schedule.vectorize(lane)
    init = schedule.decompose_reduction(conv, summed)
    schedule.vectorize(schedule.get_loops(init)[-1])
    return part, column


def _border(schedule: s_tir.Schedule, border: SBlockRV, shared: LoopRV) -> None:
    """The rows of the padded input that a thread needs."""
    schedule.compute_at(border, shared, preserve_unit_loops=True)
    innermost = schedule.get_loops(border)[-1]
    if len(extents(schedule, border)) == 5:
        schedule.vectorize(innermost)


def _sums(target: Target, lanes: int) -> int:
    """Vectors of `lanes` channels that the registers hold beside the operands."""
    return max(1, (target.vector_registers - _SPARE_REGISTERS) // registers_of(target, lanes))


def registers_of(target: Target, lanes: int) -> int:
    """Registers that a vector of `lanes` channels takes."""
    return max(1, lanes * 32 // target.vector_bits)


def tile(channels: int, width: int, target: Target, lanes: int, wide: bool) -> tuple[int, int]:
    """Blocks of output channels and columns per tile, divisors of `channels` and `width`.

    Each step of the reduction loads every block's weights and every column's input for
    blocks x columns multiply-adds; two of each go through in a cycle, and `_CHAINS` must be
    under way to hide their latency. Among equals the larger tile is taken where the sum is long
    (`wide`).
    """
    registers, most = registers_of(target, lanes), _sums(target, lanes)
    most = most if wide else max(most // 2, _CHAINS // registers)
    best, best_score = (1, 1), (0.0, 0)
    for columns in range(1, min(width, most) + 1):
        for blocks in (1, 2, 3, 4):
            sums = blocks * columns
            if width % columns or channels % blocks or sums > most:
                continue
            work = registers * sums
            score = (
                work / max(work, registers * blocks + columns, _CHAINS),
                sums - blocks - columns,
            )
            if score > best_score:
                best, best_score = (blocks, columns), score
    return best
