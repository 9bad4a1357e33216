"""Convolutions with more weights than the first-level cache holds, on images of few rows.

The sum is taken by parts of the input channels, each over the whole image, so that the weights of a
part are read from the first-level cache for every row but the first; meanwhile those of the next
part are prefetched.

    parallel for channel tile:
        sums = 0
        for part of the input channels:
            for row, column tile:  sums[row, column] += sum over the part, in registers
        out = tail(sums)
"""

from __future__ import annotations

import math

from tvm import s_tir
from tvm.s_tir.schedule import LoopRV, SBlockRV

from edgec.targets import Target
from edgec.targets.cpu.blocks import extents, largest_divisor
from edgec.targets.cpu.knobs import Choose, number, whether
from edgec.targets.cpu.prefetch import mark
from edgec.targets.cpu.sharing import products_pay
from edgec.targets.cpu.tiles import step_of, sum_in_registers, take_terms, tile, write_out_uneven

_PART_BYTES = 20 << 10
"""Weights of a part, beside which its inputs and sums find room."""

_SUMS_BYTES = 1 << 16
"""Sums of all tiles of a channel tile, which are read and written once per part."""

_MOST_SUMS_BYTES = 1 << 18
"""With more than these there is no point in trying."""

_EVEN_TASKS = 8
"""Fewer tasks than this, if odd, are halved, that two threads have the same to do."""

_BLOCKS = 2
"""Blocks of output channels in a tile."""


def sums_by_parts(schedule: s_tir.Schedule, conv: SBlockRV, choose: Choose) -> bool:
    """Whether a dense convolution [n, o, i, j, v; ib, kh, kw, il] has such weights."""
    _, channels, rows, width, lanes, *_ = extents(schedule, conv)
    sums = 4 * rows * width * lanes * _BLOCKS
    if min(channels, rows) == 1 or sums > _MOST_SUMS_BYTES:
        return False
    return whether(choose, "by_parts", sums <= _SUMS_BYTES)


def schedule_by_parts(
    schedule: s_tir.Schedule, conv: SBlockRV, output: SBlockRV, target: Target, choose: Choose
) -> None:
    """Arrange the loops; channel tiles are shared among threads."""
    weights = schedule.get(conv).reads[1].source
    batches, channels, _, width, lanes, inner, *window = extents(schedule, conv)
    step = step_of(schedule, conv)
    blocks, columns = tile(channels, width, target, lanes, choose, step=step)
    depth = _depth(inner, 4 * math.prod(window) * lanes * blocks, choose)
    work = math.prod(extents(schedule, conv))

    tasks = batches * -(-channels // blocks)
    bands = 2 if tasks % 2 and tasks < _EVEN_TASKS else 1
    batch, channel, row, column, lane = schedule.get_loops(output)
    channel, channel_in = schedule.split(channel, factors=[None, blocks])
    band, row = schedule.split(row, factors=[bands, None])
    column, column_in = schedule.split(column, factors=[None, columns])
    schedule.reorder(batch, channel, band, row, column, column_in, channel_in, lane)
    shared = schedule.fuse(batch, channel, band)
    if products_pay(work, target, choose):
        schedule.parallel(shared)
    _tile_loops(schedule, column_in, channel_in, lane)

    if depth == inner:
        part, of_part, turn = conv, shared, row
    else:
        outer, _ = schedule.split(schedule.get_loops(conv)[5], factors=[None, depth])
        part = schedule.rfactor(outer, factor_axis=0)
        schedule.compute_at(conv, shared, preserve_unit_loops=True)
        turn, column, of_part = _add_parts(schedule, conv, columns)
    schedule.compute_at(part, column, preserve_unit_loops=True)
    write_out_uneven(schedule, column, width, columns, target)
    inputs = schedule.get(part).reads[0].source
    summed = sum_in_registers(schedule, part, target, choose)
    even = width % columns == 0
    take_terms(schedule, part, inputs, summed, blocks * columns, target, choose, even=even)
    mark(
        schedule,
        ahead=number(choose, "prefetch", (0, 1, 2), 1),
        part=of_part,
        turn=turn,
        step=summed[-2],
        operand=schedule.get_loops(part)[-2],
        reads=[region.source for region in schedule.get(part).reads].index(weights),
        terms=depth * math.prod(window),
    )


def _depth(inner: int, block_bytes: int, choose: Choose) -> int:
    """Of `inner` blocks of input channels, each with so many bytes of weights, those in a part."""
    rule = largest_divisor(inner, max(1, _PART_BYTES // block_bytes))
    options = [
        n
        for n in range(1, inner + 1)
        if inner % n == 0 and _PART_BYTES <= 4 * n * block_bytes <= 16 * _PART_BYTES
    ]
    return number(choose, "part", [*options, inner], rule)


def _add_parts(
    schedule: s_tir.Schedule, conv: SBlockRV, columns: int
) -> tuple[LoopRV, LoopRV, LoopRV]:
    """Loops over parts, then rows and tiles, around the addition of a part to the sums; returns
    those over rows, tiles and parts."""
    part, batch, block, row, column, lane = schedule.get_loops(conv)[-6:]
    column, pixel = schedule.split(column, factors=[None, columns])
    schedule.reorder(part, batch, row, column, pixel, block, lane)
    _tile_loops(schedule, pixel, block, lane)
    init = schedule.decompose_reduction(conv, part)
    schedule.vectorize(schedule.get_loops(init)[-1])
    return row, column, part


def _tile_loops(schedule: s_tir.Schedule, column: LoopRV, block: LoopRV, lane: LoopRV) -> None:
    schedule.unroll(column)
    schedule.unroll(block)
    schedule.vectorize(lane)
