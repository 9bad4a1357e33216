"""Convolutions on blocked images (`edgec.lower.blocked_conv`).

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

A depthwise convolution and one of a plain image read each input so seldom that a copy would cost
more than it saves: there the border is decided column by column.
"""

from __future__ import annotations

import math

from tvm import s_tir
from tvm.s_tir.schedule import LoopRV, SBlockRV

from edgec.targets import Target
from edgec.targets.cpu.blocks import compute_blocks, extents, is_spatial
from edgec.targets.cpu.conv2d_parts import schedule_by_parts, sums_by_parts
from edgec.targets.cpu.elementwise import vectorise_and_share
from edgec.targets.cpu.sharing import products_pay
from edgec.targets.cpu.tiles import depthwise_columns, sum_in_registers, tile

_SHORT = 64
"""Terms of a sum up to which few sums at a time are better."""

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
    if names[found[0]] == "depthwise_blocked":
        _schedule_depthwise(schedule, before, conv, output, target)
    elif len(extents(schedule, conv)) == 8:
        _schedule_plain_input(schedule, before, conv, output, target)
    else:
        _schedule_dense(schedule, before, conv, output, target)
    return True


def _schedule_depthwise(
    schedule: s_tir.Schedule,
    before: list[SBlockRV],
    conv: SBlockRV,
    output: SBlockRV,
    target: Target,
) -> None:
    *_, width, lanes = extents(schedule, output)
    columns = depthwise_columns(width, target, lanes)
    _tiles(schedule, conv, output, 1, columns, rows_first=False, target=target)
    for border in before:
        schedule.compute_inline(border)
    for loop in sum_in_registers(schedule, conv, target):
        schedule.unroll(loop)


def _schedule_plain_input(
    schedule: s_tir.Schedule,
    before: list[SBlockRV],
    conv: SBlockRV,
    output: SBlockRV,
    target: Target,
) -> None:
    _, channels, rows, width, lanes = extents(schedule, output)
    blocks, columns = tile(channels, width, target, lanes, short=True)
    rows_first = _weights(schedule, conv, output) <= _CACHED_BYTES and rows >= 8
    _tiles(schedule, conv, output, blocks, columns, rows_first=rows_first, target=target)
    for border in before:
        schedule.compute_inline(border)
    *_, across = sum_in_registers(schedule, conv, target)
    if before:
        schedule.unroll(across)


def _schedule_dense(
    schedule: s_tir.Schedule,
    before: list[SBlockRV],
    conv: SBlockRV,
    output: SBlockRV,
    target: Target,
) -> None:
    _, channels, rows, width, lanes = extents(schedule, output)
    rows_first = _weights(schedule, conv, output) <= _CACHED_BYTES and rows >= 8
    if not rows_first and sums_by_parts(schedule, conv):
        for border in before:
            vectorise_and_share(schedule, border, target)
        schedule_by_parts(schedule, conv, output, target)
        return
    short = math.prod(extents(schedule, conv)[5:]) <= _SHORT
    blocks, columns = tile(channels, width, target, lanes, short=short)
    shared = _tiles(schedule, conv, output, blocks, columns, rows_first=rows_first, target=target)
    for border in before:
        if rows_first:
            schedule.compute_at(border, shared, preserve_unit_loops=True)
            schedule.vectorize(schedule.get_loops(border)[-1])
        else:
            vectorise_and_share(schedule, border, target)
    sum_in_registers(schedule, conv, target)


def _weights(schedule: s_tir.Schedule, conv: SBlockRV, output: SBlockRV) -> int:
    """Bytes of all weights."""
    _, channels, _, _, lanes = extents(schedule, output)
    return 4 * math.prod(extents(schedule, conv)[5:]) * channels * lanes


def _tiles(
    schedule: s_tir.Schedule,
    conv: SBlockRV,
    output: SBlockRV,
    blocks: int,
    columns: int,
    *,
    rows_first: bool,
    target: Target,
) -> LoopRV:
    """Cut the output into tiles, shared among threads, and sum each where it is stored; returns
    the loop that threads share."""
    batch, channel, row, column, lane = schedule.get_loops(output)
    channel, channel_in = schedule.split(channel, factors=[None, blocks])
    column, column_in = schedule.split(column, factors=[None, columns])
    outer = [batch, row, channel] if rows_first else [batch, channel, row]
    schedule.reorder(*outer, column, column_in, channel_in, lane)
    shared = schedule.fuse(*(outer[:2] if rows_first else outer))
    if products_pay(math.prod(extents(schedule, conv)), target):
        schedule.parallel(shared)
    for loop in (channel_in, column_in):
        schedule.unroll(loop)
    schedule.vectorize(lane)
    schedule.compute_at(conv, column, preserve_unit_loops=True)
    return shared
