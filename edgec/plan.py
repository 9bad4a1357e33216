"""Memory planning: the order of steps, lifetimes, and one arena for everything in between.

The order is chosen to lower the peak of live bytes; offsets are chosen so that the arena stays
close to that peak, which is a lower bound for every placement. Both problems are NP-hard in general
(Sethi 1975; Garey and Johnson 1979, "dynamic storage allocation"), so a few good heuristics run and
the best result is kept. Everything here is deterministic.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace

from edgec.order import last_use_first, smallest_growth_first
from edgec.program import Call, Program, Repeat, Select, Step, aligned, calls_in, reads, writes

_IMPROVEMENTS = 400
"""Placement orders tried when the simple ones leave the arena above its bound."""


@dataclass(frozen=True)
class Plan:
    """Where everything lives.

    `offsets` gives the arena offset in bytes of each arena buffer that is within no other; buffers
    that share memory share an offset. `bound_bytes` is the peak of live bytes in the chosen order:
    no arena can be smaller. `given_bound_bytes` is the same for the order that lowering produced.
    `in_place` has the variants of kernels that overwrite an input, by the name that steps call
    them.
    """

    program: Program
    offsets: dict[int, int]
    arena_bytes: int
    bound_bytes: int
    given_bound_bytes: int
    in_place: dict[str, Overwrite]


@dataclass(frozen=True)
class Overwrite:
    """A kernel's variant that writes its parameter `target` where its parameter `source` was."""

    kernel: str
    source: int
    target: int

    @property
    def name(self) -> str:
        """What the variant is called."""
        return f"{self.kernel}_over_{self.source}"


@dataclass(frozen=True)
class _Block:
    """Arena memory that is live from step `start` to step `stop`, both included."""

    members: tuple[int, ...]
    nbytes: int
    start: int
    stop: int

    def overlaps(self, other: _Block) -> bool:
        return self.start <= other.stop and other.start <= self.stop


def plan(program: Program) -> Plan:
    """Order the steps of `program` and place its buffers."""
    given, given_merged = _blocks(program, program.steps)
    given_bound = _peak(given)
    steps, blocks, merged = list(program.steps), given, given_merged
    for order in (smallest_growth_first(program), last_use_first(program)):
        candidate, candidate_merged = _blocks(program, order)
        if _peak(candidate) < _peak(blocks):
            steps, blocks, merged = order, candidate, candidate_merged
    bound = _peak(blocks)
    offsets, arena = _place(blocks, bound)
    return Plan(
        program=replace(program, steps=_named(steps, merged)),
        offsets={member: offset for block, offset in offsets.items() for member in block.members},
        arena_bytes=arena,
        bound_bytes=bound,
        given_bound_bytes=given_bound,
        in_place={o.name: o for o in (*merged.values(), *_overwrites(steps))},
    )


def _named(steps: list[Step], merged: dict[int, Overwrite]) -> list[Step]:
    """The steps, those that overwrite an input calling the variant that does."""

    def inner(step: Step) -> Step:
        match step:
            case Call():
                overwrite = _overwrite(step)
                return replace(step, kernel=overwrite.name) if overwrite else step
            case Repeat():
                return replace(step, body=tuple(map(inner, step.body)))
            case Select():
                then, otherwise = map(inner, step.then), map(inner, step.otherwise)
                return Select(step.condition, tuple(then), tuple(otherwise))

    return [
        replace(step, kernel=merged[index].name)
        if isinstance(step, Call) and index in merged
        else inner(step)
        for index, step in enumerate(steps)
    ]


def _overwrites(steps: list[Step]) -> Iterator[Overwrite]:
    """The variants that calls of `steps` need to write a buffer that they read."""
    yield from filter(None, map(_overwrite, calls_in(steps)))


def _overwrite(call: Call) -> Overwrite | None:
    """The variant of a kernel that is called with one buffer as an input and as an output."""
    for source, target in call.in_place:
        if call.inputs[source] == call.outputs[target]:
            return Overwrite(call.kernel, source, len(call.inputs) + target)
    return None


