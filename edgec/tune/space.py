"""The space of one kernel: all the decisions that its schedule can be built by."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import log2

import numpy as np
import tvm_ffi
from tvm import s_tir, tirx

from edgec.errors import TuningError
from edgec.targets import Target
from edgec.targets.cpu import schedule
from edgec.targets.cpu.knobs import Choice, Choose, Decided, Recorder, Value, by_rule

Decisions = dict[str, Value]

MOST = 5000
"""Schedules that `size` and `enumerate` look at."""

FEATURES = 64
"""Length of a candidate's features."""


@dataclass(frozen=True)
class Candidate:
    """One way to schedule a kernel: what was chosen, in order, and a hash of what comes of it."""

    decisions: Decisions
    choices: tuple[Choice, ...]
    structure: int


class Space:
    """All schedules of `function` for `target`.

    Decisions have a value for every knob that was asked for, unless it is "", but those of which
    the rule's own schedule comes are always `{}`. What TVM refuses to schedule is not in the space.

    Raises:
        TuningError: no rule can schedule the kernel.
    """

    def __init__(self, function: tirx.PrimFunc, target: Target) -> None:
        self._function, self._target = function, target
        self._columns: dict[tuple[str, str], int] = {}
        self._next: dict[_Path, Choice] = {}
        self._ends: dict[_Path, Candidate | None] = {}
        self._rule: Candidate | None = None
        self._rule = self._follow(by_rule)
        if self._rule is None:
            raise TuningError(
                "no rule can schedule the kernel", hint="this is a fault of edgec: please report it"
            )

    def rule(self) -> Decisions:
        """The rule's own choice."""
        return {}

    def candidate(self, decisions: Mapping[str, Value]) -> Candidate | None:
        """What comes of `decisions`; None where TVM refuses them. Knobs that they do not set are
        the rule's, those that nobody asks for are dropped."""
        return self._follow(Decided(decisions)) if decisions else self._rule

    def sample(self, rng: random.Random) -> Decisions:
        """Random decisions."""
        return self._drawn({}, rng, 1.0)

    def mutate(self, decisions: Mapping[str, Value], rng: random.Random) -> Decisions:
        """`decisions` with one or a few knobs set otherwise."""
        chosen = self._chosen(decisions)
        return self._drawn(chosen, rng, 1.5 / max(1, len(chosen)))

    def neighbours(self, decisions: Mapping[str, Value]) -> Iterator[Decisions]:
        """Decisions that differ in one knob, and in what depends on it."""
        found, chosen = self.candidate(decisions), self._chosen(decisions)
        for choice in found.choices if found else ():
            for option in choice.options:
                if option != choice.value:
                    other = self.candidate(chosen | {choice.knob: option})
                    if other is not None:
                        yield other.decisions

    def enumerate(self) -> Iterator[Decisions]:
        """Decisions of which different schedules come, the rule's first, in the order of options;
        not all of them where there are more than some thousand."""
        seen: set[int] = set()
        for found in self._walk():
            if found is not None and found.structure not in seen:
                seen.add(found.structure)
                yield found.decisions

    def size(self) -> int | None:
        """How many different schedules there are; None where there are more than some thousand."""
        every = list(self._walk())
        return None if len(every) >= MOST else len({each.structure for each in every if each})

    def structure(self, decisions: Mapping[str, Value]) -> int | None:
        """The same number for decisions of which the same schedule comes, None where none does."""
        found = self.candidate(decisions)
        return None if found is None else found.structure

    def features(self, decisions: Mapping[str, Value]) -> np.ndarray:
        """[64] float64 that tells what was chosen: the logarithm of each number, and for every
        other option whether it was taken."""
        result = np.zeros(FEATURES)
        found = self.candidate(decisions)
        for choice in found.choices if found else ():
            if isinstance(choice.value, int):
                result[self._column(choice.knob, "")] = log2(1 + choice.value)
            else:
                result[self._column(choice.knob, choice.value)] = float(choice.value != "")
        return result

    def _column(self, knob: str, option: str) -> int:
        return self._columns.setdefault((knob, option), len(self._columns) % FEATURES)

    def _chosen(self, decisions: Mapping[str, Value]) -> Decisions:
        """Every knob and its value."""
        found = self.candidate(decisions)
        return {choice.knob: choice.value for choice in found.choices} if found else {}

    def _drawn(self, decisions: Mapping[str, Value], rng: random.Random, rate: float) -> Decisions:
        """`decisions` with each knob drawn anew with probability `rate`."""
        decided = Decided(decisions)

        def choose(knob: str, options: Sequence[Value], rule: Value) -> Value:
            return rng.choice(options) if rng.random() < rate else decided(knob, options, rule)

        found = self._follow(choose)
        return found.decisions if found else {}

    def _walk(self) -> Iterator[Candidate | None]:
        """What comes of each set of choices, the rule's first: beside every choice that a schedule
        made on its own, the other options are gone into."""
        starts: list[_Path] = [()]
        for _ in range(MOST):
            if not starts:
                return
            start = starts.pop()
            yield self._follow(Decided(dict(start)))
            path, turns = start, []
            while (choice := self._next.get(path)) is not None:
                turns += [
                    (*path, (choice.knob, option))
                    for option in choice.options
                    if option != choice.rule
                ]
                path = (*path, (choice.knob, choice.rule))
            starts += reversed(turns)

    def _follow(self, choose: Choose) -> Candidate | None:
        """What comes of what `choose` says. The kernel is only scheduled where nobody went yet."""
        path: _Path = ()
        while True:
            while (choice := self._next.get(path)) is not None:
                value = choose(choice.knob, choice.options, choice.rule)
                path = (*path, (choice.knob, value))
            if path not in self._ends:
                self._explore(path)
            if path in self._ends:
                return self._ends[path]

    def _explore(self, path: _Path) -> None:
        """Schedule by `path` and then the rule, and keep what was asked and what came of it."""
        recorder = Recorder(dict(path))
        try:
            scheduled = schedule(self._function, self._target, recorder, strict=True)
        except s_tir.ScheduleError:
            scheduled = None
        choices = tuple(recorder.choices)
        end = tuple((choice.knob, choice.value) for choice in choices)
        for place, choice in enumerate(choices):
            self._next.setdefault(end[:place], choice)
        if scheduled is None:
            self._ends[end] = None
            return
        structure = tvm_ffi.structural_hash(scheduled)
        is_rule = self._rule is None or structure == self._rule.structure
        self._ends[end] = Candidate(
            {} if is_rule else {knob: value for knob, value in end if value != ""},
            choices,
            structure,
        )


_Path = tuple[tuple[str, Value], ...]
"""Knobs and values, in the order in which a schedule asks for them."""
