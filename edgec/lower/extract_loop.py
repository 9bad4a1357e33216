"""From a call of a loop's body (`edgec.lower.repeat`) to a `Repeat` over buffers.

Every carried value has one buffer, filled with the first value before the loop. The step of the
body that computes the next value writes that buffer at once, where nothing reads the old value any
more; else the body ends with a copy. Slices of scanned and yielded tensors are the tensors' own
buffers, moved from one run of the body to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from edgec.lower.repeat import Loop
from edgec.program import Buffer, Call, Move, Program, Repeat, Select, Step, reads, writes

CopyStep = Callable[[int, int, int], Step]
"""(source, target, nbytes) -> a step that copies the first bytes of a buffer."""
Body = Callable[[Sequence[int]], tuple[list[Step], Sequence[int]]]
"""Buffers of the parameters -> the steps of the body, and the buffers of its results."""


def extract_loop(
    program: Program,
    loop: Loop,
    name: str,
    arguments: Sequence[int],
    copy_step: CopyStep,
    body: Body,
    nested: bool,
) -> tuple[list[Step], tuple[int, ...]]:
    """The steps of a loop called with the buffers `arguments`, and the buffers of its results.

    New buffers, called `name`, are added to `program`. The slices of a `nested` loop's outer body
    are copied: what moves there does not move in the inner one.
    """
    return _Loop(program, loop, name, copy_step).extract(arguments, body, nested)


class _Loop:
    """`before` runs once; `first`, `steps` and `last` are the body. Buffers from number `fresh` on
    are made by the body; `renamed` has those of them that became another."""

    def __init__(self, program: Program, loop: Loop, name: str, copy_step: CopyStep) -> None:
        self.program = program
        self.loop = loop
        self.name = name
        self.copy_step = copy_step
        self.before: list[Step] = []
        self.first: list[Step] = []
        self.steps: list[Step] = []
        self.last: list[Step] = []
        self.moves: dict[int, Move] = {}
        self.renamed: dict[int, int] = {}
        self.fresh = 0

    def extract(
        self, arguments: Sequence[int], body: Body, nested: bool
    ) -> tuple[list[Step], tuple[int, ...]]:
        loop = self.loop
        split = loop.carried + len(loop.scanned)
        others = arguments[split:]
        carried = [self._copied(each, self.before) for each in arguments[: loop.carried]]
        slices = [
            self._scanned(each, backwards, others)
            for each, backwards in zip(arguments[loop.carried : split], loop.scanned, strict=True)
        ]
        if nested:
            slices = [self._copied(each, self.first) for each in slices]
        self.fresh = len(self.program.buffers)
        self.steps, results = body([*carried, *slices, *others])
        yielded = [
            self._yield(result, backwards, nested)
            for result, backwards in zip(results[loop.carried :], loop.yielded, strict=True)
        ]
        for place, result in zip(carried, results, strict=False):
            self._carry_on(place, result, carried)
        whole = (*self.first, *self.steps, *self.last)
        repeat = Repeat(loop.times, whole, tuple(self.moves.values()))
        return [*self.before, repeat], (*carried, *yielded)

    def _copied(self, source: int, steps: list[Step]) -> int:
        """A new buffer, into which `steps` copy what the body sees of `source`."""
        nbytes = self._nbytes(source)
        target = self._add(nbytes)
        steps.append(self.copy_step(source, target, nbytes))
        return target

    def _add(self, nbytes: int) -> int:
        self.program.buffers.append(Buffer(self.name, nbytes, "arena"))
        return len(self.program.buffers) - 1

    def _nbytes(self, buffer: int) -> int:
        """Bytes of a buffer as the body sees it: one slice of what moves."""
        slices = self.loop.times if buffer in self.moves else 1
        return self.program.buffers[buffer].nbytes // slices

    def _scanned(self, argument: int, backwards: bool, others: Sequence[int]) -> int:
        """The buffer of a scanned tensor: its own, unless the body sees that in another way too."""
        part = self.program.buffers[argument].within is not None
        if part or argument in self.moves or argument in others:
            whole = self._add(self.program.buffers[argument].nbytes)
            nbytes = self.program.buffers[argument].nbytes
            self.before.append(self.copy_step(argument, whole, nbytes))
            argument = whole
        self._move(argument, self.program.buffers[argument].nbytes // self.loop.times, backwards)
        return argument

    def _move(self, buffer: int, nbytes: int, backwards: bool) -> None:
        start = (self.loop.times - 1) * nbytes if backwards else 0
        self.moves[buffer] = Move(buffer, start, -nbytes if backwards else nbytes)

    def _yield(self, result: int, backwards: bool, nested: bool) -> int:
        """The buffer of a yielded tensor, a slice of which the body writes, or copies."""
        result = self.renamed.get(result, result)
        nbytes = self._nbytes(result)
        target = self._add(nbytes * self.loop.times)
        self._move(target, nbytes, backwards)
        alone = self.program.buffers[result].within is None
        if result >= self.fresh and alone and result not in self.moves and not nested:
            self._rename(result, target)
        else:
            steps = self.first if result < self.fresh else self.last
            steps.append(self.copy_step(result, target, nbytes))
        return target

    def _carry_on(self, place: int, result: int, carried: list[int]) -> None:
        """Let `place`, a carried value's buffer, hold `result` at the end of the body."""
        now = self.renamed.get(result, result)
        if result == place:
            return
        if result in carried:
            now = self._copied(result, self.first)
        elif now == result and result >= self.fresh and self._is_free(place, result):
            self._rename(result, place)
            return
        self.last.append(self.copy_step(now, place, self._nbytes(place)))

    def _is_free(self, place: int, result: int) -> bool:
        """Whether nothing reads `place` once the body begins to write `result`, unless in place."""
        if self.program.buffers[result].within is not None:
            return False
        makers = [i for i, step in enumerate(self.steps) if result in self._wholes(writes(step))]
        if not makers:
            return False
        maker, *later = self.steps[makers[0] :]
        if any(place in self._wholes(reads(step)) for step in later):
            return False
        if place not in self._wholes(reads(maker)):
            return True
        return isinstance(maker, Call) and any(
            maker.inputs[source] == place and maker.outputs[target] == result
            for source, target in maker.in_place
            if self._wholes(maker.inputs).count(place) == 1
        )

    def _wholes(self, buffers: Iterable[int]) -> list[int]:
        """The buffers that hold `buffers`."""
        return [self.program.whole(buffer)[0] for buffer in buffers]

    def _rename(self, old: int, new: int) -> None:
        self.steps = _renamed(self.steps, old, new)
        self.last = _renamed(self.last, old, new)
        for number, buffer in enumerate(self.program.buffers):
            if buffer.within == old:
                self.program.buffers[number] = replace(buffer, within=new)
        self.renamed[old] = new


def _renamed(steps: Sequence[Step], old: int, new: int) -> list[Step]:
    """`steps` with the buffer `old` replaced by `new`."""

    def number(buffer: int) -> int:
        return new if buffer == old else buffer

    def step_of(step: Step) -> Step:
        match step:
            case Call():
                inputs, outputs = map(number, step.inputs), map(number, step.outputs)
                return replace(step, inputs=tuple(inputs), outputs=tuple(outputs))
            case Repeat():
                moves = tuple(replace(move, buffer=number(move.buffer)) for move in step.moves)
                return replace(step, body=tuple(map(step_of, step.body)), moves=moves)
            case Select():
                return Select(
                    number(step.condition),
                    tuple(map(step_of, step.then)),
                    tuple(map(step_of, step.otherwise)),
                )

    return [step_of(step) for step in steps]
