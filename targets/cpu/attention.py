"""Scores, their softmax and its product with the values, in one kernel
(`edgec.lower.attention_kernel`).

    parallel for batch, rows / tile:
        for keys / (vectors * lanes):
            scores = tail(q k), the sums of a tile in registers
        for row of the tile:
            weights = softmax(scores[row])
        for columns / (vectors * lanes):
            out = tail(weights v), the sums of a tile in registers
"""

from __future__ import annotations

import math

from tvm import s_tir
from tvm.s_tir.schedule import SBlockRV

from edgec.targets import Target
from edgec.targets.cpu.blocks import compute_blocks, extents, is_spatial
from edgec.targets.cpu.knobs import Choose
from edgec.targets.cpu.matmul import sum_in_tiles, tile_of
from edgec.targets.cpu.rows import row_by_row
from edgec.targets.cpu.sharing import products_pay

_SOFTMAX = ["largest", "powers", "total", "share", "softmax"]


def schedule_attention(schedule: s_tir.Schedule, target: Target, choose: Choose) -> bool:
    """Take kernels of a softmax and the product it weights, after the product of its scores or not;
    both products with a tail or without."""
    blocks = compute_blocks(schedule)
    names = [schedule.get(block).name_hint for block in blocks]
    if "largest" not in names or names.count("matmul") not in (1, 2):
        return False
    start = names.index("largest")
    before, softmax, after = blocks[:start], blocks[start : start + 5], blocks[start + 5 :]
    if names[start : start + 5] != _SOFTMAX or names[start + 5 : start + 6] != ["matmul"]:
        return False
    if len(before) > 2 or len(after) > 2 or (before and names[0] != "matmul"):
        return False
    if not all(is_spatial(schedule, tail) for tail in (*before[1:], *after[1:])):
        return False
    _schedule(schedule, before, softmax, after, target, choose)
    return True


def _schedule(
    schedule: s_tir.Schedule,
    before: list[SBlockRV],
    softmax: list[SBlockRV],
    after: list[SBlockRV],
    target: Target,
    choose: Choose,
) -> None:
    products = [part[0] for part in (before, after) if part]
    work = sum(math.prod(extents(schedule, product)) for product in products)
    rows, _, _ = tile_of(schedule, after[0], target)
    output = after[1] if len(after) > 1 else schedule.cache_write(after[0], 0, "global")
    *outer, row, _ = schedule.get_loops(output)
    row, _ = schedule.split(row, factors=[None, rows])
    shared = schedule.fuse(*outer, row)
    if products_pay(work, target, choose):
        schedule.parallel(shared)
    sum_in_tiles(schedule, after[0], output, target)
    schedule.compute_at(softmax[-1], shared, preserve_unit_loops=True)
    row_by_row(schedule, softmax, target)
    if before:
        tail = before[1] if len(before) > 1 else schedule.cache_write(before[0], 0, "global")
        schedule.compute_at(tail, shared, preserve_unit_loops=True)
        sum_in_tiles(schedule, before[0], tail, target)
