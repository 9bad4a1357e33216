"""`edgec records`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import Edgec
from samples import PLAIN, sample

from edgec.tune.records import FILE, Store


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Two kernels, one failure, and two lines that are no records."""
    folder = tmp_path / "store"
    Store(folder).append(
        sample(decisions={}, seconds=2e-3),
        PLAIN,
        sample(3, seconds=None, valid=False),
        sample(4, kernel="b" * 16, label="matmul 64x64", threads=2),
    )
    with open(folder / FILE, "ab") as stream:
        stream.write(b'{"edgec":1,"sum":"00\nnothing\n')
    return folder


def test_list(edgec: Edgec, store: Path) -> None:
    done = edgec("records", "list", store)
    assert done.code == 0
    assert "conv2d 64x56x56" in done.out
    assert "1.00 ms" in done.out
    assert "1 lines are torn or damaged, 1 are not of a store" in done.out
    facts = edgec("records", "list", store, "--json").result
    assert (facts["records"], facts["torn"], facts["foreign"]) == (4, 1, 1)
    conv, matmul = facts["kernels"]
    assert (conv["records"], conv["failed"], conv["gain"]) == (3, 1, 2.0)
    assert conv["best"]["decisions"] == PLAIN.decisions
    assert (matmul["label"], matmul["threads"]) == ("matmul 64x64", 2)


def test_show(edgec: Edgec, store: Path) -> None:
    done = edgec("records", "show", store, "conv2d")
    assert "matmul" not in done.out
    assert "2.00 times as fast" in done.out
    assert "on bench" in done.out
    words = [line.split() for line in done.out.splitlines()]
    assert ["tile", "14"] in words
    assert ["order", "channels"] in words
    [entry] = edgec("records", "show", store, "bbbb", "--json").result["kernels"]
    assert entry["kernel"] == "b" * 16
    assert edgec("records", "show", store, "absent").out.startswith("no records")


def test_merge(edgec: Edgec, store: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    facts = edgec("records", "merge", whole, store, "--json").result
    counts = {"added": 4, "known": 0, "torn": 1, "foreign": 1, "skipped": {}}
    assert facts == {"event": "result", **counts}
    assert edgec("records", "merge", whole, store).out.startswith("0 records added, 4 known")
    assert edgec("records", "check", whole).code == 0
    assert edgec("records", "merge", whole).code == 2


def test_export(edgec: Edgec, store: Path, tmp_path: Path) -> None:
    path = tmp_path / "best.jsonl"
    assert edgec("records", "export", store, path, "--json").result["records"] == 2
    assert [r.decisions for r in Store(path).read().records] == [PLAIN.decisions, {"tile": 4}]
    assert "matmul" in edgec("records", "list", path).out
    assert edgec("records", "export", store, tmp_path / "absent" / "x.jsonl").code == 11


def test_prune_and_check(edgec: Edgec, store: Path) -> None:
    done = edgec("records", "check", store)
    assert done.code == 11
    assert done.err == ""
    assert "line 5: torn or damaged\nline 6: no line of a store\n4 records" in done.out
    facts = json.loads(edgec("records", "check", store, "--json").out)
    assert [problem["line"] for problem in facts["problems"]] == [5, 6]
    facts = edgec("records", "prune", store, "--json").result
    assert (facts["kept"], facts["dropped"], facts["torn"], facts["foreign"]) == (4, 0, 1, 1)
    assert edgec("records", "check", store).code == 0
    Store(store).append(sample(9, seconds=9.0))
    assert edgec("records", "prune", store).out.startswith("4 records kept, 1 dropped")


@pytest.mark.parametrize("action", ["list", "show", "prune", "check", "export", "merge"])
def test_no_store(edgec: Edgec, tmp_path: Path, action: str) -> None:
    absent = tmp_path / "absent"
    words = {"export": [absent, tmp_path / "x"], "merge": [tmp_path / "new", absent]}
    done = edgec("records", action, *words.get(action, [absent]))
    assert (done.code, done.out) == (11, "")
    assert f"tuning error: {absent}: there are no records" in done.err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_store_is_left_as_it_is(edgec: Edgec, tmp_path: Path) -> None:
    assert edgec("records", "check", tmp_path).code == 11
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_too_long(edgec: Edgec, store: Path, tmp_path: Path) -> None:
    long = tmp_path / ("x" * 300)
    assert edgec("records", "list", long).code == 11
    done = edgec("records", "merge", long, store)
    assert done.code == 11
    assert "File name too long" in done.err


def test_usage(edgec: Edgec, tmp_path: Path) -> None:
    assert edgec("records").code == 2
    assert edgec("records", "frobnicate", tmp_path).code == 2


def test_hostile_text_does_not_reach_the_terminal(edgec: Edgec, tmp_path: Path) -> None:
    """What would move a terminal's cursor is no record."""
    from edgec.tune.journal import line_of
    from edgec.tune.record import encode

    facts = json.loads(encode(PLAIN))
    with open(tmp_path / FILE, "wb") as stream:
        for name in ("label", "machine", "target", "kernel"):
            stream.write(line_of(json.dumps(facts | {name: "\x1b]0;evil\x07"}).encode()))
        decisions = {"decisions": {"\x1b[2J": 1}}
        stream.write(line_of(json.dumps(facts | decisions).encode()))
    for action in ("list", "show", "check"):
        done = edgec("records", action, tmp_path)
        assert "\x1b" not in done.out
    assert edgec("records", "list", tmp_path, "--json").result["foreign"] == 5
