"""Transposed convolutions on blocked images (`edgec.lower.blocked_transpose`).

A tile is a few columns of the input times all phases of the stride: the phases read the same
inputs. Its sums stay in registers over the whole reduction, and are written side by side.

    parallel for image, block of output channels, input row:
        border = the input's rows, padded
        for column tile:
            sums[phase, column, phase, lane] = 0
            for input channel, tap:  sums += border[column] * taps[phase, phase, lane]
            out = tail(sums)
"""

from __future__ import annotations

import math

from tvm import s_tir

from edgec.targets import Target
from edgec.targets.cpu.blocks import extents, largest_divisor
from edgec.targets.cpu.convolution import Convolution, convolution
from edgec.targets.cpu.knobs import Choose, number
from edgec.targets.cpu.sharing import products_pay
from edgec.targets.cpu.tiles import most_sums, sum_in_registers


def schedule_conv_transpose(schedule: s_tir.Schedule, target: Target, choose: Choose) -> bool:
    """Take kernels whose one reduction is a transposed convolution, with at most one tail."""
    conv = convolution(schedule, ("conv2d_transpose_blocked",))
    if conv is None:
        return False
    _schedule(schedule, conv, target, choose)
    return True


def _schedule(schedule: s_tir.Schedule, conv: Convolution, target: Target, choose: Choose) -> None:
    strides = [int(stride) for stride in schedule.get(conv.sums).annotations["strides"]]
    *_, height, width, lanes = extents(schedule, conv.output)
    rows, columns = tile(height, width, strides, most_sums(target, lanes), choose)
    image, block, row, column, lane = schedule.get_loops(conv.output)
    row, row_in = schedule.split(row, factors=[None, rows])
    column, column_in = schedule.split(column, factors=[None, columns])
    schedule.reorder(image, block, row, column, row_in, column_in, lane)
    shared = schedule.fuse(image, block, row)
    if products_pay(math.prod(extents(schedule, conv.sums)), target, choose):
        schedule.parallel(shared)
    for loop in (row_in, column_in):
        schedule.unroll(loop)
    schedule.vectorize(lane)
    schedule.compute_at(conv.sums, column, preserve_unit_loops=True)
    for border in conv.borders:
        schedule.compute_at(border, shared, preserve_unit_loops=True)
        if len(extents(schedule, border)) == 5:
            schedule.vectorize(schedule.get_loops(border)[-1])
    _, *taps = sum_in_registers(schedule, conv.sums, target, choose)
    for tap in taps[:2]:
        schedule.unroll(tap)


def tile(height: int, width: int, strides: list[int], sums: int, choose: Choose) -> tuple[int, int]:
    """Rows and columns of the output per tile: whole phases where `sums` vectors hold them."""
    rows = strides[0] if height % strides[0] == 0 and math.prod(strides) <= sums else 1
    unit = strides[1] if width % strides[1] == 0 and rows * strides[1] <= sums else 1
    most = max(1, sums // (rows * unit))
    turns = [n for n in range(1, most + 1) if (width // unit) % n == 0]
    return rows, unit * number(choose, "columns", turns, largest_divisor(width // unit, most))
