"""Spatial kernels: elementwise chains, data movement, and everything no other rule takes.

for i, j, k  =>  parallel for fused(i, j, k / lanes); vectorised k % lanes
"""

from __future__ import annotations

import math

from tvm import s_tir
from tvm.s_tir.schedule import LoopRV, SBlockRV

from edgec.targets import Target
from edgec.targets.cpu.blocks import compute_blocks, extent, is_spatial, largest_divisor
from edgec.targets.cpu.knobs import Choose, by_rule, number, under
from edgec.targets.cpu.sharing import iterations_pay


def schedule_elementwise(schedule: s_tir.Schedule, target: Target, choose: Choose) -> bool:
    """Vectorise the innermost loop of every spatial block and share the others among threads."""
    blocks = [block for block in compute_blocks(schedule) if is_spatial(schedule, block)]
    for place, block in enumerate(blocks):
        vectorise_and_share(schedule, block, target, under(f"stage{place}", choose))
    return True


def vectorise_and_share(
    schedule: s_tir.Schedule, block: SBlockRV, target: Target, choose: Choose = by_rule
) -> None:
    """Arrange the loops of a spatial `block` that stands directly below the root."""
    loops = schedule.get_loops(block)
    total = math.prod(extent(schedule, loop) for loop in loops)
    if not loops or total == 0:
        return
    lanes = target.vector_bits // 32
    if reads_its_own_index(schedule, block):
        loops = [schedule.fuse(*loops)] if len(loops) > 1 else loops
    inner = loops[-1]
    outer: list[LoopRV] = list(loops[:-1])
    widths = [n * lanes for n in (1, 2, 4) if extent(schedule, inner) % (n * lanes) == 0]
    width = number(choose, "vector", widths, largest_divisor(extent(schedule, inner), lanes))
    if width >= 2:
        rest, inner = schedule.split(inner, factors=[None, width])
        outer.append(rest)
        schedule.vectorize(inner)
    else:
        outer.append(inner)
    if outer and iterations_pay(total, choose):
        schedule.parallel(schedule.fuse(*outer) if len(outer) > 1 else outer[0])


def reads_its_own_index(schedule: s_tir.Schedule, block: SBlockRV) -> bool:
    """Whether every buffer is read and written at the block's own index: one flat loop will do."""
    stmt = schedule.get(block)
    if len(stmt.writes) != 1:
        return False
    index = [item.min for item in stmt.writes[0].region]
    shape = [int(size) for size in stmt.writes[0].source.shape]
    for region in stmt.reads:
        point = [item.min for item in region.region]
        if [int(size) for size in region.source.shape] != shape:
            return False
        if not all(a.same_as(b) for a, b in zip(point, index, strict=True)):
            return False
    return True
