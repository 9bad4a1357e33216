"""The space of one kernel: all the decisions that its schedule can be built by."""

from __future__ import annotations

import json
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
from edgec.targets.cpu.knobs import Choice, Recorder, Value

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

    Decisions have a value for every knob that was asked for, but those of which the rule's own
    schedule comes are always `{}`. What TVM refuses to schedule is not in the space.

    Raises:
        TuningError: no rule can schedule the kernel.
    """

    def __init__(self, function: tirx.PrimFunc, target: Target) -> None:
        self._function, self._target = function, target
        self._columns: dict[tuple[str, str], int] = {}
        self._known: dict[str, Candidate | None] = {}
        self._rule: Candidate | None = None
        self._rule = self._run(Recorder({}))
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
        if not decisions:
            return self._rule
        key = _key(decisions)
        if key not in self._known:
            self._known[key] = self._run(Recorder(decisions))
        return self._known[key]

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
                result[self._column(choice.knob, choice.value)] = 1.0
        return result

    def _column(self, knob: str, option: str) -> int:
        return self._columns.setdefault((knob, option), len(self._columns) % FEATURES)

    def _chosen(self, decisions: Mapping[str, Value]) -> Decisions:
        """Every knob and its value."""
        found = self.candidate(decisions)
        return {choice.knob: choice.value for choice in found.choices} if found else {}

    def _drawn(self, decisions: Mapping[str, Value], rng: random.Random, rate: float) -> Decisions:
        found = self._run(_Drawing(decisions, rng, rate))
        return found.decisions if found else {}

    def _walk(self) -> Iterator[Candidate | None]:
        """What comes of each set of choices, the rule's first: beside every choice that a schedule
        made on its own, the other options are gone into."""
        paths: list[list[tuple[str, Value]]] = [[]]
        for _ in range(MOST):
            if not paths:
                return
            path = paths.pop()
            recorder = Recorder(dict(path))
            yield self._run(recorder)
            made = [(choice.knob, choice.value) for choice in recorder.choices]
            paths += [
                [*made[:place], (choice.knob, option)]
                for place, choice in reversed(list(enumerate(recorder.choices)))
                if place >= len(path)
                for option in reversed(choice.options)
                if option != choice.value
            ]

    def _run(self, recorder: Recorder) -> Candidate | None:
        """The candidate of the choices that `recorder` makes."""
        try:
            scheduled = schedule(self._function, self._target, recorder, strict=True)
        except s_tir.ScheduleError:
            return None
        choices = tuple(recorder.choices)
        decisions = {choice.knob: choice.value for choice in choices}
        key, structure = _key(decisions), tvm_ffi.structural_hash(scheduled)
        if self._rule is None or structure == self._rule.structure:
            decisions = {}
        self._known[key] = found = Candidate(decisions, choices, structure)
        return found


class _Drawing(Recorder):
    """Draws an option of each knob with probability `rate`."""

    def __init__(self, decisions: Mapping[str, Value], rng: random.Random, rate: float) -> None:
        super().__init__(decisions)
        self._rng, self._rate = rng, rate

    def choose(self, knob: str, options: Sequence[Value], rule: Value) -> Value:
        if self._rng.random() < self._rate:
            return self._rng.choice(options)
        return super().choose(knob, options, rule)


def _key(decisions: Mapping[str, Value]) -> str:
    return json.dumps(dict(decisions), sort_keys=True)
