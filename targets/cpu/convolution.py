"""What kernels around one convolution of a blocked image have in common."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from tvm import s_tir
from tvm.s_tir.schedule import SBlockRV

from edgec.targets.cpu.blocks import compute_blocks, extents, is_spatial
from edgec.targets.cpu.tiles import TERMS


@dataclass(frozen=True)
class Convolution:
    """The blocks of a kernel: `sums` [n, o, i, j, v; terms], `borders` that copy the input inside
    of zeros (one or none), and `output`, which makes of a sum an element of the kernel's result.
    What puts terms together (`edgec.targets.cpu.tiles.TERMS`), goes where the sums are."""

    borders: tuple[SBlockRV, ...]
    sums: SBlockRV
    output: SBlockRV


def convolution(schedule: s_tir.Schedule, names: Collection[str]) -> Convolution | None:
    """The kernel's convolution, where its one reduction is a block of one of these `names`, with at
    most a border and its terms before and a tail after it."""
    blocks = compute_blocks(schedule)
    hints = [schedule.get(block).name_hint for block in blocks]
    reductions = [i for i, block in enumerate(blocks) if not is_spatial(schedule, block)]
    if len(reductions) != 1 or hints[reductions[0]] not in names:
        return None
    (position,) = reductions
    sums, after = blocks[position], blocks[position + 1 :]
    before = position - 1 if hints[:position][-1:] == [TERMS] else position
    if len(after) > 1 or hints[:before] not in ([], ["pad"]):
        return None
    output = after[0] if after else schedule.cache_write(sums, 0, "global")
    if extents(schedule, output) != extents(schedule, sums)[:5]:
        return None
    return Convolution(tuple(blocks[:before]), sums, output)
