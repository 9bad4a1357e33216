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
from tvm.s_tir.schedule import LoopRV

from edgec.targets import Target
from edgec.targets.cpu.blocks import extents
from edgec.targets.cpu.conv2d_parts import schedule_by_parts, sums_by_parts
from edgec.targets.cpu.convolution import Convolution, convolution
from edgec.targets.cpu.elementwise import vectorise_and_share
from edgec.targets.cpu.knobs import Choose
from edgec.targets.cpu.sharing import products_pay
from edgec.targets.cpu.tiles import depthwise_columns, sum_in_registers, tile

_SHORT = 64
"""Terms of a sum up to which few sums at a time are better."""

_CACHED_BYTES = 1 << 20
"""Weights above this are not read once per row: threads then take channel tiles first."""

_LEAST_ROWS = 8
"""Fewer rows than this cannot be shared evenly."""


def schedule_conv2d(schedule: s_tir.Schedule, target: Target, choose: Choose) -> bool:
    """Take kernels whose one reduction is a blocked convolution, with at most one tail block."""
    conv = convolution(schedule, ("conv2d_blocked", "depthwise_blocked"))
    if conv is None:
        return False
    if schedule.get(conv.sums).name_hint == "depthwise_blocked":
        _schedule_depthwise(schedule, conv, target)
    elif len(extents(schedule, conv.sums)) == 8:
        _schedule_plain_input(schedule, conv, target)
    else:
        _schedule_dense(schedule, conv, target)
    return True


def _schedule_depthwise(schedule: s_tir.Schedule, conv: Convolution, target: Target) -> None:
    *_, width, lanes = extents(schedule, conv.output)
    columns = depthwise_columns(width, target, lanes)
    _tiles(schedule, conv, 1, columns, rows_first=False, target=target)
    for border in conv.borders:
        schedule.compute_inline(border)
    for loop in sum_in_registers(schedule, conv.sums, target):
        schedule.unroll(loop)


def _schedule_plain_input(schedule: s_tir.Schedule, conv: Convolution, target: Target) -> None:
    _, channels, _, width, lanes = extents(schedule, conv.output)
    blocks, columns = tile(channels, width, target, lanes, short=True)
    _tiles(schedule, conv, blocks, columns, rows_first=_rows_first(schedule, conv), target=target)
    for border in conv.borders:
        schedule.compute_inline(border)
    *_, across = sum_in_registers(schedule, conv.sums, target)
    if conv.borders:
        schedule.unroll(across)


def _schedule_dense(schedule: s_tir.Schedule, conv: Convolution, target: Target) -> None:
    rows_first = _rows_first(schedule, conv)
    if not rows_first and sums_by_parts(schedule, conv.sums):
        for border in conv.borders:
            vectorise_and_share(schedule, border, target)
        schedule_by_parts(schedule, conv.sums, conv.output, target)
        return
    _, channels, _, width, lanes = extents(schedule, conv.output)
    short = math.prod(extents(schedule, conv.sums)[5:]) <= _SHORT
    blocks, columns = tile(channels, width, target, lanes, short=short)
    shared = _tiles(schedule, conv, blocks, columns, rows_first=rows_first, target=target)
    for border in conv.borders:
        if rows_first:
            schedule.compute_at(border, shared, preserve_unit_loops=True)
            schedule.vectorize(schedule.get_loops(border)[-1])
        else:
            vectorise_and_share(schedule, border, target)
    sum_in_registers(schedule, conv.sums, target)


def _rows_first(schedule: s_tir.Schedule, conv: Convolution) -> bool:
    """Whether threads share rows: there are enough, and all weights stay in a core's cache."""
    _, channels, rows, _, lanes = extents(schedule, conv.output)
    weights = 4 * math.prod(extents(schedule, conv.sums)[5:]) * channels * lanes
    return weights <= _CACHED_BYTES and rows >= _LEAST_ROWS


def _tiles(
    schedule: s_tir.Schedule,
    conv: Convolution,
    blocks: int,
    columns: int,
    *,
    rows_first: bool,
    target: Target,
) -> LoopRV:
    """Cut the output into tiles, shared among threads, and sum each where it is stored; returns
    the loop that threads share."""
    batch, channel, row, column, lane = schedule.get_loops(conv.output)
    channel, channel_in = schedule.split(channel, factors=[None, blocks])
    column, column_in = schedule.split(column, factors=[None, columns])
    outer = [batch, row, channel] if rows_first else [batch, channel, row]
    schedule.reorder(*outer, column, column_in, channel_in, lane)
    shared = schedule.fuse(*(outer[:2] if rows_first else outer))
    if products_pay(math.prod(extents(schedule, conv.sums)), target):
        schedule.parallel(shared)
    for loop in (channel_in, column_in):
        schedule.unroll(loop)
    schedule.vectorize(lane)
    schedule.compute_at(conv.sums, column, preserve_unit_loops=True)
    return shared
