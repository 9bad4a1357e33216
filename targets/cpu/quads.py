"""Bytes that were transposed, in fours (`edgec.lower.integer_matmul`): a matrix of 32-bit words is
transposed.

    parallel for matrices, words / lanes, columns / lanes:
        for columns % lanes, words % lanes:  out[word, column] = x[column, word]
"""

from __future__ import annotations

import math

from tvm import s_tir

from edgec.targets import Target
from edgec.targets.cpu.blocks import compute_blocks, extents
from edgec.targets.cpu.knobs import Choose
from edgec.targets.cpu.sharing import iterations_pay


def schedule_quads(schedule: s_tir.Schedule, target: Target, choose: Choose) -> bool:
    """Take kernels of one block `quads_across` [..., strips, words, columns]."""
    blocks = compute_blocks(schedule)
    if [schedule.get(block).name_hint for block in blocks] != ["quads_across"]:
        return False
    sizes = extents(schedule, blocks[0])
    if 0 in sizes:
        return False
    lanes = target.vector_bits // 32
    *outer, word, column = schedule.get_loops(blocks[0])
    word, words = schedule.split(word, factors=[None, math.gcd(sizes[-2], lanes)])
    column, columns = schedule.split(column, factors=[None, math.gcd(sizes[-1], lanes)])
    schedule.reorder(*outer, word, column, columns, words)
    shared = schedule.fuse(*outer, word, column)
    if iterations_pay(math.prod(sizes), choose):
        schedule.parallel(shared)
    schedule.unroll(columns)
    schedule.vectorize(words)
    return True
