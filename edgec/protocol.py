"""How times are taken so that a ratio of them means something.

One process per engine. Bursts of 20 calls alternate between them; before each burst the engine
rests 50 ms, since idle thread pools spin; its first 5 calls are dropped; the other processes are
stopped meanwhile. 200 calls or more are counted. Of times, the median and the spread are reported;
of two engines, the ratio of medians, and its spread over the rounds in which both took their turn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

BURST = 20
DROPPED = 5
REST_S = 0.05
CALLS = 200
BELIEVED = (0.95, 1.05)
"""What one engine against itself must read, or the whole measurement is not believed."""


class Engine(Protocol):
    """A process that can be stopped, resumed, and asked for the times of a burst in ns."""

    def stop(self) -> None: ...
    def resume(self) -> None: ...
    def burst(self, calls: int, rest_s: float) -> list[int]: ...


@dataclass(frozen=True)
class Times:
    """Counted times of one engine in seconds, a row per round."""

    rounds: tuple[tuple[float, ...], ...]

    def quantile(self, q: float) -> float:
        """Over all calls, in seconds."""
        return float(np.quantile(np.concatenate(self.rounds), q))

    @property
    def median(self) -> float:
        """Over all calls, in seconds."""
        return self.quantile(0.5)

    @property
    def calls(self) -> int:
        """How many were counted."""
        return sum(len(times) for times in self.rounds)


@dataclass(frozen=True)
class Ratio:
    """Time of one engine over that of another, of medians; and two percentiles of its rounds."""

    value: float
    p10: float
    p90: float

    @staticmethod
    def of(times: Times, base: Times) -> Ratio:
        """Both measured in the same rounds."""
        pairs = zip(times.rounds, base.rounds, strict=True)
        rounds = [float(np.median(mine) / np.median(other)) for mine, other in pairs]
        p10, p90 = (float(np.quantile(rounds, q)) for q in (0.1, 0.9))
        return Ratio(times.median / base.median, p10, p90)


def burst(engine: Engine) -> tuple[float, ...]:
    """The counted times of one burst, in seconds."""
    return tuple(ns * 1e-9 for ns in engine.burst(BURST, REST_S)[DROPPED:])


def alternate(
    engines: Sequence[Engine],
    calls: int = CALLS,
    on_round: Callable[[int, int], None] = lambda done, rounds: None,
) -> list[Times]:
    """Times of each engine, at least `calls` counted. The engines are left stopped.

    Every round begins with another engine, so that none always follows the same one first.
    `on_round` is called between rounds, when nothing is measured.
    """
    for engine in engines:
        engine.stop()
    rounds = math.ceil(calls / (BURST - DROPPED))
    taken: list[list[tuple[float, ...]]] = [[] for _ in engines]
    for done in range(rounds):
        for turn in range(len(engines)):
            index = (done + turn) % len(engines)
            engines[index].resume()
            try:
                taken[index].append(burst(engines[index]))
            finally:
                engines[index].stop()
        on_round(done + 1, rounds)
    return [Times(tuple(times)) for times in taken]
