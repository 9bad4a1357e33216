"""Depthwise convolutions of bytes (`edgec.lower.integer_conv`), four rows of a column at a time.

    parallel for channel, band of rows:
        border = the rows that the band reads, padded
        for row, column tile:
            sums[row, column, lane] = 0
            for tap of a row:  sums += dot4(four rows of border[column], taps)
            out = tail(sums)

Putting four bytes of each lane together takes longer than multiplying them: what neighbouring
columns of a tile, and both its rows, have in common is put together once, in registers.
"""

from __future__ import annotations

import math

from tvm import s_tir
from tvm.s_tir.schedule import LoopRV, SBlockRV

from edgec.targets import Target
from edgec.targets.cpu.blocks import compute_blocks, extents, is_spatial, largest_divisor
from edgec.targets.cpu.knobs import Choose, number
from edgec.targets.cpu.sharing import products_pay
from edgec.targets.cpu.tiles import depthwise_columns, sum_in_registers, write_out_taps

_BAND_BYTES = 12 << 10
"""Of the border's copy for a band, which is to stay in the first-level cache."""

_LEAST_ROWS = 8
"""Below so many rows a band copies too much of its neighbours' rows again."""


def schedule_depthwise_quads(schedule: s_tir.Schedule, target: Target, choose: Choose) -> bool:
    """Take kernels of one such convolution, with at most one tail."""
    blocks = compute_blocks(schedule)
    names = [schedule.get(block).name_hint for block in blocks]
    if "depthwise_quads" not in names:
        return False
    place = names.index("depthwise_quads")
    before, sums, after = blocks[:place], blocks[place], blocks[place + 1 :]
    if names[:place] not in ([], ["pad"]) or len(after) > 1:
        return False
    if not all(is_spatial(schedule, block) for block in after):
        return False
    output = after[0] if after else schedule.cache_write(sums, 0, "global")
    if extents(schedule, output) != extents(schedule, sums)[:5]:
        return False
    rows = extents(schedule, output)[2]
    row_bytes = sum(math.prod(extents(schedule, block)[2:]) for block in before) // rows
    band_rule = largest_divisor(rows, max(_LEAST_ROWS, _BAND_BYTES // max(1, row_bytes)))
    bands = [n for n in range(2, rows + 1) if rows % n == 0 and n * row_bytes <= 16 * _BAND_BYTES]
    band = number(choose, "band", bands, band_rule)
    work = math.prod(extents(schedule, sums))
    batch, channel, row, column, lane = schedule.get_loops(output)
    row, row_in = schedule.split(row, factors=[None, band])
    shared = schedule.fuse(batch, channel, row)
    if products_pay(work, target, choose):
        schedule.parallel(shared)
    sum_tile(schedule, sums, row_in, column, lane, target, choose)
    for border in before:
        copy_border(schedule, border, shared)
    return True


def sum_tile(
    schedule: s_tir.Schedule,
    sums: SBlockRV,
    row: LoopRV,
    column: LoopRV,
    lane: LoopRV,
    target: Target,
    choose: Choose,
) -> None:
    """Compute `sums` tile by tile within the output's loops, the innermost ones."""
    *_, width, lanes = extents(schedule, sums)[:5]
    columns = depthwise_columns(width, target, lanes, choose)
    rows = number(choose, "rows", (1, 2), 2 if int(schedule.get(row).extent) % 2 == 0 else 1)
    row, row_in = schedule.split(row, factors=[None, rows])
    column, column_in = schedule.split(column, factors=[None, columns])
    schedule.reorder(row, column, row_in, column_in, lane)
    schedule.unroll(row_in)
    schedule.unroll(column_in)
    schedule.vectorize(lane)
    schedule.compute_at(sums, column, preserve_unit_loops=True)
    write_out_taps(schedule, sum_in_registers(schedule, sums, target, choose))


def copy_border(schedule: s_tir.Schedule, border: SBlockRV, shared: LoopRV) -> None:
    """Copy the image with its border, a band at a time, within the loop `shared`."""
    schedule.compute_at(border, shared, preserve_unit_loops=True)
    schedule.vectorize(schedule.get_loops(border)[-1])
