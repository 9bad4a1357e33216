"""Matrix products: rows of A by panels of B, the sums of a tile in registers.

    parallel for panel of columns, tile of rows:
        sums[row, column] = 0
        for k:  sums += a[row, k] * b[k, column]
        out = tail(sums)

A constant B is stored panel by panel (`edgec.lower.matmul`); any other is read in place.
"""

from __future__ import annotations

import math

from tvm import s_tir
from tvm.s_tir.schedule import SBlockRV

from edgec.targets import Target
from edgec.targets.cpu.blocks import (
    compute_blocks,
    extents,
    is_spatial,
    iter_types,
    largest_divisor,
)
from edgec.targets.cpu.elementwise import PARALLEL_ITERATIONS, vectorise_and_share

_PANELS = (32, 16, 8)
_VECTOR_PANELS = (64, 32, 16, 8)
"""Powers of two: LLVM keeps sums of any other width in memory."""
_MOST_LANES = 32


def panel(rows: int, columns: int) -> int:
    """Columns of B that a tile covers: a divisor of `columns`, whole vectors where that can be.

    A single row has no other sums to hide the latency of multiply-add behind, so it takes more.
    """
    for width in _PANELS if rows > 1 else _VECTOR_PANELS:
        if columns % width == 0:
            return width
    return largest_divisor(columns, _MOST_LANES)


def schedule_matmul(schedule: s_tir.Schedule, target: Target) -> bool:
    """Take kernels whose one reduction is a product of float matrices, with at most one tail."""
    blocks = compute_blocks(schedule)
    reductions = [block for block in blocks if not is_spatial(schedule, block)]
    if [schedule.get(block).name_hint for block in reductions] not in (
        ["matmul"],
        ["matmul_packed"],
    ):
        return False
    product = reductions[0]
    names = [schedule.get(block).name_hint for block in blocks]
    position = names.index(schedule.get(product).name_hint)
    after = blocks[position + 1 :]
    kinds, sizes = iter_types(schedule, product), extents(schedule, product)
    if len(after) > 1 or kinds[-1] == 0 or len(kinds) < 2 or 0 in sizes:
        return False
    if after and extents(schedule, after[0]) != extents(schedule, product)[:-1]:
        return False
    for block in blocks[:position]:
        vectorise_and_share(schedule, block, target)
    output = after[0] if after else schedule.cache_write(product, 0, "global")
    _tile(schedule, product, output, target)
    return True


def _tile(schedule: s_tir.Schedule, product: SBlockRV, output: SBlockRV, target: Target) -> None:
    *lead, columns = extents(schedule, output)
    work = math.prod(extents(schedule, product))
    *outer, column = schedule.get_loops(output)
    width = panel(lead[-1] if lead else 1, columns)
    per_row = max(1, width * 32 // target.vector_bits)
    available = target.vector_registers - per_row - 1
    strip, lane = schedule.split(column, factors=[None, width])
    inner = [lane]
    if lead:
        rows = largest_divisor(lead[-1], max(1, min(available // per_row, 1000 // (4 * width))))
        outer[-1], row = schedule.split(outer[-1], factors=[None, rows])
        inner.insert(0, row)
    schedule.reorder(*outer[:-1], strip, *outer[-1:], *inner)
    shared = schedule.fuse(*outer[:-1], strip, *outer[-1:])
    if work >= PARALLEL_ITERATIONS:
        schedule.parallel(shared)
    schedule.compute_at(product, shared, preserve_unit_loops=True)
    *spatial, summed = schedule.get_loops(product)[1:]
    schedule.reorder(summed, *spatial)
    for loop in (*spatial[:-1], *inner[:-1]):
        schedule.unroll(loop)
    schedule.vectorize(spatial[-1])
    schedule.vectorize(lane)
    init = schedule.decompose_reduction(product, summed)
    *rows_of_init, lanes_of_init = schedule.get_loops(init)[1:]
    for loop in rows_of_init:
        schedule.unroll(loop)
    schedule.vectorize(lanes_of_init)
