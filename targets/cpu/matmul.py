"""Matrix products: rows of A by columns of B, the sums of a tile in registers.

    parallel for columns / (vectors * lanes), rows / tile:
        sums[row, vector, lane] = 0
        for k / run:
            part[row, vector, lane] = 0
            for k % run:  part += a[row, k] * b[k, vector, lane]
            sums += part
        out = tail(sums)

A constant B is stored panel by panel (`edgec.lower.matmul`); any other is read in place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from tvm import s_tir, tirx
from tvm.s_tir.schedule import LoopRV, SBlockRV

from edgec.targets import Target
from edgec.targets.cpu.blocks import (
    SPATIAL,
    compute_blocks,
    extent,
    extents,
    is_spatial,
    iter_types,
    largest_divisor,
)
from edgec.targets.cpu.elementwise import vectorise_and_share
from edgec.targets.cpu.knobs import Choose, by_rule, number, whether
from edgec.targets.cpu.prefetch import mark
from edgec.targets.cpu.sharing import products_pay
from edgec.targets.cpu.tiles import hold_inputs, is_paired, step_of, unroll_terms

_PANELS = (48, 32, 64, 16)
_VECTOR_PANELS = (64, 48, 32, 16)
"""Widths of panels, in order of preference. A single row has no other sums to hide the latency of
multiply-add behind, so it takes more columns."""

_MOST_COLUMNS = 64
_MOST_ROWS = 14
_LATENCY = 4
"""Cycles from a multiply-add to the next on the same sum, of which two begin in each cycle."""

_LONGEST_RUN = 128
"""Terms that are added one after the other, as in ONNX Runtime's products: longer runs round too
often, and differ more from its results."""

_STREAMED_BYTES = 256 << 10
"""Panels above this come from memory in every run: then the next one is prefetched."""

_WORTH = 0.6
"""Tiles below this share of the best one's merit are not worth trying."""

_EVEN_STRIPS = 8
_RANK_OF_PANELS = 3
_STEP = 4
"""Terms between prefetches, and those that a vector of A holds."""

_BYTES_PER_CYCLE = 29
"""What the second level of caches delivers, as measured."""


