"""Winograd convolutions (`edgec.lower.winograd`): transforms around a batch of matrix products.

Those of integers (`edgec.lower.integer_winograd`) have the same stages. Where all weights stay in
the cache, a row of tiles is taken from input to output at once:

    parallel for row of tiles:
        tiles = B^T d B
        for each of the (m + 2)^2 places, tile of channels x columns:
            products = sum over input channels
        out = tail(A^T products A)

Else each stage runs over the whole image: the input's transform shared by rows and channels, the
products by places and channels, so that every weight is read once.
"""

from __future__ import annotations

import math

from tvm import s_tir
from tvm.s_tir.schedule import LoopRV, SBlockRV

from edgec.targets import Target
from edgec.targets.cpu.blocks import compute_blocks, extents, is_output, largest_divisor
from edgec.targets.cpu.knobs import Choose, number, whether
from edgec.targets.cpu.sharing import products_pay
from edgec.targets.cpu.tiles import most_sums, take_terms, tile

_CACHED_BYTES = 1 << 20
"""Weights up to this stay in a core's cache from one row of tiles to the next."""

_STRIPS = 4
"""Fewer rows of tiles than this cannot be shared evenly among threads."""

_WORTH = 4
"""Multiply-adds that take about as long as one product with its share of the transforms."""

_COLUMNS = 16
"""At most so many sums of products of words are under way, which hides their latency."""

_STAGES = [
    "winograd_rows",
    "winograd_tiles",
    "winograd_products",
    "winograd_columns",
    "winograd_output",
]


def schedule_winograd(schedule: s_tir.Schedule, target: Target, choose: Choose) -> bool:
    """Take kernels of exactly these stages, with at most a border before and a block after them."""
    blocks = compute_blocks(schedule)
    names = [schedule.get(block).name_hint for block in blocks]
    borders = blocks[: names[:1] == ["pad"]]
    stages = blocks[len(borders) :]
    if names[len(borders) :][:5] != _STAGES or len(stages) > 6:
        return False
    output = stages[-1]
    if not is_output(schedule, output):
        return False
    if extents(schedule, output) != extents(schedule, stages[4]):
        return False
    if len(stages) == 6:
        schedule.compute_inline(stages[4])
    _schedule(schedule, borders, stages[:4], output, target, choose)
    return True


def _schedule(
    schedule: s_tir.Schedule,
    borders: list[SBlockRV],
    stages: list[SBlockRV],
    output: SBlockRV,
    target: Target,
    choose: Choose,
) -> None:
    rows, tiles, products, columns = stages
    size = extents(schedule, columns)[2]
    batches, downs, places, _, channels, _, lanes, *terms = extents(schedule, products)
    weights = 4 * places**2 * channels * lanes * math.prod(terms)
    together = weights <= _CACHED_BYTES and batches * downs >= _STRIPS
    together = whether(choose, "together", together)
    parallel = products_pay(_WORTH * math.prod(extents(schedule, products)), target, choose)
    batch, channel, row, column, lane = schedule.get_loops(output)
    down, row_in = schedule.split(row, factors=[None, size])
    column, column_in = schedule.split(column, factors=[None, size])
    order = [batch, down, channel] if together else [batch, channel, down]
    schedule.reorder(*order, column, row_in, column_in, lane)
    shared = schedule.fuse(*order[:2])
    if parallel:
        schedule.parallel(shared)
    for loop in (row_in, column_in):
        schedule.unroll(loop)
    schedule.vectorize(lane)
    schedule.compute_at(columns, column, preserve_unit_loops=True)
    _unroll_tile(schedule, columns, 2, 3)
    if together:
        for block in (products, tiles, rows, *borders):
            schedule.compute_at(block, shared, preserve_unit_loops=True)
        _sum_products(schedule, products, target, choose, most_rows=1, parallel=False)
        _transform(schedule, tiles, 3)
    else:
        _sum_products(schedule, products, target, choose, most_rows=downs, parallel=parallel)
        shared = _transform(schedule, tiles, 3)
        if parallel:
            schedule.parallel(shared)
        for block in (rows, *borders):
            schedule.compute_at(block, shared, preserve_unit_loops=True)
    _transform(schedule, rows, 2)
    for border in borders:
        schedule.vectorize(schedule.get_loops(border)[-1])


