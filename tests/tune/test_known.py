"""What a run takes over from the records of earlier ones."""

from __future__ import annotations

import pytest
from samples import sample

from edgec.tune.known import Known

RULE = sample(0, decisions={}, seconds=2e-3, baseline=None)


def test_nothing_is_known() -> None:
    known = Known([], "bench")
    assert (len(known), known.valid, known.incumbent()) == (0, 0, ({}, 1.0))
    assert list(known.outcomes()) == []


def test_the_incumbent_is_the_best_that_was_confirmed() -> None:
    lucky = sample(1, seconds=0.5e-3, confirmed=False)
    won = sample(2, seconds=1.5e-3)
    known = Known([RULE, lucky, won], "bench")
    assert known.incumbent() == ({"tile": 2}, 0.75)
    assert Known([RULE, lucky], "bench").incumbent() == ({}, 1.0)


def test_times_count_as_shares_of_the_rules_in_their_session() -> None:
    """The second was measured while the machine was twice as slow."""
    records = [RULE, sample(1, seconds=1e-3, baseline=2e-3), sample(2, seconds=3e-3, baseline=4e-3)]
    outcomes = {dict(d).get("tile", 0): ratio for d, ratio in Known(records, "bench").outcomes()}
    assert outcomes == {0: 1.0, 1: pytest.approx(0.5), 2: pytest.approx(0.75)}


def test_failures_are_known_and_times_without_a_rule_are_not() -> None:
    failed = sample(1, seconds=None, valid=False)
    alone = sample(2, seconds=1e-3, baseline=None)
    known = Known([failed, alone], "bench")
    assert len(known) == 2
    assert known.valid == 1
    assert list(known.outcomes()) == [({"tile": 1}, None)]


def test_this_machines_word_counts_more() -> None:
    here = sample(1, seconds=1e-3, baseline=2e-3, machine="bench")
    there = sample(1, seconds=3e-3, baseline=2e-3, machine="other")
    for records in ([here, there], [there, here]):
        assert list(Known(records, "bench").outcomes()) == [({"tile": 1}, 0.5)]
