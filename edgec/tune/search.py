"""Which candidates of a space to measure next.

The rule's own choice is the first, so that a search never ends with less. Next comes what it was
advised, then neighbours of the rule, then what a cost model expects the most of, given all times so
far. Candidates are drawn at random and near the best, a few more each time, until all of the space
are known.
"""

from __future__ import annotations

import itertools
import math
import random
from collections import deque
from collections.abc import Iterator, Mapping

import numpy as np

from edgec.targets.cpu.knobs import Value
from edgec.tune.costmodel import CostModel, expected_gain
from edgec.tune.space import Decisions, Space

_FIRST = 4
"""Candidates measured before a cost model says anything."""

_DRAWS = 6
"""Candidates that come to the known ones for each that is proposed."""

_NEAR = 0.6
"""The share of them that is drawn near the best."""

_PATIENCE = 30
"""Draws one after the other that find nothing new: then the space is gone through in order."""

_MODELLED = 100
"""The cost model knows so many of the fastest, and as many of the others."""

_FAILED = 2.0
"""How much slower than the slowest a failed candidate counts, as a logarithm to base 2."""


class Search:
    """A search of `space`; under one `seed` and with the same times it goes the same way."""

    def __init__(self, space: Space, seed: int) -> None:
        self._space = space
        self._rng = random.Random(seed)
        self._asked: dict[int, Decisions] = {}
        self._told: dict[int, tuple[Decisions, float | None]] = {}
        self._pool: dict[int, Decisions] = {}
        self._advice: deque[Decisions] = deque()
        self._new = self._draws()

    def propose(self, count: int) -> list[Decisions]:
        """At most `count` decisions that were never proposed nor told, all of different schedules;
        fewer where no more are found, none at the end of the space."""
        proposed: list[Decisions] = []
        while len(proposed) < count:
            found = self._next()
            if found is None:
                break
            structure = self._space.structure(found)
            if structure is not None:
                self._asked[structure] = found
                self._pool.pop(structure, None)
            proposed.append(found)
        return proposed

    def tell(self, decisions: Mapping[str, Value], seconds: float | None) -> None:
        """What a candidate took, None if it failed; the last word on it counts."""
        structure = self._space.structure(decisions)
        if structure is not None:
            self._asked[structure] = dict(decisions)
            self._pool.pop(structure, None)
            self._told[structure] = dict(decisions), seconds

    def advise(self, decisions: Mapping[str, Value]) -> None:
        """Propose `decisions` soon, as far as this space has them: they won on another kernel."""
        self._advice.append(dict(decisions))

    def _next(self) -> Decisions | None:
        if self._space.structure({}) not in self._asked:
            return {}
        while self._advice:
            found = self._space.candidate(self._advice.popleft())
            if found is not None and found.structure not in self._asked:
                return found.decisions
        self._pool.update(itertools.islice(self._new, _DRAWS))
        if not self._pool:
            return None
        candidates = list(self._pool.values())
        if len(self._told) < _FIRST or not self._valid():
            near = [each for each in candidates if self._changes(each) == 1]
            return self._rng.choice(near or candidates)
        return candidates[int(np.argmax(self._promise(candidates)))]

    def _draws(self) -> Iterator[tuple[int, Decisions]]:
        """Candidates that are new, by their structure: at random or near the best two, then all
        that are left."""
        in_vain = 0
        while in_vain < _PATIENCE:
            if self._rng.random() < _NEAR:
                best = [decisions for decisions, _ in self._valid()[:2]]
                drawn = self._space.mutate(self._rng.choice(best or [{}]), self._rng)
            else:
                drawn = self._space.sample(self._rng)
            structure = self._space.structure(drawn)
            in_vain += 1
            if structure is not None and self._is_new(structure):
                in_vain = 0
                yield structure, drawn
        for each in self._space.enumerate():
            structure = self._space.structure(each)
            if structure is not None and self._is_new(structure):
                yield structure, each

    def _is_new(self, structure: int) -> bool:
        return structure not in self._asked and structure not in self._pool

    def _valid(self) -> list[tuple[Decisions, float]]:
        """What did not fail, the fastest first."""
        valid = [(each, seconds) for each, seconds in self._told.values() if seconds is not None]
        return sorted(valid, key=lambda pair: pair[1])

    def _promise(self, candidates: list[Decisions]) -> np.ndarray:
        """How much each candidate is expected to gain; those proposed but not told count with the
        times that are expected of them."""
        told = sorted(self._told.values(), key=lambda pair: pair[1] or math.inf)
        told = told[:_MODELLED] + self._rng.sample(
            told[_MODELLED:], min(_MODELLED, len(told[_MODELLED:]))
        )
        slowest = max(math.log2(seconds) for _, seconds in told if seconds is not None)
        costs = [slowest + _FAILED if s is None else math.log2(s) for _, s in told]
        known = np.stack([self._space.features(decisions) for decisions, _ in told])
        best = min(costs)
        model = CostModel(known, np.array(costs))
        pending = [each for key, each in self._asked.items() if key not in self._told]
        if pending:
            more = np.stack([self._space.features(each) for each in pending])
            expected, _ = model.predict(more)
            model = CostModel(
                np.vstack([known, more]), np.array([*costs, *expected]), [model.scale]
            )
        expected, deviation = model.predict(
            np.stack([self._space.features(each) for each in candidates])
        )
        return expected_gain(expected, deviation, best)

    def _changes(self, decisions: Mapping[str, Value]) -> int:
        """In how many knobs the decisions are not the rule's."""
        found = self._space.candidate(decisions)
        return sum(choice.value != choice.rule for choice in found.choices) if found else 0