def panel(rows: int, columns: int) -> int:
    """Columns of B that are stored together: a divisor of `columns`."""
    for width in _PANELS if rows > 1 else _VECTOR_PANELS:
        if columns % width == 0:
            return width
    if columns % 4 == 0:
        return 4 * largest_divisor(columns // 4, _MOST_COLUMNS // 4)
    return largest_divisor(columns, _MOST_COLUMNS // 2)


def whole_tiles(rows: int) -> int:
    """The least number of rows from `rows` on that tiles of 6 to 14 rows divide."""
    if rows <= _MOST_ROWS:
        return rows
    return next(n for n in range(rows, rows + 8) if any(n % d == 0 for d in range(6, 15)))


def tile(
    rows: int, vectors: int, target: Target, choose: Choose = by_rule, *, spare: int = 0
) -> tuple[int, int]:
    """Rows and vectors of columns in a tile, divisors of `rows` and `vectors`, which leaves `spare`
    registers.

    A step of the sum takes as long as its multiply-adds, the loads of both operands, the latency of
    a sum, or its vectors of B, whichever is longest. Of tiles that keep the processor as busy, that
    is best which loads least.
    """
    registers = target.vector_registers - (1 if target.fuses_multiply_add else 2) - spare
    cycles_per_vector = target.vector_bits / 8 / _BYTES_PER_CYCLE

    def merit(size: tuple[int, int]) -> tuple[float, float]:
        r, v = size
        cycles = max(r * v / 2, (r + v) / 2, _LATENCY, cycles_per_vector * v)
        return round(r * v / cycles, 2), r * v / (r + v)

    def fits(r: int, v: int) -> bool:
        operands = v + r - 1 if target.lane_operands else v
        return r * v + operands <= registers or r * v == 1

    fitting = [
        (r, v)
        for r in range(1, min(rows, _MOST_ROWS) + 1)
        for v in range(1, vectors + 1)
        if rows % r == 0 and vectors % v == 0 and fits(r, v)
    ]
    return best_of(fitting, merit, choose)


def best_of(
    fitting: Sequence[tuple[int, int]],
    merit: Callable[[tuple[int, int]], tuple[float, float]],
    choose: Choose,
) -> tuple[int, int]:
    """Rows and vectors of the tile with most merit, or those that the knobs say."""
    best = max(fitting, key=merit)
    worth = [size for size in fitting if merit(size)[0] >= _WORTH * merit(best)[0]]
    r = number(choose, "rows", [size[0] for size in worth], best[0])
    of_rows = [size for size in worth if size[0] == r]
    rule = best if r == best[0] else max(of_rows, key=merit)
    return r, number(choose, "vectors", [size[1] for size in of_rows], rule[1])


def schedule_matmul(schedule: s_tir.Schedule, target: Target, choose: Choose) -> bool:
    """Take kernels whose one reduction is a product of matrices, with at most one tail; one that
    reads what other blocks make, too, runs after all of them."""
    blocks = compute_blocks(schedule)
    reductions = [block for block in blocks if not is_spatial(schedule, block)]
    if [schedule.get(block).name_hint for block in reductions] not in (
        ["matmul"],
        ["matmul_packed"],
    ):
        return False
    product = reductions[0]
    names = [schedule.get(block).name_hint for block in blocks]
    position = names.index(schedule.get(product).name_hint)
    after = blocks[position + 1 :]
    kinds, sizes = iter_types(schedule, product), extents(schedule, product)
    if len(after) > 1 or kinds[-1] == 0 or len(kinds) < 2 or 0 in sizes:
        return False
    if after and not covers(sizes[:-1], extents(schedule, after[0])):
        return False
    apart = [block for block in after if len(schedule.get_producers(block)) > 1]
    for block in (*blocks[:position], *apart):
        vectorise_and_share(schedule, block, target)
    fused = after and not apart
    output = after[0] if fused else schedule.cache_write(product, 0, "global")
    _tile(schedule, product, output, target, choose)
    return True


def covers(sums: list[int], output: list[int]) -> bool:
    """Whether the sums are those of the output, rows beyond its last apart."""
    if len(sums) != len(output):
        return False
    differing = [axis for axis, (a, b) in enumerate(zip(sums, output, strict=True)) if a != b]
    return not differing or (differing == [len(sums) - 2] and sums[-2] > output[-2])


def _tile(
    schedule: s_tir.Schedule, product: SBlockRV, output: SBlockRV, target: Target, choose: Choose
) -> None:
    *lead, columns, terms = extents(schedule, product)
    work = math.prod(extents(schedule, product))
    packed = schedule.get(product).name_hint == "matmul_packed"
    panels = schedule.get(product).reads[1].source
    width = int(panels.shape[-1]) if packed else columns
    lanes = lanes_of(width, target.vector_bits // 32)
    spare = step_of(schedule, product).spare
    rows, vectors = tile(lead[-1] if lead else 1, width // lanes, target, choose, spare=spare)
    parts = _in_runs(schedule, product, terms)
    *outer, column, summed = schedule.get_loops(product)
    strip, vector, lane = schedule.split(column, factors=[None, vectors, lanes])
    inner = [vector, lane]
    if lead:
        outer[-1], row = schedule.split(outer[-1], factors=[None, rows])
        inner.insert(0, row)
    tiles = [*outer[:-1], strip, *outer[-1:]]
    schedule.reorder(*tiles, summed, *inner)
    streamed = packed and vectors * lanes == width and _is_streamed(schedule, panels, strip, outer)
    if packed and vectors * lanes == width and outer and extent(schedule, outer[-1]) > 1:
        streamed = whether(choose, "streamed", streamed)
    shared = schedule.fuse(*(tiles[:-1] if streamed else tiles)) if len(tiles) > 1 else strip
    turn = outer[-1] if streamed else shared
    if products_pay(work, target, choose):
        schedule.parallel(shared)
    schedule.reverse_compute_at(output, turn, preserve_unit_loops=True)
    schedule.split(schedule.get_loops(output)[-1], factors=[None, lanes])
    block, term = _accumulate(schedule, product, summed, parts, len(inner), lanes)
    in_registers(schedule, output, len(inner))
    step = _take_lanes(schedule, block, panels, term, target)
    if streamed:
        if step is None:
            few = math.gcd(extent(schedule, term), _STEP)
            step, _ = schedule.split(term, factors=[None, few])
        weights = [region.source for region in schedule.get(block).reads].index(panels)
        ahead = number(choose, "prefetch", (0, 1), 1)
        mark(schedule, part=shared, turn=turn, step=step, reads=weights, terms=terms, ahead=ahead)
    elif step is None:
        unroll_terms(schedule, term, rows * vectors, choose)


def _take_lanes(
    schedule: s_tir.Schedule, block: SBlockRV, b: tirx.Buffer, term: LoopRV, target: Target
) -> LoopRV | None:
    """Where a multiply-add takes an operand from a lane of a register, load several terms of A at
    once, as vectors; returns the loop over such steps, None where there is none."""
    sums = schedule.get(block).writes[0].source
    read = [region.source for region in schedule.get(block).reads]
    a = [source for source in read if not source.same_as(b) and not source.same_as(sums)]
    if not target.lane_operands or extent(schedule, term) % _STEP or len(a) != 1:
        return None
    most = 1 if is_paired(schedule, block) else 2
    turns = math.gcd(extent(schedule, term) // _STEP, most)
    step, turn, few = schedule.split(term, factors=[None, turns, _STEP])
    schedule.unroll(turn)
    schedule.unroll(few)
    hold_inputs(schedule, block, a[0], turn)
    return step


def tile_of(schedule: s_tir.Schedule, product: SBlockRV, target: Target) -> tuple[int, int, int]:
    """Rows, vectors of columns and lanes of a tile of the product [..., rows, columns; terms]."""
    *_, rows, columns, _ = extents(schedule, product)
    lanes = lanes_of(columns, target.vector_bits // 32)
    return *tile(rows, columns // lanes, target), lanes


def sum_in_tiles(
    schedule: s_tir.Schedule, product: SBlockRV, output: SBlockRV, target: Target
) -> None:
    """Compute `product` tile by tile where `output` stores it, within the two innermost loops of
    that, over some rows and all columns."""
    *_, row, column = schedule.get_loops(output)
    *_, lanes = tile_of(schedule, product, target)
    rows, vectors = tile(extent(schedule, row), extent(schedule, column) // lanes, target)
    parts = _in_runs(schedule, product, extents(schedule, product)[-1])
    row, row_in = schedule.split(row, factors=[None, rows])
    strip, vector, lane = schedule.split(column, factors=[None, vectors, lanes])
    schedule.reorder(strip, row, row_in, vector, lane)
    schedule.compute_at(product, row, preserve_unit_loops=True)
    kinds = iter_types(schedule, product)
    loops = list(zip(kinds, schedule.get_loops(product)[-len(kinds) :], strict=True))
    (summed,) = (loop for kind, loop in loops if kind != SPATIAL)
    *_, row, column = (loop for kind, loop in loops if kind == SPATIAL)
    vector, lane = schedule.split(column, factors=[None, lanes])
    schedule.reorder(summed, row, vector, lane)
    b = schedule.get(product).reads[1].source
    block, term = _accumulate(schedule, product, summed, parts, 3, lanes)
    in_registers(schedule, output, 3)
    _take_lanes(schedule, block, b, term, target)


def _accumulate(
    schedule: s_tir.Schedule,
    product: SBlockRV,
    summed: LoopRV,
    parts: list[SBlockRV],
    depth: int,
    lanes: int,
) -> tuple[SBlockRV, LoopRV]:
    """Sum a tile, the `depth` innermost loops of `product`, in registers, over the loop `summed`
    outside of it, short runs apart (`_in_runs`); returns the block of multiply-adds and its loop
    over terms."""
    sums = [(product, summed)]
    for part in parts:
        schedule.compute_at(part, summed, preserve_unit_loops=True)
        *_, column, term = schedule.get_loops(part)
        schedule.split(column, factors=[None, lanes])
        schedule.reorder(term, *schedule.get_loops(part)[-depth - 1 : -1])
        sums.append((part, term))
    for block, _ in sums:
        in_registers(schedule, block, depth)
    for block, loop in reversed(sums):
        in_registers(schedule, schedule.decompose_reduction(block, loop), depth)
    return sums[-1]


def _is_streamed(
    schedule: s_tir.Schedule, panels: tirx.Buffer, strip: LoopRV, outer: list[LoopRV]
) -> bool:
    """Whether B's panels are too many to stay in the cache from one run to the next, each used by
    several tiles of rows, and so many that threads can share them evenly. A batch of them was
    computed just now."""
    if len(panels.shape) > _RANK_OF_PANELS:
        return False
    strips = math.prod(extent(schedule, loop) for loop in (*outer[:-1], strip))
    return (
        4 * math.prod(int(size) for size in panels.shape) >= _STREAMED_BYTES
        and bool(outer)
        and extent(schedule, outer[-1]) > 1
        and (strips % 2 == 0 or strips > _EVEN_STRIPS)
    )


def _in_runs(schedule: s_tir.Schedule, product: SBlockRV, terms: int) -> list[SBlockRV]:
    """Leave to `product` only to add up the sums of short runs of terms, of a new block.

    Rounding errors then grow with the length and the number of runs, not with their product.
    """
    run = largest_divisor(terms, _LONGEST_RUN)
    if run == terms or run < _LONGEST_RUN // 4:
        return []
    each, _ = schedule.split(schedule.get_loops(product)[-1], factors=[None, run])
    return [schedule.rfactor(each, factor_axis=0)]


def in_registers(schedule: s_tir.Schedule, block: SBlockRV, depth: int) -> None:
    """Unroll the innermost `depth` loops of `block`, the last of which becomes a vector."""
    *unrolled, lane = schedule.get_loops(block)[-depth:]
    for loop in unrolled:
        schedule.unroll(loop)
    if extent(schedule, lane) > 1:
        schedule.vectorize(lane)


def lanes_of(width: int, most: int) -> int:
    """Lanes of a vector, so that whole ones make up `width`; all of it where only short ones do."""
    lanes = width if width <= most else math.gcd(width, most)
    return lanes if lanes >= 4 else width
