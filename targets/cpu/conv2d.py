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
from edgec.targets.cpu.blocks import extent, extents
from edgec.targets.cpu.conv2d_parts import schedule_by_parts, sums_by_parts
from edgec.targets.cpu.convolution import Convolution, convolution
from edgec.targets.cpu.elementwise import vectorise_and_share
from edgec.targets.cpu.knobs import Choose, number, whether
from edgec.targets.cpu.sharing import products_pay
from edgec.targets.cpu.tiles import (
    FLOATS,
    depthwise_columns,
    hold_inputs,
    most_sums,
    step_of,
    sum_in_registers,
    take_terms,
    tile,
    write_out_taps,
    write_out_uneven,
)

_SHORT = 64
"""Terms of a sum up to which few sums at a time are better."""

_CACHED_BYTES = 1 << 20
"""Weights above this are not read once per row: threads then take channel tiles first."""

_LEAST_ROWS = 8
"""Fewer rows than this cannot be shared evenly."""

PACKED = "conv2d_packed"
"""The convolution by packed codes, those of an element the last terms of its sum
(`edgec.lower.packed_conv`): they are written out, so that shifts and masks are constants."""

_ACROSS = 2
"""The place of the loop over a window's columns among those over terms."""

_WRITTEN = 400
"""Vectors of multiply-adds up to which all taps of a window may be written out."""


def schedule_conv2d(schedule: s_tir.Schedule, target: Target, choose: Choose) -> bool:
    """Take kernels whose one reduction is a blocked convolution, with at most one tail block."""
    conv = convolution(schedule, ("conv2d_blocked", "depthwise_blocked", PACKED))
    if conv is None:
        return False
    if schedule.get(conv.sums).name_hint == "depthwise_blocked":
        _schedule_depthwise(schedule, conv, target, choose)
    elif len(extents(schedule, conv.sums)) == 8:
        _schedule_plain_input(schedule, conv, target, choose)
    else:
        _schedule_dense(schedule, conv, target, choose)
    return True


def _schedule_depthwise(
    schedule: s_tir.Schedule, conv: Convolution, target: Target, choose: Choose
) -> None:
    _, _, height, width, lanes = extents(schedule, conv.output)
    columns = depthwise_columns(width, target, lanes, choose)
    most = most_sums(target, lanes)
    options = [rows for rows in (1, 2) if height % rows == 0 and rows * columns <= most]
    rows = number(choose, "rows", options, 1)
    tiles(schedule, conv, (1, rows, columns), target, choose)
    for border in conv.borders:
        schedule.compute_inline(border)
    down, *across = sum_in_registers(schedule, conv.sums, target, choose)
    taps = [down, *across] if whether(choose, "all_taps", True) else across
    write_out_taps(schedule, taps)


def _schedule_plain_input(
    schedule: s_tir.Schedule, conv: Convolution, target: Target, choose: Choose
) -> None:
    _, channels, _, width, lanes = extents(schedule, conv.output)
    rows_first = _rows_first(schedule, conv, choose)
    blocks, columns = tile(channels, width, target, lanes, choose, short=True)
    shared = tiles(schedule, conv, (blocks, 1, columns), target, choose, rows_first=rows_first)
    inputs = schedule.get(conv.sums).reads[0].source
    _, down, across = sum_in_registers(schedule, conv.sums, target, choose)
    if target.lane_operands and width % columns == 0 and len(inputs.shape) == 4:
        _copy_borders(schedule, conv, shared if rows_first else None, target)
        schedule.unroll(across)
        hold_inputs(schedule, conv.sums, inputs, down)
        return
    for border in conv.borders:
        schedule.compute_inline(border)
    taps, sums = math.prod(extents(schedule, conv.sums)[-2:]), blocks * columns
    options = [0, 1, 2] if taps * sums <= _WRITTEN else [0, 1]
    written = number(choose, "taps", options, 1 if conv.borders else 0)
    for loop in (across, down)[:written]:
        schedule.unroll(loop)


