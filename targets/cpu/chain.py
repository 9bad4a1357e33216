"""A convolution and the depthwise convolution it feeds, in one kernel (`edgec.lower.chain`).

parallel for channel tile, band of rows:
    image = tail(the convolution's rows that the band reads), tile by tile
    for channel, row, column tile:
        out = tail(depthwise sums over image)
"""

from __future__ import annotations

from tvm import s_tir
from tvm.s_tir.schedule import SBlockRV

from edgec.targets import Target
from edgec.targets.cpu.blocks import compute_blocks, extents, is_output, largest_divisor
from edgec.targets.cpu.depthwise_quads import copy_border, sum_tile
from edgec.targets.cpu.knobs import Choose, number, under
from edgec.targets.cpu.tiles import (
    TERMS,
    depthwise_columns,
    step_of,
    sum_in_registers,
    take_terms,
    tile,
    write_out_taps,
)

_BAND_BYTES = 256 << 10
"""Of the image between, that a thread computes at a time."""

_BAND_ROWS = 8
"""Below so many rows a band computes too much of its neighbours' rows again."""


_DEPTHWISE: dict[str, tuple[list[str], ...]] = {
    "depthwise_blocked": ([], ["pad"]),
    "depthwise_quads": ([], ["pad"]),
}
"""Depthwise convolutions by the name of their block, and what may come before it."""


def schedule_chain(schedule: s_tir.Schedule, target: Target, choose: Choose) -> bool:
    """Take kernels of both convolutions, one tail each."""
    blocks = compute_blocks(schedule)
    names = [schedule.get(block).name_hint for block in blocks]
    second = next((i for i, name in enumerate(names) if name in _DEPTHWISE), None)
    if second is None or "conv2d_blocked" not in names[:second]:
        return False
    first = names.index("conv2d_blocked")
    between = names[first + 2 : second]
    if between not in _DEPTHWISE[names[second]] or len(blocks) != second + 2:
        return False
    if names[:first] not in ([], ["pad"], [TERMS]) or not is_output(schedule, blocks[-1]):
        return False
    _schedule(schedule, blocks, first, second, target, choose)
    return True


def _schedule(
    schedule: s_tir.Schedule,
    blocks: list[SBlockRV],
    first: int,
    second: int,
    target: Target,
    choose: Choose,
) -> None:
    conv, image, depthwise, output = (
        blocks[first],
        blocks[first + 1],
        blocks[second],
        blocks[second + 1],
    )
    before = blocks[first + 2 : second]
    by_quads = schedule.get(depthwise).name_hint == "depthwise_quads"
    borders = [each for each in blocks[:first] if schedule.get(each).name_hint != TERMS]
    for border in borders if by_quads else (*borders, *before):
        schedule.compute_inline(border)
    _, channels, rows, width, lanes = extents(schedule, output)
    _, _, image_rows, image_width, _ = extents(schedule, image)
    of_conv, of_depthwise = under("conv", choose), under("depthwise", choose)
    step = step_of(schedule, conv)
    blocks_in, columns_in = tile(
        channels, image_width, target, lanes, of_conv, step=step, short=True
    )
    row_bytes = 4 * blocks_in * image_width * lanes * image_rows // rows
    band = largest_divisor(rows, max(_BAND_ROWS, _BAND_BYTES // row_bytes))
    bands = [n for n in range(4, rows + 1) if rows % n == 0 and n * row_bytes <= 4 * _BAND_BYTES]
    band = number(choose, "band", bands, band)

    batch, channel, row, column, lane = schedule.get_loops(output)
    channel, channel_in = schedule.split(channel, factors=[None, blocks_in])
    row, row_in = schedule.split(row, factors=[None, band])
    schedule.reorder(batch, channel, row, channel_in, row_in, column, lane)
    shared = schedule.fuse(batch, channel, row)
    schedule.parallel(shared)
    if by_quads:
        sum_tile(schedule, depthwise, row_in, column, lane, target, of_depthwise)
        for border in before:
            copy_border(schedule, border, shared)
    else:
        columns = depthwise_columns(width, target, lanes, of_depthwise)
        column, column_in = schedule.split(column, factors=[None, columns])
        schedule.unroll(column_in)
        schedule.vectorize(lane)
        schedule.compute_at(depthwise, column, preserve_unit_loops=True)
    schedule.compute_at(image, shared, preserve_unit_loops=True)
    batch, channel, row, column, lane = schedule.get_loops(image)[-5:]
    column, column_in = schedule.split(column, factors=[None, columns_in])
    schedule.reorder(batch, row, column, column_in, channel, lane)
    schedule.unroll(column_in)
    schedule.unroll(channel)
    schedule.vectorize(lane)
    schedule.compute_at(conv, column, preserve_unit_loops=True)

    if not by_quads:
        write_out_taps(schedule, sum_in_registers(schedule, depthwise, target, of_depthwise))
    inputs = schedule.get(conv).reads[0].source
    summed = sum_in_registers(schedule, conv, target, of_conv)
    if len(summed) == 3:
        schedule.unroll(summed[-1])
    else:
        sums = blocks_in * columns_in
        even = image_width % columns_in == 0
        take_terms(schedule, conv, inputs, summed, sums, target, of_conv, even=even)
