"""The protocol of measuring, on a made-up clock."""

from __future__ import annotations

import pytest

from edgec import protocol
from edgec.peers import EngineError
from edgec.protocol import Ratio, Times, alternate


class Clockwork:
    """An engine whose calls take a known time, writing down all that happens to it."""

    def __init__(self, name: str, ns: int, log: list[str]) -> None:
        self.name, self.ns, self.log = name, ns, log
        self.running = True

    def stop(self) -> None:
        self.running = False
        self.log.append(f"{self.name} stops")

    def resume(self) -> None:
        self.running = True
        self.log.append(f"{self.name} goes on")

    def burst(self, calls: int, rest_s: float) -> list[int]:
        assert (calls, rest_s) == (20, 0.05)
        self.log.append(f"{self.name} runs")
        return [10**9] * 5 + [self.ns] * (calls - 5)


def test_one_engine_runs_at_a_time_the_others_stopped() -> None:
    log: list[str] = []
    engines = [Clockwork(name, 1000, log) for name in "abc"]
    running: list[list[str]] = []
    for engine in engines:
        original = engine.burst

        def watched(calls: int, rest_s: float, original: object = original) -> list[int]:
            running.append([e.name for e in engines if e.running])
            return original(calls, rest_s)  # type: ignore[operator]

        engine.burst = watched  # type: ignore[method-assign]
    alternate(engines, calls=60)
    assert running == [
        ["a"],
        ["b"],
        ["c"],
        ["b"],
        ["c"],
        ["a"],
        ["c"],
        ["a"],
        ["b"],
        ["a"],
        ["b"],
        ["c"],
    ]
    assert log[:3] == ["a stops", "b stops", "c stops"]
    assert not any(engine.running for engine in engines)


def test_enough_calls_are_counted_and_the_first_five_dropped() -> None:
    heard: list[tuple[int, int]] = []
    fast, slow = alternate(
        [Clockwork("fast", 1000, []), Clockwork("slow", 3000, [])],
        on_round=lambda done, rounds: heard.append((done, rounds)),
    )
    assert fast.calls == slow.calls == 210
    assert len(fast.rounds) == 14
    assert fast.median == fast.quantile(1) == pytest.approx(1e-6)
    assert Ratio.of(slow, fast).value == pytest.approx(3)
    assert heard == [(i, 14) for i in range(1, 15)]


def test_an_engine_that_dies_leaves_all_stopped() -> None:
    engines = [Clockwork("a", 1, []), Clockwork("b", 1, [])]

    def dies(calls: int, rest_s: float) -> list[int]:
        raise EngineError("gone")

    engines[1].burst = dies  # type: ignore[method-assign]
    with pytest.raises(EngineError):
        alternate(engines)
    assert not any(engine.running for engine in engines)


def test_ratio_is_of_medians_and_spreads_over_rounds() -> None:
    base = Times(((1.0, 1.0, 9.0), (2.0, 2.0, 2.0)))
    other = Times(((2.0, 2.0, 2.0), (4.0, 6.0, 8.0)))
    ratio = Ratio.of(other, base)
    assert ratio.value == 3.0 / 2.0
    assert (ratio.p10, ratio.p90) == (pytest.approx(2.1), pytest.approx(2.9))


def test_the_protocol_is_what_is_promised() -> None:
    assert (protocol.BURST, protocol.DROPPED, protocol.REST_S) == (20, 5, 0.05)
    assert protocol.CALLS >= 200
    assert protocol.BELIEVED == (0.95, 1.05)
