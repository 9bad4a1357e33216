"""A search on landscapes whose best point is known."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping

import numpy as np
import pytest
from tvm import te, tirx

from edgec import targets
from edgec.targets.cpu.knobs import Value
from edgec.tune.costmodel import CostModel, expected_gain
from edgec.tune.search import Search
from edgec.tune.space import Decisions, Space

Landscape = Callable[[Mapping[str, Value]], float | None]


def convolution(size: int = 14) -> tirx.PrimFunc:
    """3x3 over 64 channels of so many rows and columns."""
    image = te.placeholder((1, 4, size + 2, size + 2, 16), name="image")
    taps = te.placeholder((4, 4, 3, 3, 16, 16), name="taps")
    axes = [te.reduce_axis((0, n)) for n in (4, 3, 3, 16)]
    block, kh, kw, lane = (axis.var for axis in axes)
    sums = te.compute(
        (1, 4, size, size, 16),
        lambda n, o, i, j, v: te.sum(
            image[n, block, i + kh, j + kw, lane] * taps[o, block, kh, kw, lane, v], axis=axes
        ),
        name="conv2d_blocked",
    )
    return te.create_prim_func([image, taps, sums])


@pytest.fixture(scope="module")
def space() -> Space:
    return Space(convolution(), targets.resolve("x86-64-v4"))


def valley(space: Space, seed: int) -> tuple[Landscape, Decisions]:
    """Every knob adds something of its own, pairs of knobs something more; some candidates fail.
    And where the least is."""

    def part(*items: object) -> float:
        return random.Random(repr((seed, *items))).random()

    def seconds(decisions: Mapping[str, Value]) -> float | None:
        found = space.candidate(decisions)
        assert found is not None
        items = [(choice.knob, choice.value) for choice in found.choices]
        if decisions and part("fails", found.structure) < 0.05:
            return None
        alone = sum(part(item) for item in items)
        together = sum(part(pair) for pair in itertools.pairwise(items))
        return 1e-5 * 2 ** (alone + 0.3 * together)

    every = [(time, each) for each in space.enumerate() if (time := seconds(each)) is not None]
    return seconds, min(every, key=lambda pair: pair[0])[1]


def trials_to_find(search: Search, landscape: Landscape, best: Decisions, most: int) -> int:
    for trials in range(0, most, 4):
        for candidate in search.propose(4):
            if candidate == best:
                return trials
            search.tell(candidate, landscape(candidate))
    return most


def test_the_rule_comes_first_and_nothing_twice() -> None:
    space = Space(convolution(2), targets.resolve("x86-64-v4"))
    search = Search(space, seed=1)
    seen: list[Decisions] = []
    while proposed := search.propose(5):
        for each in proposed:
            search.tell(each, 1e-5 * (1 + len(seen)))
        seen += proposed
    assert seen[0] == {}
    structures = [space.structure(each) for each in seen]
    assert None not in structures
    assert len(structures) == len(set(structures))
    assert len(seen) > 0.95 * (space.size() or 0)


def test_advice_comes_after_the_rule_and_only_once(space: Space) -> None:
    *_, far = itertools.islice(space.enumerate(), 40)
    search = Search(space, seed=1)
    for advice in (far, {"unknown": 3}, far):
        search.advise(advice)
    first, second, *others = search.propose(6)
    assert (first, second) == ({}, far)
    assert len(others) == 4
    assert far not in others
    search.advise(far)
    assert far not in search.propose(4)


def test_the_same_seed_goes_the_same_way(space: Space) -> None:
    def way(seed: int) -> list[Decisions]:
        search, seen = Search(space, seed), []
        landscape, _ = valley(space, 1)
        for _ in range(6):
            for each in search.propose(4):
                search.tell(each, landscape(each))
                seen.append(each)
        return seen

    assert way(3) == way(3)
    assert way(3) != way(4)


def test_what_was_told_is_not_proposed(space: Space) -> None:
    known = list(itertools.islice(space.enumerate(), 20))
    search = Search(space, seed=1)
    for each in known:
        search.tell(each, 1e-5)
    assert not [each for each in search.propose(40) if each in known]


def test_finds_the_best_sooner_than_chance(space: Space) -> None:
    size = space.size() or 0
    assert size > 100
    trials = []
    for seed in range(6):
        landscape, best = valley(space, seed)
        trials.append(trials_to_find(Search(space, seed), landscape, best, size))
    assert np.mean(trials) < size / 4
    assert max(trials) < size


def test_where_everything_fails(space: Space) -> None:
    search = Search(space, seed=1)
    for each in search.propose(8):
        search.tell(each, None)
    assert len(search.propose(4)) == 4


def test_the_cost_model_knows_what_it_was_told() -> None:
    features = np.array([[float(i), float(i % 3)] for i in range(30)])
    costs = 2.0 * features[:, 0] + np.sin(features[:, 1])
    expected, deviation = CostModel(features[::2], costs[::2]).predict(features)
    assert np.corrcoef(expected[1::2], costs[1::2])[0, 1] > 0.95
    assert deviation[1::2].min() > deviation[::2].max()


def test_what_is_surely_worse_gains_nothing() -> None:
    gain = expected_gain(np.array([1.0, 5.0, 2.0]), np.array([0.1, 0.1, 3.0]), best=2.0)
    assert gain[0] == pytest.approx(1.0, abs=1e-3)
    assert gain[1] == pytest.approx(0.0, abs=1e-9)
    assert gain[2] > gain[0]