def _blocks(program: Program, steps: list[Step]) -> tuple[list[_Block], dict[int, Overwrite]]:
    """Lifetimes of the arena buffers under an order of steps, and which steps, by position, write
    over an input: such buffers are merged."""
    arena = program.arena().keys()
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for index, step in enumerate(steps):
        for buffer in program.wholes(writes(step)) & arena:
            first.setdefault(buffer, index)
            last[buffer] = index
        for buffer in program.wholes(reads(step)) & arena:
            last[buffer] = index
    kept = (*(s.output for s in program.states), *(e.count for e in program.extents))
    for buffer in arena & program.wholes(kept):
        last[buffer] = len(steps)

    leader = {buffer: buffer for buffer in first}
    merged: dict[int, Overwrite] = {}

    def root(buffer: int) -> int:
        while leader[buffer] != buffer:
            buffer = leader[buffer]
        return buffer

    for index, step in enumerate(steps):
        if not isinstance(step, Call):
            continue
        for source_position, target_position in step.in_place:
            source, target = step.inputs[source_position], step.outputs[target_position]
            if source not in first or target not in first or root(target) != target:
                continue
            dies_here = last[root(source)] == index and first[target] == index
            fits = aligned(program.buffers[source].nbytes) == aligned(
                program.buffers[target].nbytes
            )
            alone = [program.whole(each)[0] for each in step.inputs].count(source) == 1
            if dies_here and fits and alone:
                leader[target] = root(source)
                last[root(source)] = last[target]
                merged[index] = Overwrite(
                    step.kernel, source_position, len(step.inputs) + target_position
                )
                break

    members: dict[int, list[int]] = defaultdict(list)
    for buffer in first:
        members[root(buffer)].append(buffer)
    blocks = [
        _Block(
            members=tuple(group),
            nbytes=aligned(max(program.buffers[b].nbytes for b in group)),
            start=min(first[b] for b in group),
            stop=max(last[b] for b in group),
        )
        for group in members.values()
    ]
    return blocks, merged


def _peak(blocks: list[_Block]) -> int:
    """The largest sum of live bytes over all steps."""
    change: dict[int, int] = defaultdict(int)
    for block in blocks:
        change[block.start] += block.nbytes
        change[block.stop + 1] -= block.nbytes
    live = peak = 0
    for index in sorted(change):
        live += change[index]
        peak = max(peak, live)
    return peak


def _place(blocks: list[_Block], bound: int) -> tuple[dict[_Block, int], int]:
    """Offsets without overlap, and the arena they need; tries orders until `bound` is reached."""
    neighbours = {
        block: [other for other in blocks if other is not block and other.overlaps(block)]
        for block in blocks
    }
    orders = [
        sorted(blocks, key=lambda b: (-b.nbytes, b.start)),
        sorted(blocks, key=lambda b: (-b.nbytes * (b.stop - b.start + 1), b.start)),
        sorted(blocks, key=lambda b: (b.start, -b.nbytes)),
        sorted(blocks, key=lambda b: (b.start - b.stop, -b.nbytes, b.start)),
    ]
    best: dict[_Block, int] = {}
    best_size, best_order = -1, orders[0]
    for order in orders:
        offsets, size = _first_fit(order, neighbours)
        if best_size < 0 or size < best_size:
            best, best_size, best_order = offsets, size, order
    chance = random.Random(len(blocks))
    for _ in range(_IMPROVEMENTS if len(blocks) > 2 else 0):
        if best_size <= bound:
            break
        order = list(best_order)
        i, j = chance.randrange(len(order)), chance.randrange(len(order))
        order.insert(i, order.pop(j))
        offsets, size = _first_fit(order, neighbours)
        if size <= best_size:
            best, best_size, best_order = offsets, size, order
    return best, max(best_size, 0)


def _first_fit(
    order: list[_Block], neighbours: dict[_Block, list[_Block]]
) -> tuple[dict[_Block, int], int]:
    """Each block in turn at the lowest offset that is free throughout its life."""
    offsets: dict[_Block, int] = {}
    size = 0
    for block in order:
        taken = sorted(
            (offsets[other], offsets[other] + other.nbytes)
            for other in neighbours[block]
            if other in offsets
        )
        offset = 0
        for low, high in taken:
            if offset + block.nbytes <= low:
                break
            offset = max(offset, high)
        offsets[block] = offset
        size = max(size, offset + block.nbytes)
    return offsets, size