def _schedule_dense(
    schedule: s_tir.Schedule, conv: Convolution, target: Target, choose: Choose
) -> None:
    rows_first = _rows_first(schedule, conv, choose)
    packed = schedule.get(conv.sums).name_hint == PACKED
    if not packed and not rows_first and sums_by_parts(schedule, conv.sums, choose):
        for border in conv.borders:
            vectorise_and_share(schedule, border, target)
        schedule_by_parts(schedule, conv.sums, conv.output, target, choose)
        return
    _, channels, _, width, lanes = extents(schedule, conv.output)
    terms, step = math.prod(extents(schedule, conv.sums)[5:]), step_of(schedule, conv.sums)
    short = terms <= _SHORT and step is FLOATS
    blocks, columns = tile(channels, width, target, lanes, choose, step=step, short=short)
    shared = tiles(schedule, conv, (blocks, 1, columns), target, choose, rows_first=rows_first)
    inputs = schedule.get(conv.sums).reads[0].source
    inside = _ACROSS if blocks == 1 and _shares_loads(schedule, conv, target) else None
    summed = sum_in_registers(schedule, conv.sums, target, choose, inside=inside)
    if packed:
        schedule.unroll(summed[-1])
    else:
        even = width % columns == 0
        take_terms(schedule, conv.sums, inputs, summed, blocks * columns, target, choose, even=even)
    by_row = bool(conv.borders) and rows_first and whether(choose, "border_by_row", True)
    _copy_borders(schedule, conv, shared if by_row else None, target)


def _copy_borders(
    schedule: s_tir.Schedule, conv: Convolution, by: LoopRV | None, target: Target
) -> None:
    """Copy the input with its border: what each iteration of a loop needs, or all at once."""
    for border in conv.borders:
        if by is None:
            vectorise_and_share(schedule, border, target)
        else:
            schedule.compute_at(border, by, preserve_unit_loops=True)
            schedule.vectorize(schedule.get_loops(border)[-1])


def _shares_loads(schedule: s_tir.Schedule, conv: Convolution, target: Target) -> bool:
    """Whether neighbouring columns read the same bytes, each of which takes a load of its own."""
    image = schedule.get(conv.sums).reads[0].source
    wide = extents(schedule, conv.sums)[5 + _ACROSS] > 1
    return wide and str(image.dtype) == "uint8" and not target.lane_operands


def _rows_first(schedule: s_tir.Schedule, conv: Convolution, choose: Choose) -> bool:
    """Whether threads share rows: there are enough, and all weights stay in a core's cache."""
    _, channels, rows, _, lanes = extents(schedule, conv.output)
    weights = 4 * math.prod(extents(schedule, conv.sums)[5:]) * channels * lanes
    rule = weights <= _CACHED_BYTES and rows >= _LEAST_ROWS
    return whether(choose, "rows_first", rule) if rows > 1 else rule


def tiles(
    schedule: s_tir.Schedule,
    conv: Convolution,
    size: tuple[int, int, int],
    target: Target,
    choose: Choose,
    *,
    rows_first: bool = False,
) -> LoopRV:
    """Cut the output into tiles of blocks, rows and columns, shared among threads, and sum each
    where it is stored; returns the loop that threads share."""
    batch, channel, row, column, lane = schedule.get_loops(conv.output)
    width = extent(schedule, column)
    channel, channel_in = schedule.split(channel, factors=[None, size[0]])
    row, row_in = schedule.split(row, factors=[None, size[1]])
    column, column_in = schedule.split(column, factors=[None, size[2]])
    inner = [column, row_in, column_in, channel_in, lane]
    if rows_first:
        rows = extent(schedule, row)
        options = [n for n in (1, 2, 4, 7) if rows % n == 0 and rows // n >= _LEAST_ROWS]
        row, turn = schedule.split(row, factors=[None, number(choose, "band", options, 1)])
        schedule.reorder(batch, row, channel, turn, *inner)
        shared = schedule.fuse(batch, row)
    else:
        schedule.reorder(batch, channel, row, *inner)
        shared = schedule.fuse(batch, channel, row)
    if products_pay(math.prod(extents(schedule, conv.sums)), target, choose):
        schedule.parallel(shared)
    for loop in (row_in, channel_in, column_in):
        schedule.unroll(loop)
    schedule.vectorize(lane)
    schedule.compute_at(conv.sums, column, preserve_unit_loops=True)
    write_out_uneven(schedule, column, width, size[2], target)
    return shared
