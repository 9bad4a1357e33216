"""The cases of each pass notice bugs planted in it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from mutants import Mutant, all_mutants, survivors

FEW = 20
MANY = 200
KILLED = 0.9

REVIEWED = {
    Mutant(each["module"], each["where"], each["before"], each["after"], each.get("number", 1))
    for each in tomllib.loads(Path(__file__).with_name("survivors.toml").read_text())["survivor"]
}
"""Mutants that compute the same, or differ where no case could tell, each with its reason."""


def test_what_is_unchanged_survives() -> None:
    assert survivors(["merge_slices", "fuse_mish"]) == ["merge_slices", "fuse_mish"]


def test_what_was_reviewed_is_a_mutant_still() -> None:
    assert [str(each) for each in REVIEWED - set(all_mutants())] == []


def test_a_few_are_noticed() -> None:
    unnoticed = [str(each) for each in survivors(all_mutants()[:FEW]) if each not in REVIEWED]
    assert unnoticed == []


@pytest.mark.nightly
def test_many_are_noticed() -> None:
    alive = survivors(all_mutants()[:MANY])
    assert [str(each) for each in alive if each not in REVIEWED] == []
    assert len(alive) <= (1 - KILLED) * MANY
