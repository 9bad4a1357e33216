"""Which records a model's own times correct."""

from __future__ import annotations

import pytest
from samples import sample

from edgec.tune.record import Record
from edgec.tune.settle import Neighbours

CHAIN = Neighbours(
    structure={"a": "A", "b": "B", "c": "C"},
    readers={"a": frozenset("b"), "b": frozenset("c")},
)
BEFORE = {"a": 1e-3, "b": 1e-3, "c": 1e-3}


def corrected(tuned: str, after: dict[str, float]) -> dict[str, float]:
    """Gains of corrected records."""
    records: dict[str, Record] = {
        structure: sample(kernel=structure, seconds=4e-3, baseline=8e-3) for structure in tuned
    }
    found = CHAIN.slower(records, BEFORE, BEFORE | after)
    return {record.kernel: record.gain or 0.0 for record in found}


def test_what_is_faster_in_the_model_stands() -> None:
    assert corrected("A", {"a": 0.9e-3}) == {}
    assert corrected("AB", {"a": 0.9e-3, "b": 0.9e-3}) == {}


def test_what_is_slower_in_the_model_is_corrected_to_what_it_takes_there() -> None:
    assert corrected("AB", {"a": 1.25e-3, "b": 0.9e-3}) == {"A": pytest.approx(0.8)}


def test_what_it_costs_those_that_read_its_results_counts() -> None:
    assert corrected("A", {"a": 0.8e-3, "b": 1.3e-3}) == {"A": pytest.approx(1 / 1.1)}
    assert corrected("A", {"a": 0.8e-3, "b": 1.1e-3}) == {}, "it gains more than they lose"
    assert corrected("A", {"a": 0.8e-3, "c": 2e-3}) == {}, "c reads what b wrote"
    assert corrected("AB", {"a": 0.8e-3, "b": 1.3e-3}) == {"B": pytest.approx(1 / 1.3)}
