"""Knobs: the choices that schedules make, so that tuning may make them otherwise.

A rule asks `choose(knob, options, rule)` wherever another schedule could be faster, and goes on
with the answer. `rule` is its own choice, one of the `options`. Later knobs may depend on earlier
ones: a space is a tree, and `Recorder` tells one path of it. A space has only options that can
matter, which compile, and whose sums find room in registers or nearly so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

SPACE_VERSION = 1
"""Raised when decisions of an older edgec mean something else, or are no option any more."""

Value = int | str


class Choose(Protocol):
    """Sets a knob to one of its options."""

    def __call__(self, knob: str, options: Sequence[Value], rule: Value) -> Value: ...


def by_rule(knob: str, options: Sequence[Value], rule: Value) -> Value:
    """The rule's own choice."""
    return rule


class Decided:
    """Chooses as `decisions` say. Of knobs that they do not have, or for which they have no option,
    as those of another space might, the rule's choice stands."""

    def __init__(self, decisions: Mapping[str, Value]) -> None:
        self._decisions = decisions

    def __call__(self, knob: str, options: Sequence[Value], rule: Value) -> Value:
        value = self._decisions.get(knob, rule)
        return value if value in options else rule


@dataclass(frozen=True)
class Choice:
    """What was asked for a knob, and what was chosen."""

    knob: str
    options: Sequence[Value]
    rule: Value
    value: Value


class Recorder(Decided):
    """Chooses as `Decided` does, and notes every choice in order."""

    def __init__(self, decisions: Mapping[str, Value]) -> None:
        super().__init__(decisions)
        self.choices: list[Choice] = []

    def __call__(self, knob: str, options: Sequence[Value], rule: Value) -> Value:
        value = super().__call__(knob, options, rule)
        self.choices.append(Choice(knob, options, rule, value))
        return value


def under(prefix: str, choose: Choose) -> Choose:
    """`choose` for one of several parts of a kernel: its knobs are called `prefix.knob`."""

    def chosen(knob: str, options: Sequence[Value], rule: Value) -> Value:
        return choose(f"{prefix}.{knob}", options, rule)

    return chosen


def number(choose: Choose, knob: str, options: Sequence[int], rule: int) -> int:
    """An integer knob; the rule's choice is added to the options where it is missing."""
    return int(choose(knob, sorted({*options, rule}), rule))


def whether(choose: Choose, knob: str, rule: bool) -> bool:
    """A knob that is 0 or 1."""
    return bool(choose(knob, (0, 1), int(rule)))
