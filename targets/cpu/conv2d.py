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
from tvm.s_tir.schedule import SBlockRV

from edgec.targets import Target
from edgec.targets.cpu.blocks import compute_blocks, extents, is_spatial, iter_types
from edgec.targets.cpu.elementwise import PARALLEL_ITERATIONS, vectorise_and_share

_SPARE_REGISTERS = 4
"""Registers left for the operands while the sums are accumulated."""

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
    registers = max(1, lanes * 32 // target.vector_bits)
    blocks, columns = tile(
        channels, width, registers, target.vector_registers - _SPARE_REGISTERS, depthwise
    )
    batch, channel, row, column, lane = schedule.get_loops(output)
    channel, channel_in = schedule.split(channel, factors=[None, blocks])
    column, column_in = schedule.split(column, factors=[None, columns])
    taps = 4 * math.prod(extents(schedule, conv)[5:]) * channels * lanes
    rows_first = not depthwise and taps <= _CACHED_BYTES and rows >= 4
    outer = [batch, row, channel] if rows_first else [batch, channel, row]
    schedule.reorder(*outer, column, channel_in, column_in, lane)
    shared = schedule.fuse(*(outer[:2] if rows_first else outer))
    if math.prod(extents(schedule, conv)) >= PARALLEL_ITERATIONS:
        schedule.parallel(shared)
    schedule.compute_at(conv, column, preserve_unit_loops=True)
    for border in before:
        _border(schedule, border, shared, rows_first or depthwise, target)
    loops = schedule.get_loops(conv)[-len(iter_types(schedule, conv)) :]
    spatial, summed = loops[:5], loops[5:]
    schedule.reorder(*summed, *spatial)
    for loop in (*spatial[:4], channel_in, column_in):
        schedule.unroll(loop)
    schedule.vectorize(spatial[4])
    schedule.vectorize(lane)
    if depthwise:
        for loop in summed:
            schedule.unroll(loop)
    init = schedule.decompose_reduction(conv, summed[0])
    *flat, vector = schedule.get_loops(init)[-5:]
    for loop in flat:
        schedule.unroll(loop)
    schedule.vectorize(vector)


def _border(
    schedule: s_tir.Schedule, border: SBlockRV, shared: object, by_row: bool, target: Target
) -> None:
    """The padded input: the rows a thread needs, or, where rows are not its unit, all at once."""
    if not by_row:
        vectorise_and_share(schedule, border, target)
        return
    schedule.compute_at(border, shared, preserve_unit_loops=True)
    innermost = schedule.get_loops(border)[-1]
    if len(extents(schedule, border)) == 5:
        schedule.vectorize(innermost)


def tile(
    channels: int, width: int, registers: int, available: int, depthwise: bool
) -> tuple[int, int]:
    """Blocks of output channels and columns per tile.

    `channels` blocks and `width` columns are to be covered, a vector of channels takes `registers`
    registers, of which `available` may hold sums. More sums hide the latency of multiply-add; a
    second block reads each input once for both, but with a whole file of sums LLVM spills.
    """
    best, best_score = (1, 1), 0.0
    for columns in range(1, width + 1):
        if width % columns:
            continue
        for blocks in (1,) if depthwise else (1, 2, 3, 4):
            sums = blocks * columns * registers
            if channels % blocks or sums > available or (blocks > 1 and sums > 0.6 * available):
                continue
            score = min(sums, 16) + 0.1 * sums + (1.0 if blocks > 1 else 0.0)
            if score > best_score:
                best, best_score = (blocks, columns), score
    return best