def _unroll_tile(schedule: s_tir.Schedule, block: SBlockRV, *axes: int) -> None:
    """Unroll these axes, innermost but for the lanes, which are vectorised."""
    loops = schedule.get_loops(block)[-7:]
    inner = [loops[axis] for axis in axes]
    outer = [loop for loop in loops[:-1] if loop not in inner]
    schedule.reorder(*outer, *inner, loops[-1])
    for loop in inner:
        schedule.unroll(loop)
    schedule.vectorize(loops[-1])


def _transform(schedule: s_tir.Schedule, block: SBlockRV, axis: int) -> LoopRV:
    """A transform along `axis`: its places innermost, unrolled; returns the loop over rows of tiles
    and blocks of channels."""
    loops = schedule.get_loops(block)[-len(extents(schedule, block)) :]
    batch, down, *others = loops[:-1]
    channels = others.pop(-2)
    rest = [loop for loop in others if loop is not loops[axis]]
    schedule.reorder(batch, down, channels, *rest, loops[axis], loops[-1])
    schedule.unroll(loops[axis])
    schedule.vectorize(loops[-1])
    return schedule.fuse(batch, down, channels)


def _tile(
    schedule: s_tir.Schedule, block: SBlockRV, target: Target, choose: Choose
) -> tuple[int, int]:
    """Blocks of channels and columns whose products are summed at once. Products of words have an
    operand in memory, which is then as good as one in a register: one block will do."""
    _, _, _, _, channels, across, lanes, *_ = extents(schedule, block)
    if str(schedule.get(block).reads[0].source.dtype) != "int16":
        return tile(channels, across, target, lanes, choose)
    blocks = number(choose, "blocks", [n for n in (1, 2, 4) if n <= channels], 1)
    most = min(_COLUMNS, most_sums(target, lanes) // blocks)
    options = [n for n in range(1, most + 1) if n == -(-across // -(-across // n))]
    return blocks, number(choose, "columns", options, -(-across // -(-across // most)))


def _sum_products(
    schedule: s_tir.Schedule,
    block: SBlockRV,
    target: Target,
    choose: Choose,
    *,
    most_rows: int,
    parallel: bool,
) -> None:
    """The products of each place, a tile of them in registers, of at most `most_rows` rows."""
    down, lanes = (extents(schedule, block)[axis] for axis in (1, 6))
    most = most_sums(target, lanes)
    blocks, columns = _tile(schedule, block, target, choose)
    fitting = max(1, min(most_rows, most // (blocks * columns)))
    options = [n for n in range(1, fitting + 1) if down % n == 0]
    rows = number(choose, "rows", options, largest_divisor(down, fitting))
    batch, row, a, b, channel, column, lane, block_sum, lane_sum = schedule.get_loops(block)[-9:]
    channel, channel_in = schedule.split(channel, factors=[None, blocks])
    column, column_in = schedule.split(column, factors=[None, columns])
    row, row_in = schedule.split(row, factors=[None, rows])
    schedule.reorder(
        batch, a, b, channel, row, column, block_sum, lane_sum, row_in, column_in, channel_in, lane
    )
    shared = schedule.fuse(batch, a, b, channel)
    if parallel:
        schedule.parallel(shared)
    for loop in (row_in, column_in, channel_in):
        schedule.unroll(loop)
    schedule.vectorize(lane)
    inputs = schedule.get(block).reads[0].source
    take_terms(
        schedule, block, inputs, [lane_sum], blocks * columns * rows, target, choose, even=True
    )
    init = schedule.decompose_reduction(block, block_sum)
    *flat, lane = schedule.get_loops(init)[-4:]
    for loop in flat:
        schedule.unroll(loop)
    schedule.vectorize(lane)
