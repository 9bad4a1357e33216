"""Products with a matrix of packed codes (`edgec.lower.packed_matmul`).

    parallel for tiles:
        sums[row, vector, lane] = 0
        for run:
            part[row, vector, lane] = 0
            for element of the run:
                for place:  part += a[row, k] * number(b[element, vector, lane], place)
            sums += part * scale[vector, lane]
        out = tail(sums)

Places are written out, so that shifts and masks are constants; each number is made once for all
rows of a tile.
"""

from __future__ import annotations

import math

from tvm import s_tir
from tvm.s_tir.schedule import SBlockRV

from edgec.targets import Target
from edgec.targets.cpu.blocks import compute_blocks, extents, is_spatial
from edgec.targets.cpu.elementwise import vectorise_and_share
from edgec.targets.cpu.knobs import Choose
from edgec.targets.cpu.matmul import best_of, covers, in_registers, lanes_of
from edgec.targets.cpu.sharing import products_pay

_MOST_ROWS = 14
_LATENCY = 4
"""Cycles from a multiply-add to the next on the same sum."""

_WIDENING = 3
"""Instructions that make a number of a code."""

_SPARE_REGISTERS = 2


def schedule_packed_matmul(schedule: s_tir.Schedule, target: Target, choose: Choose) -> bool:
    """Take kernels whose reductions are those of one such product, with at most one tail; one that
    reads what other blocks make, too, runs after all of them."""
    blocks = compute_blocks(schedule)
    names = [schedule.get(block).name_hint for block in blocks]
    summed = [name for name, b in zip(names, blocks, strict=True) if not is_spatial(schedule, b)]
    if summed != ["packed_part", "packed_matmul"]:
        return False
    position = names.index("packed_matmul")
    part, product, after = blocks[position - 1], blocks[position], blocks[position + 1 :]
    if names[position - 1] != "packed_part" or len(after) > 1:
        return False
    sums = extents(schedule, product)[:-1]
    if after and not covers(sums, extents(schedule, after[0])):
        return False
    apart = [block for block in after if len(schedule.get_producers(block)) > 1]
    for block in (*blocks[: position - 1], *apart):
        vectorise_and_share(schedule, block, target)
    output = after[0] if after and not apart else schedule.cache_write(product, 0, "global")
    _tile(schedule, part, product, output, target, choose)
    return True


def tile(rows: int, vectors: int, target: Target, choose: Choose) -> tuple[int, int]:
    """Rows and vectors of columns in a tile, divisors of `rows` and `vectors`.

    A step of the sum takes as long as its multiply-adds or the latency of a sum, and numbers are
    made by other units meanwhile; of equal tiles that is best which makes fewest for each sum.
    """

    def merit(size: tuple[int, int]) -> tuple[float, float]:
        r, v = size
        cycles = max(r * v / 2, _WIDENING * v / 2, (r + _WIDENING) * v / 3, _LATENCY)
        return round(r * v / cycles, 2), r * v / (r + v)

    room = target.vector_registers - _SPARE_REGISTERS
    fitting = [
        (r, v)
        for r in range(1, min(rows, _MOST_ROWS) + 1)
        for v in range(1, vectors + 1)
        if rows % r == 0 and vectors % v == 0 and (r * v + 2 * v <= room or r * v == 1)
    ]
    return best_of(fitting, merit, choose)


def _tile(
    schedule: s_tir.Schedule,
    part: SBlockRV,
    product: SBlockRV,
    output: SBlockRV,
    target: Target,
    choose: Choose,
) -> None:
    *lead, _, _ = extents(schedule, product)
    width = int(schedule.get(part).reads[1].source.shape[-1])
    lanes = lanes_of(width, target.vector_bits // 32)
    rows, vectors = tile(lead[-1], width // lanes, target, choose)
    work = math.prod(extents(schedule, part))
    *outer, row, column, run = schedule.get_loops(product)
    strip, vector, lane = schedule.split(column, factors=[None, vectors, lanes])
    row, row_in = schedule.split(row, factors=[None, rows])
    schedule.reorder(*outer, strip, row, run, row_in, vector, lane)
    shared = schedule.fuse(*outer, strip, row)
    if products_pay(work, target, choose):
        schedule.parallel(shared)
    schedule.reverse_compute_at(output, shared, preserve_unit_loops=True)
    schedule.split(schedule.get_loops(output)[-1], factors=[None, lanes])
    schedule.compute_at(part, run, preserve_unit_loops=True)
    *_, row_in, column, one, element, place = schedule.get_loops(part)
    vector, lane = schedule.split(column, factors=[None, lanes])
    schedule.reorder(one, element, place, row_in, vector, lane)
    schedule.unroll(place)
    for block in (part, product, output):
        in_registers(schedule, block, 3)
    for block, loop in ((part, element), (product, run)):
        in_registers(schedule, schedule.decompose_reduction(block, loop), 3)
