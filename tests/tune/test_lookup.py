"""Which records compiling finds, and in which order it looks."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from samples import PLAIN, sample

from edgec.errors import TuningError
from edgec.tune import lookup
from edgec.tune.lookup import BUNDLED, Chooser, Lookup, shipped
from edgec.tune.record import Record
from edgec.tune.records import Store

KEY = (PLAIN.space, PLAIN.target)


@pytest.fixture(name="some")
def ship_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Records in the place of those that ship with edgec."""
    monkeypatch.setattr(lookup, "BUNDLED", tmp_path / "bundled")
    store = Store(tmp_path / "all")
    store.append(sample(1, kernel="a"), sample(2, kernel="b"), sample(3, kernel="c"))
    monkeypatch.setattr(lookup, "processor_name", lambda: "Some(R) CPU 9")
    (tmp_path / "bundled").mkdir()
    store.export(tmp_path / "bundled" / "some-r-cpu-9.jsonl")
    return Store(tmp_path / "bundled" / "some-r-cpu-9.jsonl")


def found(look: Lookup, *kernels: str) -> dict[str, tuple[str, object]]:
    return {
        kernel: (choice.origin, choice.record.decisions)
        for kernel, choice in look.find(kernels, *KEY).items()
    }


def test_the_users_store_comes_first(tmp_path: Path, some: Store) -> None:
    mine = Store(tmp_path / "mine")
    mine.append(
        sample(7, kernel="a", seconds=1.9e-3),
        sample(kernel="b", decisions={}),
        sample(8, kernel="b", seconds=9e-3),
    )
    look = Lookup.of(mine.path)
    assert found(look, "a", "b", "c", "d") == {
        "a": ("records", {"tile": 7}),
        "c": ("bundled", {"tile": 3}),
    }, "of b, the user knows that the rule is best"
    assert found(Lookup.of(None), "a", "b") == {
        "a": ("bundled", {"tile": 1}),
        "b": ("bundled", {"tile": 2}),
    }
    assert found(Lookup.of(mine.path, bundled=False), "c") == {}
    assert found(Lookup.of(None, bundled=False), "a") == {}
    assert look.find(["a"], PLAIN.space + 1, PLAIN.target) == {}
    assert look.find(["a"], PLAIN.space, "another") == {}


def test_what_ships_is_for_the_processor_that_it_was_measured_on(
    some: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert found(Lookup.of(None), "a")
    monkeypatch.setattr(lookup, "processor_name", lambda: "Some(R) CPU 10")
    assert found(Lookup.of(None), "a") == {}


def test_threads(tmp_path: Path) -> None:
    """By default those of the largest number there is of each kernel."""
    store = Store(tmp_path)
    store.append(
        sample(1, threads=1), sample(2, threads=2), sample(4, threads=4, seconds=1.0, baseline=2.0)
    )
    store.append(sample(9, threads=1, kernel="only one"))
    for threads, tile in ((None, 4), (1, 1), (2, 2), (4, 4)):
        look = Lookup.of(tmp_path, False, threads)
        assert found(look, PLAIN.kernel)[PLAIN.kernel][1] == {"tile": tile}
    assert found(Lookup.of(tmp_path, False, 3), PLAIN.kernel) == {}
    assert found(Lookup.of(tmp_path, False), "only one")["only one"][1] == {"tile": 9}


def test_no_store(tmp_path: Path) -> None:
    with pytest.raises(TuningError):
        Lookup.of(tmp_path / "absent")


def test_a_chooser_does_not_change_its_mind(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.append(PLAIN)
    chooser = Chooser(Lookup.of(tmp_path, False))
    kernels = [PLAIN.kernel, "b"]
    first = chooser.choose(kernels, *KEY)
    assert first[PLAIN.kernel].record == PLAIN
    content = chooser.content()
    assert len(content) == 1
    store.append(sample(5, seconds=1e-9), sample(6, kernel="b"))
    assert chooser.choose(kernels, *KEY) == first
    assert chooser.content() == content
    again = Chooser(Lookup.of(tmp_path, False))
    again.choose(kernels, *KEY)
    assert again.content() != content


def test_what_ships_is_worth_it() -> None:
    """Every record is whole, says where it comes from, and gains something."""
    records: list[Record] = []
    for file in BUNDLED.glob("*.jsonl"):
        reading = Store(file).read()
        assert {shipped(record.machine) for record in reading.records} == {file}
        assert (reading.torn, reading.foreign) == (0, 0), file
        records += reading.records
    for record in records:
        assert record.machine
        assert record.confirmed
        assert record.gain is not None
        assert record.gain > 1.0
    assert len({record.key for record in records}) == len(records)
    assert all(dataclasses.replace(record).decisions for record in records)
