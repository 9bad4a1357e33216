"""Any block by itself: a thread for each element that it writes, or several for each sum.

for s, r:  =>  block = s / THREADS; thread = s % THREADS; for r
           or  block = s;           thread = r % threads; for r / threads
"""

from __future__ import annotations

import math

from tvm import s_tir
from tvm.s_tir.schedule import LoopRV, SBlockRV

from edgec.targets.cpu.blocks import SPATIAL, compute_blocks, extent, iter_types

THREADS = 128
_FEW_OUTPUTS = 1 << 14
"""With so many elements to write, a thread for each keeps a GPU busy."""
_LONG_SUM = 64


def schedule_each(schedule: s_tir.Schedule) -> bool:
    """Bind each block of the stage; a launch for each. Not loops without blocks."""
    blocks = compute_blocks(schedule)
    for block in blocks:
        _bind(schedule, block)
    return bool(blocks)


def _bind(schedule: s_tir.Schedule, block: SBlockRV) -> None:
    loops = schedule.get_loops(block)
    kinds = iter_types(schedule, block)
    if len(kinds) != len(loops):
        raise s_tir.ScheduleError("a block below more loops than it has axes")
    reduced = [loop for loop, kind in zip(loops, kinds, strict=True) if kind != SPATIAL]
    if not reduced:
        over_threads(schedule, fused(schedule, block, loops))
        return
    terms = math.prod(extent(schedule, loop) for loop in reduced)
    outputs = math.prod(extent(schedule, loop) for loop in loops) // max(terms, 1)
    if len(schedule.get(block).writes) == 1 and terms >= _LONG_SUM and outputs < _FEW_OUTPUTS:
        spatial = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == SPATIAL]
        schedule.reorder(*spatial, *reduced)
        schedule.bind(fused(schedule, block, spatial), "blockIdx.x")
        together(schedule, fused(schedule, block, reduced), terms)
        return
    _sum_in_register(schedule, block)


def _sum_in_register(schedule: s_tir.Schedule, block: SBlockRV) -> None:
    single = len(schedule.get(block).writes) == 1
    written = schedule.cache_write(block, 0, "local") if single else None
    loops = schedule.get_loops(block)
    kinds = iter_types(schedule, block)
    spatial = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == SPATIAL]
    reduced = [loop for loop, kind in zip(loops, kinds, strict=True) if kind != SPATIAL]
    schedule.reorder(*spatial, *reduced)
    thread = over_threads(schedule, fused(schedule, block, spatial))
    if written is not None:
        schedule.reverse_compute_at(written, thread)


def fused(schedule: s_tir.Schedule, block: SBlockRV, loops: list[LoopRV]) -> LoopRV:
    """`loops` as one; a loop of one turn where there are none."""
    if not loops:
        return schedule.add_unit_loop(block)
    return schedule.fuse(*loops) if len(loops) > 1 else loops[0]


def over_threads(schedule: s_tir.Schedule, loop: LoopRV) -> LoopRV:
    """Share the turns of `loop` among blocks of threads; the loop over threads. A single turn is
    one thread's: TVM would let others write what only that one summed."""
    turns = extent(schedule, loop)
    threads = min(THREADS, -(-turns // 32) * 32) if turns > 1 else 1
    blocks, thread = schedule.split(loop, factors=[None, threads])
    schedule.bind(blocks, "blockIdx.x")
    schedule.bind(thread, "threadIdx.x")
    return thread


def together(schedule: s_tir.Schedule, loop: LoopRV, terms: int) -> None:
    """Let the threads of a block add up the turns of `loop`, of which there are `terms`."""
    threads = 32 if terms <= 512 else 128 if terms <= 4096 else 256
    _, thread = schedule.split(loop, factors=[None, threads])
    schedule.bind(thread, "threadIdx.x")
