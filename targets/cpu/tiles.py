"""Tiles of sums: how many a kernel keeps in registers, of which shape, and how they are summed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tvm import s_tir, tirx
from tvm.s_tir.schedule import LoopRV, SBlockRV

from edgec.targets import Target
from edgec.targets.cpu.blocks import SPATIAL, extent, iter_types, largest_divisor
from edgec.targets.cpu.knobs import Choose, number, whether

TERMS = "terms"
"""The block that puts bytes together, four or two in an integer (`edgec.lower.dot_forms`)."""

_WORDS = 4
"""In a register of Arm's."""

_PAIRED = 4
"""Columns whose weights lie together where bytes are multiplied in pairs."""

_SPARE_REGISTERS = 2
"""The fewest registers that are left for operands while sums are accumulated."""

_CHAINS = 10
"""Multiply-adds under way at once that keep both units busy through their latency."""

_LOAD = 1.15
"""Time of a load, in that of a multiply-add: some come from the second-level cache."""

_SPILLING = 0.6
"""What is left of the speed where sums and operands do not find room in registers."""

_WORTH = 0.6
"""Tiles below this share of the best one's merit are not worth trying."""

_WRITTEN = 128
"""Vectors of multiply-adds up to which a loop over terms may be written out."""

_MOST_TAPS = 64
"""Of a depthwise convolution that are written out."""

_FEW_TILES = 4
"""Tiles of a row up to which all may be written out."""

_UNEVEN, _SHORT_UNEVEN = 0.9, 0.75
"""What is left of the speed where a last tile has to be cut off."""


@dataclass(frozen=True)
class Step:
    """Instructions of a step of a sum where operands come from registers: for each vector of sums,
    for each vector of weights, and for each column; and registers that its operands take."""

    product: float
    weights: float
    column: float
    spare: int = 0


FLOATS = Step(product=1, weights=1, column=1 / 4)
_QUADS = Step(product=1, weights=1 / 2, column=3 / 4)
_PAIRS = Step(product=3, weights=1 / 2, column=9 / 4, spare=12)


def step_of(schedule: s_tir.Schedule, block: SBlockRV) -> Step:
    """What a step of the sums of `block` takes."""
    if is_paired(schedule, block):
        return _PAIRS
    staged = any(_makes_terms(schedule, each) for each in schedule.get_producers(block))
    return _QUADS if staged else FLOATS


