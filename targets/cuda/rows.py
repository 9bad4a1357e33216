"""Kernels that work row by row: softmax, normalisations. A block of threads takes a row.

    block = row
        thread: partial sums of x[k], added up across threads
        thread: out[k] = f(x[k], total)

What the stages of a row hand on stays in shared memory.
"""

from __future__ import annotations

import math

from tvm import s_tir

from edgec.targets.cpu.blocks import compute_blocks, extents, is_output, is_spatial
from edgec.targets.cuda.generic import fused

_SHARED_BYTES = 32 << 10


def schedule_rows(schedule: s_tir.Schedule) -> bool:
    """Take stages of several blocks whose reductions run over the last axis of the output."""
    blocks = compute_blocks(schedule)
    if len(blocks) < 2 or any(len(schedule.get(b).writes) != 1 for b in blocks):
        return False
    *others, output = blocks
    if not is_spatial(schedule, output) or any(is_output(schedule, block) for block in others):
        return False
    sizes = extents(schedule, output)
    lead = sizes[:-1]
    if not lead or any(extents(schedule, block)[: len(lead)] != lead for block in others):
        return False
    if any(len(extents(schedule, block)) > len(sizes) for block in others):
        return False
    if any(len(schedule.get_loops(b)) != len(extents(schedule, b)) for b in blocks):
        return False
    held = sum(math.prod(extents(schedule, block)[len(lead) :]) for block in others)
    if 4 * held > _SHARED_BYTES or 0 in sizes or sizes[-1] == 1:
        return False
    width = max(math.prod(extents(schedule, block)[len(lead) :]) for block in blocks)
    threads = min(256, max(32, 1 << (width - 1).bit_length()))
    loops = schedule.get_loops(output)
    row = schedule.fuse(*loops[:-1]) if len(lead) > 1 else loops[0]
    schedule.bind(row, "blockIdx.x")
    _, thread = schedule.split(loops[-1], factors=[None, threads])
    schedule.bind(thread, "threadIdx.x")
    for block in reversed(others):
        schedule.set_scope(block, 0, "shared")
        schedule.compute_at(block, row)
        own = schedule.get_loops(block)[1:]
        if own:
            _, thread = schedule.split(fused(schedule, block, own), factors=[None, threads])
            schedule.bind(thread, "threadIdx.x")
    return True
