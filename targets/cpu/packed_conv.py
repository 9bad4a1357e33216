"""Convolutions by packed codes whose scales change along the sum (`edgec.lower.packed_conv`).

    parallel for channel tile, row:
        for column tile:
            sums[column, block, lane] = 0
            for block of input channels, tap:
                part[column, block, lane] = 0
                for input channel:  part += input[column] * number(taps[block, lane])
                sums += part * scale[block, lane]
            out = tail(sums)

One scale for each output channel is no matter of the sum: `conv2d` takes those.
"""

from __future__ import annotations

from tvm import s_tir

from edgec.targets import Target
from edgec.targets.cpu.blocks import compute_blocks, extents, is_spatial
from edgec.targets.cpu.conv2d import tiles
from edgec.targets.cpu.convolution import Convolution
from edgec.targets.cpu.elementwise import vectorise_and_share
from edgec.targets.cpu.knobs import Choose
from edgec.targets.cpu.matmul import in_registers
from edgec.targets.cpu.tiles import sum_in_registers, tile


def schedule_packed_conv(schedule: s_tir.Schedule, target: Target, choose: Choose) -> bool:
    """Take kernels of one such convolution, with at most a border before and a tail after it."""
    blocks = compute_blocks(schedule)
    names = [schedule.get(block).name_hint for block in blocks]
    summed = [name for name, b in zip(names, blocks, strict=True) if not is_spatial(schedule, b)]
    if summed != ["packed_taps", "conv2d_scaled"]:
        return False
    position = names.index("packed_taps")
    part, sums, after = blocks[position], blocks[position + 1], blocks[position + 2 :]
    if len(after) > 1 or names[:position] not in ([], ["pad"]):
        return False
    output = after[0] if after else schedule.cache_write(sums, 0, "global")
    conv = Convolution(tuple(blocks[:position]), sums, output)
    _, channels, _, width, lanes = extents(schedule, output)
    blocks_in, columns = tile(channels, width, target, lanes, choose, short=True)
    for border in conv.borders:
        vectorise_and_share(schedule, border, target)
    tiles(schedule, conv, (blocks_in, 1, columns), target, choose)
    *_, tap = sum_in_registers(schedule, sums, target, choose)
    schedule.compute_at(part, tap, preserve_unit_loops=True)
    batch, block, row, column, lane, *taps, element, place = schedule.get_loops(part)[-10:]
    schedule.reorder(*taps, element, place, batch, row, column, block, lane)
    schedule.unroll(place)
    in_registers(schedule, part, 5)
    in_registers(schedule, schedule.decompose_reduction(part, element), 5)
    return True
