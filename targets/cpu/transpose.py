"""Kernels that read along another axis than they write: transposed copies.

Square tiles of a vector's width are read along the one axis and written along the other, so that a
cache line is used whole while it is there; LLVM turns such a tile in registers.

    parallel for i / lanes, j / lanes:
        for j % lanes, i % lanes:  out[i, j] = x[j, i]
"""

from __future__ import annotations

import math

from tvm import s_tir, sym
from tvm.ir import Range
from tvm.s_tir.schedule import SBlockRV
from tvm.tirx import IntImm

from edgec.targets import Target
from edgec.targets.cpu.blocks import compute_blocks, extents, is_spatial
from edgec.targets.cpu.knobs import Choose, number
from edgec.targets.cpu.sharing import iterations_pay

_LEAST_TILE = 4


def schedule_transpose(schedule: s_tir.Schedule, target: Target, choose: Choose) -> bool:
    """Take kernels of one block that reads one tensor of as many elements, along another axis."""
    blocks = compute_blocks(schedule)
    if len(blocks) != 1 or not is_spatial(schedule, blocks[0]):
        return False
    (block,) = blocks
    sizes = extents(schedule, block)
    steps = _steps(schedule, block)
    if 0 in sizes or not steps or steps[-1] in (0, 1) or 1 not in steps:
        return False
    along = steps.index(1)
    lanes = target.vector_bits // 32
    height, width = (math.gcd(sizes[axis], lanes) for axis in (-1, along))
    if min(height, width) < _LEAST_TILE:
        return False
    height, width = (
        number(choose, knob, [n for n in (4, 8, 16) if size % n == 0], size)
        for knob, size in (("height", height), ("width", width))
    )
    loops = schedule.get_loops(block)
    loops[along], lane = schedule.split(loops[along], factors=[None, width])
    loops[-1], row = schedule.split(loops[-1], factors=[None, height])
    schedule.reorder(*loops, row, lane)
    shared = schedule.fuse(*loops)
    if iterations_pay(math.prod(sizes), choose):
        schedule.parallel(shared)
    schedule.unroll(row)
    schedule.vectorize(lane)
    return True


def _steps(schedule: s_tir.Schedule, block: SBlockRV) -> list[int]:
    """How far the element read moves with each axis of `block`; empty where that varies, or more
    than one tensor is read."""
    stmt = schedule.get(block)
    if len(stmt.reads) != 1 or len(stmt.writes) != 1:
        return []
    (read,) = stmt.reads
    variables = [each.var for each in stmt.iter_vars]
    if any(not isinstance(item.extent, IntImm) or item.extent.value != 1 for item in read.region):
        return []
    if not all(
        item.min.same_as(var) for item, var in zip(stmt.writes[0].region, variables, strict=False)
    ):
        return []
    analyzer = sym.Analyzer()
    for each in stmt.iter_vars:
        analyzer.bind(each.var, Range.from_min_extent(each.dom.min, each.dom.extent))
    place, stride = 0, 1
    for item, size in zip(reversed(read.region), reversed(read.source.shape), strict=True):
        place, stride = place + item.min * stride, stride * int(size)
    found = sym.detect_linear_equation(analyzer.simplify(place), variables)
    return [int(step) for step in found[:-1]] if found else []
