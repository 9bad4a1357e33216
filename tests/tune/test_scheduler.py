"""Which task gets the next batch, on tasks whose gains are known."""

from __future__ import annotations

import random
from statistics import median

import pytest

from edgec.tune.scheduler import DECAY, Share, best_promise, latency

BATCH_S = 2.5


def simulated(seed: int, seconds: float) -> list[tuple[float, float]]:
    """(time, latency) of a run over tasks of unlike size, each with a time that no candidate beats
    and candidates at random above it, four a second."""
    draw = random.Random(seed)
    shares = [Share(draw.paretovariate(1.5)) for _ in range(draw.choice([8, 16, 24]))]
    floors = [draw.choice([0.6, 0.8, 0.9, 0.95, 1.0]) for _ in shares]
    clock, curve = 0.0, []
    while clock < seconds and (place := best_promise(shares)) is not None:
        share = shares[place]
        count = 16 if share.batches else 8
        found = min(floors[place] + draw.expovariate(4.0) for _ in range(count))
        share.learn(min(share.ratio, found), count / 4)
        clock += count / 4
        curve.append((clock, latency(shares, 1.0)))
    return curve


def test_the_first_minute_of_ten_finds_nearly_everything() -> None:
    late = []
    for seed in range(20):
        curve = simulated(seed, 600.0)
        late.append(min(best for at, best in curve if at <= 60.0) / curve[-1][1])
    assert median(late) < 1.02
    assert max(late) < 1.06


def test_the_costliest_is_first_and_the_first_of_equals() -> None:
    assert best_promise([Share(1.0), Share(2.0), Share(2.0)]) == 1
    assert best_promise([Share(1.0), Share(2.0, open=False)]) == 0
    assert best_promise([Share(1.0, open=False)]) is None
    assert best_promise([]) is None


def test_what_improves_is_stayed_with_and_what_does_not_is_left() -> None:
    flat, rising = Share(1.0), Share(1.0 / 0.9**8)
    for _ in range(8):
        flat.learn(flat.ratio, BATCH_S)
        rising.learn(0.9 * rising.ratio, BATCH_S)
    assert best_promise([flat, rising]) == 1
    for _ in range(2):
        rising.learn(rising.ratio, BATCH_S)
    assert best_promise([flat, rising]) == 0


def test_tasks_that_do_not_improve_get_the_more_batches_the_more_time_they_take() -> None:
    large, small = Share(3.0), Share(1.0)
    for _ in range(400):
        share = [large, small][best_promise([large, small]) or 0]
        share.learn(1.0, BATCH_S)
    assert len(large.batches) / len(small.batches) == pytest.approx(3.0 ** (1 / DECAY), rel=0.05)


def test_slow_batches_promise_less() -> None:
    quick, slow = Share(1.0), Share(1.0)
    quick.learn(1.0, 1.0)
    slow.learn(1.0, 4.0)
    assert best_promise([slow, quick]) == 1


def test_latency() -> None:
    assert latency([Share(1.0, 0.5), Share(2.0)], 0.25) == 2.75
