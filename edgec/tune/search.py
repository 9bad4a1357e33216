"""Which candidates of a space to measure next.

The rule's own choice is the first, so that a search never ends with less. Next come its neighbours,
then what a cost model expects the most of, given all times so far. Candidates are drawn at random
and near the best, a few more each time, until all of the space are known.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping

import numpy as np

from edgec.targets.cpu.knobs import Value
from edgec.tune.costmodel import CostModel, expected_gain
from edgec.tune.space import Decisions, Space

_FIRST = 4
"""Candidates measured before a cost model says anything."""

_DRAWS, _TRIES = 6, 12
"""Candidates that come to the known ones for each that is proposed, and tries to find them."""

_NEAR = 0.6
"""The share of them that is drawn near the best."""

_PATIENCE = 100
"""Draws one after the other that find nothing new: then the space is taken to be exhausted."""

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
        self._in_vain = 0

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

    def _next(self) -> Decisions | None:
        if self._space.structure({}) not in self._asked:
            return {}
        self._draw()
        if not self._pool:
            return None
        valid = [each for each in self._told.values() if each[1] is not None]
        candidates = list(self._pool.values())
        if len(self._told) < _FIRST or not valid:
            near = [each for each in candidates if self._changes(each) == 1]
            return self._rng.choice(near or candidates)
        return candidates[int(np.argmax(self._promise(candidates)))]

    def _draw(self) -> None:
        """Make some more candidates known: at random, and near the best two."""
        valid = sorted(
            (each for each in self._told.values() if each[1]), key=lambda each: each[1] or 0.0
        )
        best = [decisions for decisions, _ in valid[:2]] or [{}]
        found, tries = 0, 0
        while found < _DRAWS and tries < _TRIES and self._in_vain < _PATIENCE:
            tries += 1
            if self._rng.random() < _NEAR:
                drawn = self._space.mutate(self._rng.choice(best), self._rng)
            else:
                drawn = self._space.sample(self._rng)
            structure = self._space.structure(drawn)
            if structure is None or structure in self._asked or structure in self._pool:
                self._in_vain += 1
                continue
            self._in_vain = 0
            self._pool[structure] = drawn
            found += 1

    def _promise(self, candidates: list[Decisions]) -> np.ndarray:
        """How much each candidate is expected to gain; those proposed but not told count with the
        times that are expected of them."""
        told = list(self._told.values())
        slowest = max(math.log2(seconds) for _, seconds in told if seconds is not None)
        costs = [slowest + _FAILED if s is None else math.log2(s) for _, s in told]
        known = np.stack([self._space.features(decisions) for decisions, _ in told])
        best = min(costs)
        model = CostModel(known, np.array(costs))
        pending = [each for key, each in self._asked.items() if key not in self._told]
        if pending:
            more = np.stack([self._space.features(each) for each in pending])
            expected, _ = model.predict(more)
            model = CostModel(np.vstack([known, more]), np.array([*costs, *expected]))
        expected, deviation = model.predict(
            np.stack([self._space.features(each) for each in candidates])
        )
        return expected_gain(expected, deviation, best)

    def _changes(self, decisions: Mapping[str, Value]) -> int:
        """In how many knobs the decisions are not the rule's."""
        found = self._space.candidate(decisions)
        return sum(choice.value != choice.rule for choice in found.choices) if found else 0
