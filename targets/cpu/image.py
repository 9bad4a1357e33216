"""Blocked images that are read here and there: pooling, resampling, layout changes.

Rows are shared among threads. A row is written column by column, a few at a time, each a vector of
lanes, so that the place of a row is worked out once.

    parallel for image, block of channels, row:
        for column / columns:
            for column % columns:  out[column, lanes] = f(...)
"""

from __future__ import annotations

import math

from tvm import s_tir

from edgec.targets import Target
from edgec.targets.cpu.blocks import compute_blocks, extents, is_spatial, largest_divisor
from edgec.targets.cpu.elementwise import reads_its_own_index
from edgec.targets.cpu.knobs import Choose, number
from edgec.targets.cpu.sharing import iterations_pay

_COLUMNS = 4
"""Columns that are written out: independent work for every port of the processor."""


def schedule_image(schedule: s_tir.Schedule, target: Target, choose: Choose) -> bool:
    """Take a kernel of one spatial block that writes a blocked image and is no plain chain."""
    blocks = compute_blocks(schedule)
    if len(blocks) != 1 or not is_spatial(schedule, blocks[0]):
        return False
    sizes = extents(schedule, blocks[0])
    if len(sizes) != 5 or 0 in sizes or sizes[-1] != target.channel_block or sizes[3] == 1:
        return False
    if reads_its_own_index(schedule, blocks[0]):
        return False
    *outer, column, lane = schedule.get_loops(blocks[0])
    shared = schedule.fuse(*outer)
    if iterations_pay(math.prod(sizes), choose):
        schedule.parallel(shared)
    options = [columns for columns in (1, 2, 4, 7, 8) if sizes[3] % columns == 0]
    columns = number(choose, "columns", options, largest_divisor(sizes[3], _COLUMNS))
    _, few = schedule.split(column, factors=[None, columns])
    schedule.unroll(few)
    schedule.vectorize(lane)
    return True