def registers_of(target: Target, lanes: int) -> int:
    """Registers that a vector of `lanes` 32-bit numbers takes."""
    return max(1, lanes * 32 // target.vector_bits)


def most_sums(target: Target, lanes: int) -> int:
    """Vectors of `lanes` sums that the registers hold beside the operands."""
    return max(1, (target.vector_registers - _SPARE_REGISTERS) // registers_of(target, lanes))


def few_sums(target: Target, lanes: int) -> int:
    """Half of them, or as many as hide the latency of multiply-add."""
    return max(most_sums(target, lanes) // 2, _CHAINS // registers_of(target, lanes))


def depthwise_columns(width: int, target: Target, lanes: int, choose: Choose) -> int:
    """Columns of a depthwise convolution's tile: half of the registers hold its inputs."""
    most = max(1, target.vector_registers // 2 // registers_of(target, lanes))
    even = largest_divisor(width, most)
    rule = even if 2 * even > most else min(width, most)
    options = [
        columns
        for columns in range(1, min(width, most_sums(target, lanes)) + 1)
        if 4 * columns >= most and _is_even(width, columns)
    ]
    return number(choose, "columns", options, rule)


def tile(
    channels: int,
    width: int,
    target: Target,
    lanes: int,
    choose: Choose,
    *,
    step: Step = FLOATS,
    short: bool = False,
) -> tuple[int, int]:
    """Blocks of `channels` output channels and columns of `width` per tile.

    Each step of a sum loads every block's weights and every column's input for blocks x columns
    multiply-adds; two of each go through in a cycle, and `_CHAINS` must be under way to hide their
    latency. The last tile of a row, or of channels, may be in vain in part. Among equals the tile
    with fewer loads, then the larger one, is taken; where sums are `short`, small tiles that are
    never cut off do better.
    """
    most = few_sums(target, lanes) if short else most_sums(target, lanes)
    scores = {
        (blocks, columns): _score(channels, width, blocks, columns, target, lanes, step, short)
        for columns in range(1, min(width, most_sums(target, lanes)) + 1)
        for blocks in ((1, 2, 4) if channels % 2 == 0 else (1, 2, 3))
        if blocks <= channels and blocks * columns <= most_sums(target, lanes)
    }
    best = max((size for size in scores if math.prod(size) <= most), key=lambda size: scores[size])
    worth = [
        size
        for size in scores
        if scores[size][0] >= _WORTH * scores[best][0] and _is_even(width, size[1])
    ]
    blocks = number(choose, "blocks", [size[0] for size in worth], best[0])
    of_blocks = [size for size in (best, *worth) if size[0] == blocks]
    rule = best if blocks == best[0] else max(of_blocks, key=lambda size: scores[size])
    return blocks, number(choose, "columns", [size[1] for size in of_blocks], rule[1])


def _is_even(width: int, columns: int) -> bool:
    """Whether no fewer columns would cover `width` in as many tiles."""
    return columns == -(-width // -(-width // columns))


def _score(
    channels: int,
    width: int,
    blocks: int,
    columns: int,
    target: Target,
    lanes: int,
    step: Step,
    short: bool,
) -> tuple[float, int, int]:
    """How good a tile is; the first number is the share of the multiply-add units' time used."""
    registers = registers_of(target, lanes)
    sums = blocks * columns
    work = registers * sums
    if target.lane_operands:
        products = step.product * work
        operands = step.weights * registers * blocks + step.column * columns
        efficiency = products / (max(products, _CHAINS) + operands)
        held = registers * blocks + columns + step.spare
    else:
        efficiency = work / max(work, _LOAD * (registers * blocks + columns), _CHAINS)
        held = min(registers * blocks + 1, registers + columns)
    if work + held > target.vector_registers:
        efficiency *= _SPILLING
    for size, part in ((width, columns), (channels, blocks)):
        if size % part:
            uneven = _SHORT_UNEVEN if short else _UNEVEN
            efficiency *= uneven * size / (-(-size // part) * part)
    return efficiency, sums - blocks - columns, sums


def sum_in_registers(
    schedule: s_tir.Schedule,
    block: SBlockRV,
    target: Target,
    choose: Choose,
    *,
    inside: int | None = None,
) -> list[LoopRV]:
    """Arrange the sums of one tile of a blocked image: terms outside, an unrolled tile of vectors
    inside. Returns the loops over terms.

    Each column's input is used by every block before the next, with the weights of all blocks in
    registers; where these find no room beside the sums, each block's weights by every column. The
    loop over terms at the place `inside` goes inside of the columns of a single block: what
    neighbours have in common is then loaded once for all of them.
    """
    kinds = iter_types(schedule, block)
    loops = schedule.get_loops(block)[-len(kinds) :]
    spatial = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == SPATIAL]
    summed = [loop for loop, kind in zip(loops, kinds, strict=True) if kind != SPATIAL]
    *outer, batch, channel, row, column, lane = spatial
    blocks, columns, lanes = (extent(schedule, loop) for loop in (channel, column, lane))
    held = registers_of(target, lanes) * blocks * (columns + 1) + 1
    by_column = held <= target.vector_registers
    if blocks > 1 and columns > 1:
        by_column = whether(choose, "by_column", by_column)
    inner = [batch, row, *((column, channel) if by_column else (channel, column))]
    taps = [] if inside is None else [summed.pop(inside)]
    inner += taps
    if lanes > _PAIRED and is_paired(schedule, block):
        word, lane = schedule.split(lane, factors=[None, _PAIRED])
        inner.append(word)
    schedule.reorder(*outer, *summed, *inner, lane)
    for loop in inner:
        schedule.unroll(loop)
    schedule.vectorize(lane)
    init = schedule.decompose_reduction(block, summed[0])
    *flat, lane = schedule.get_loops(init)[len(taps) - len(inner) - 1 :]
    for loop in flat:
        schedule.unroll(loop)
    schedule.vectorize(lane)
    return summed


def write_out_taps(schedule: s_tir.Schedule, taps: Sequence[LoopRV]) -> None:
    """Unroll the innermost of the loops `taps`, as many as few steps allow: a mean of a whole image
    has thousands, and LLVM takes minutes for them."""
    steps = 1
    for loop in reversed(taps):
        steps *= extent(schedule, loop)
        if steps > _MOST_TAPS:
            break
        schedule.unroll(loop)


def write_out_uneven(
    schedule: s_tir.Schedule, loop: LoopRV, width: int, columns: int, target: Target
) -> None:
    """Write out a `loop` over few tiles of `columns`, of which the last is cut off at `width`:
    whether a column is there is known of each then, and not asked in every step of a sum.

    Only for processors where an instruction decides little by itself: others hide the question.
    """
    if target.lane_operands and width % columns and width <= _FEW_TILES * columns:
        schedule.unroll(loop)


def is_paired(schedule: s_tir.Schedule, block: SBlockRV) -> bool:
    """Whether a block multiplies pairs of bytes (`edgec.lower.dot_forms`)."""
    kinds = {str(region.source.dtype) for region in schedule.get(block).reads}
    return {"int16", "int32"} <= kinds


def take_terms(
    schedule: s_tir.Schedule,
    block: SBlockRV,
    inputs: tirx.Buffer,
    summed: list[LoopRV],
    sums: int,
    target: Target,
    choose: Choose,
    *,
    even: bool,
) -> None:
    """Write out some terms, the last of the `summed` loops, of `sums` vectors of sums of the tile
    that `block` computes; no tile is cut off where they are `even`.

    Where a multiply-add takes an operand from a lane of a register, the `inputs` of several terms
    are loaded at once, as vectors: a load is an instruction of its own there. Bytes that are put
    together are, for all columns of a window where its loop, the one before, can be written out.
    """
    *around, loop = summed
    terms = extent(schedule, loop)
    staged = [each for each in schedule.get_producers(block) if _makes_terms(schedule, each)]
    most = (terms,) if staged else (8, 4)
    together = next((n for n in most if terms % n == 0 and n * sums <= _WRITTEN), 1)
    if not staged and (not target.lane_operands or together == 1):
        unroll_terms(schedule, loop, sums, choose)
        return
    spare = bool(staged) and even and not is_paired(schedule, block)
    if spare and len(around) > 1 and extent(schedule, around[-1]) * terms * sums <= _WRITTEN:
        schedule.unroll(around[-1])
        schedule.unroll(loop)
        hold_inputs(schedule, block, inputs, around[-2], *staged, even=even)
        return
    outer, few = schedule.split(loop, factors=[None, together])
    schedule.unroll(few)
    hold_inputs(schedule, block, inputs, outer, *staged, even=even)


def hold_inputs(
    schedule: s_tir.Schedule,
    block: SBlockRV,
    inputs: tirx.Buffer,
    loop: LoopRV,
    *staged: SBlockRV,
    even: bool = True,
) -> None:
    """Load what an iteration of `loop` takes of the `inputs` of `block` at once, as vectors, or
    compute it where it is `staged`; for all tiles alike where they are `even`."""
    if staged:
        (held,) = staged
    else:
        index = [region.source for region in schedule.get(block).reads].index(inputs)
        held = schedule.cache_read(block, index, "global")
    around = len(schedule.get_loops(block)) - len(_inside(schedule, block, loop))
    schedule.compute_at(held, loop, preserve_unit_loops=True)
    *flat, lane = schedule.get_loops(held)[around:]
    if staged and even:
        lane = _neighbours(schedule, held, flat, lane)
    for each in flat:
        schedule.unroll(each)
    schedule.vectorize(lane)


def _neighbours(
    schedule: s_tir.Schedule, held: SBlockRV, flat: list[LoopRV], lane: LoopRV
) -> LoopRV:
    """Where words that are put together lie side by side for all columns, as many as a register
    holds: the loop over these, the others at the end of `flat`."""
    bytes_of_column = int(schedule.get(held).reads[0].source.shape[-1])
    if not flat or bytes_of_column != 4 * extent(schedule, lane):
        return lane
    across = schedule.fuse(flat.pop(), lane)
    words = math.gcd(extent(schedule, across), _WORDS)
    outer, lane = schedule.split(across, factors=[None, words])
    flat.append(outer)
    return lane


def _makes_terms(schedule: s_tir.Schedule, block: SBlockRV) -> bool:
    return bool(schedule.get(block).name_hint == TERMS)


def _inside(schedule: s_tir.Schedule, block: SBlockRV, loop: LoopRV) -> list[LoopRV]:
    """The loops around `block` that are inside of `loop`."""
    loops = list(schedule.get_loops(block))
    variables = [schedule.get(each).loop_var for each in loops]
    at = next(i for i, each in enumerate(variables) if each.same_as(schedule.get(loop).loop_var))
    return loops[at + 1 :]


def unroll_terms(schedule: s_tir.Schedule, loop: LoopRV, sums: int, choose: Choose) -> None:
    """Write out some terms of `sums` vectors of sums."""
    terms = extent(schedule, loop)
    options = [n for n in (1, 2, 4) if terms % n == 0 and n * sums <= _WRITTEN]
    together = number(choose, "terms", options, 1)
    if together > 1:
        _, few = schedule.split(loop, factors=[None, together])
        schedule.unroll(few)
