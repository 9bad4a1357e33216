"""Tiles of sums: how many a kernel keeps in registers, of which shape, and how they are summed."""

from __future__ import annotations

from tvm import s_tir
from tvm.s_tir.schedule import LoopRV, SBlockRV

from edgec.targets import Target
from edgec.targets.cpu.blocks import SPATIAL, extent, iter_types

_SPARE_REGISTERS = 2
"""The fewest registers that are left for operands while sums are accumulated."""

_CHAINS = 10
"""Multiply-adds under way at once that keep both units busy through their latency."""

_SPILLING = 0.6
"""What is left of the speed where sums and operands do not find room in registers."""

_UNEVEN = 0.9
"""What is left of the speed where a row's last tile has to be cut off."""


def registers_of(target: Target, lanes: int) -> int:
    """Registers that a vector of `lanes` 32-bit numbers takes."""
    return max(1, lanes * 32 // target.vector_bits)


def most_sums(target: Target, lanes: int) -> int:
    """Vectors of `lanes` sums that the registers hold beside the operands."""
    return max(1, (target.vector_registers - _SPARE_REGISTERS) // registers_of(target, lanes))


def few_sums(target: Target, lanes: int) -> int:
    """Half of them, or as many as hide the latency of multiply-add."""
    return max(most_sums(target, lanes) // 2, _CHAINS // registers_of(target, lanes))


def depthwise_columns(width: int, target: Target, lanes: int) -> int:
    """Columns of a depthwise convolution's tile: half of the registers hold its inputs."""
    most = max(1, target.vector_registers // 2 // registers_of(target, lanes))
    return tile(1, width, target, lanes, most)[1]


def tile(channels: int, width: int, target: Target, lanes: int, most: int) -> tuple[int, int]:
    """Blocks of output channels, a divisor of `channels`, and columns of `width` per tile, their
    product at most `most`.

    Each step of a sum loads every block's weights and every column's input for blocks x columns
    multiply-adds; two of each go through in a cycle, and `_CHAINS` must be under way to hide their
    latency. The last tile of a row may be in vain in part. Among equals the tile with fewer loads,
    then the larger one, is taken.
    """
    registers = registers_of(target, lanes)
    best, best_score = (1, 1), (0.0, 0, 0)
    for columns in range(1, min(width, most) + 1):
        for blocks in (1, 2, 3, 4):
            sums = blocks * columns
            if channels % blocks or sums > most:
                continue
            work = registers * sums
            efficiency = work / max(work, registers * blocks + columns, _CHAINS)
            held = min(registers * blocks + 1, registers + columns)
            if work + held > target.vector_registers:
                efficiency *= _SPILLING
            if width % columns:
                efficiency *= _UNEVEN * width / (-(-width // columns) * columns)
            score = (efficiency, sums - blocks - columns, sums)
            if score > best_score:
                best, best_score = (blocks, columns), score
    return best


def sum_in_registers(schedule: s_tir.Schedule, block: SBlockRV, target: Target) -> list[LoopRV]:
    """Arrange the sums of one tile of a blocked image: terms outside, an unrolled tile of vectors
    inside. Returns the loops over terms.

    Each column's input is used by every block before the next, with the weights of all blocks in
    registers; where these find no room beside the sums, each block's weights by every column.
    """
    kinds = iter_types(schedule, block)
    loops = schedule.get_loops(block)[-len(kinds) :]
    spatial = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == SPATIAL]
    summed = [loop for loop, kind in zip(loops, kinds, strict=True) if kind != SPATIAL]
    *outer, batch, channel, row, column, lane = spatial
    blocks, columns, lanes = (extent(schedule, loop) for loop in (channel, column, lane))
    held = registers_of(target, lanes) * blocks * (columns + 1) + 1
    inner = (column, channel) if held <= target.vector_registers else (channel, column)
    schedule.reorder(*outer, *summed, batch, row, *inner, lane)
    for loop in (batch, row, *inner):
        schedule.unroll(loop)
    schedule.vectorize(lane)
    init = schedule.decompose_reduction(block, summed[0])
    *flat, lane = schedule.get_loops(init)[-5:]
    for loop in flat:
        schedule.unroll(loop)
    schedule.vectorize(lane)
    return summed
