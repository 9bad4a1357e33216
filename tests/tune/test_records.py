"""Records: what is read back, what is refused, and which of them is used."""

from __future__ import annotations

import dataclasses
import itertools
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from samples import PLAIN, sample

from edgec.errors import TuningError
from edgec.targets import resolve
from edgec.tune import ranking
from edgec.tune.journal import line_of
from edgec.tune.record import NotARecord, decode, encode
from edgec.tune.records import Record, Store, features_key, timestamp


def test_what_was_appended_is_read(tmp_path: Path) -> None:
    store = Store(tmp_path / "new" / "folder")
    assert store.read().records == []
    assert store.best(*PLAIN.key) is None
    records = [PLAIN, sample(1, seconds=None, valid=False, baseline=None), sample(2, decisions={})]
    store.append(records[0])
    store.append(*records[1:])
    reading = Store(tmp_path / "new" / "folder").read()
    assert reading.records == records
    assert (reading.torn, reading.foreign) == (0, 0)
    assert (PLAIN.gain, records[1].gain) == (2.0, None)


def test_numbers_of_numpy_and_labels_of_anything() -> None:
    odd = dataclasses.replace(
        PLAIN,
        seconds=np.float64(0.5),
        threads=np.int64(4),
        decisions={"flag": True, "tile": np.int32(8)},
        label="\x1b[31mred\n" + "x" * 9999,
    )
    back = decode(encode(odd))
    assert (back.seconds, back.threads, back.decisions) == (0.5, 4, {"flag": 1, "tile": 8})
    assert type(back.decisions["flag"]) is int
    assert back.label.startswith("?[31mred?xxx")
    assert len(back.label) == 512


HOSTILE: dict[str, Any] = {
    "kernel": [5, "", None, 'a"', "a\n", "x" * 513, "\x1b[2J", "\u202e"],
    "space": [-1, True, 1.0, "1", None, 2**63],
    "target": [5, None, "x" * 513, "\ud800"],
    "threads": [0, -1, True, 1.5, "1"],
    "decisions": [
        *(None, [], "x", {"a": 1.5}, {"a": True}, {"a": None}, {"a": [1]}, {"a": {}}),
        *({"a": 2**63}, {"a": "\n"}, {"\x00": 1}, {"x" * 257: 1}, {"a": "x" * (2**17 + 1)}),
        {str(n): n for n in range(257)},
    ],
    "seconds": [0, -1.0, "1", True, None, 10**400],
    "valid": [1, "true", None],
    "confirmed": [0, "true", None],
    "spread": [-1, None, "x"],
    "baseline": [0, -1, "x", False],
    "machine": [None, "x" * 513, "\x07"],
    "date": ["", "now", "2026-01-31", "2026-01-31T12:00:00", None, 5],
    "edgec": [None, 1],
    "tvm": [[], "\n"],
    "seed": [1.5, None, 2**64],
    "label": [None, {}, "\x9b31m"],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_fields(name: str) -> None:
    facts = json.loads(encode(PLAIN))
    assert set(facts) == set(HOSTILE)
    for value in HOSTILE[name]:
        with pytest.raises(NotARecord):
            decode(json.dumps(facts | {name: value}).encode())
    del facts[name]
    with pytest.raises(NotARecord, match="missing"):
        decode(json.dumps(facts).encode())


@pytest.mark.parametrize(
    "text",
    [
        *("", "null", "[]", "5", '"x"', "{", "[" * 100_000, '{"a":' * 100_000, "\xff\xfe", "{}"),
        '{"kernel":NaN}',
        "1" * 10_000,
    ],
    ids=range(12),
)
def test_hostile_json(text: str, tmp_path: Path) -> None:
    """With a right checksum, too."""
    with pytest.raises(NotARecord):
        decode(text.encode("latin-1"))
    (tmp_path / "records.jsonl").write_bytes(line_of(text.encode("latin-1")))
    store = Store(tmp_path)
    store.append(PLAIN)
    reading = store.read()
    assert reading.records == [PLAIN]
    assert (reading.torn, reading.foreign) == (0, 1)


def test_numbers_json_does_not_know() -> None:
    data = encode(PLAIN)
    for number in (b"NaN", b"Infinity", b"-Infinity", b"1e999"):
        with pytest.raises(NotARecord):
            decode(data.replace(b'"spread":0.01', b'"spread":' + number))


def test_fields_of_a_newer_edgec(tmp_path: Path) -> None:
    """They are passed over, but kept by merge and prune."""
    newer = json.dumps({"clock": [3], **json.loads(encode(PLAIN))}).encode()
    other = tmp_path / "other.jsonl"
    other.write_bytes(line_of(newer))
    store = Store(tmp_path / "store")
    assert store.merge(Store(other)).added == 1
    assert store.read().records == store.read([PLAIN.kernel]).records == [PLAIN]
    store.prune()
    assert (tmp_path / "store" / "records.jsonl").read_bytes() == line_of(newer)


def test_what_cannot_be_read_is_not_written(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for wrong in (
        {"seconds": float("nan")},
        {"seconds": None},
        {"decisions": {"a": 1.5}},
        {"decisions": {str(n): "x" * 10_000 for n in range(30)}},
        {"kernel": ""},
    ):
        with pytest.raises(TuningError, match="not a record"):
            store.append(sample(1), sample(2, **wrong))
    assert store.read().records == []


def test_reading_some_kernels(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.append(*(sample(n, kernel=f"kernel{n % 3}") for n in range(9)))
    found = store.read(["kernel1", "absent"]).records
    assert [record.decisions["tile"] for record in found] == [1, 4, 7]
    assert store.read([]).records == []


def pick(*records: Record) -> Record | None:
    """The best of `records`, whatever their order."""
    found = {id(ranking.best(order)) for order in itertools.permutations(records)}
    assert len(found) == 1
    return ranking.best(records)


def test_the_fastest_is_best() -> None:
    fast, slow = sample(1, seconds=1e-3), sample(2, seconds=2e-3, baseline=None)
    failed = sample(3, seconds=None, valid=False)
    assert pick(fast, slow, failed) is fast
    assert pick(failed) is None
    assert pick() is None


def test_slower_than_the_rule_is_not_used() -> None:
    rule = sample(decisions={}, seconds=1e-3)
    slow = sample(1, seconds=1.1e-3, baseline=1e-3)
    assert pick(slow) is None
    assert pick(slow, rule) is rule
    assert pick(dataclasses.replace(slow, baseline=None), rule) is rule
    assert pick(sample(2, seconds=0.9e-3, baseline=1e-3), slow, rule).decisions == {"tile": 2}


def test_a_later_measurement_counts() -> None:
    lucky = sample(1, seconds=0.5e-3)
    again = sample(1, seconds=1.5e-3, date="2026-01-31T12:00:01.000000Z")
    steady = sample(2, seconds=1e-3)
    wrong = sample(2, seconds=None, valid=False, date="2026-01-31T12:00:01.000000Z")
    assert pick(lucky, steady) is lucky
    assert pick(lucky, again, steady) is steady
    assert pick(lucky, again, steady, wrong) is again
    elsewhere = dataclasses.replace(wrong, machine="other", date="2020-01-01T00:00:00Z")
    assert pick(again, steady, elsewhere) is again, "wrong anywhere is wrong"
    assert pick(sample(1, seconds=1e-3), sample(1, seconds=2e-3)).seconds == 2e-3


def test_gains_are_compared_between_machines_and_not_times() -> None:
    slow_board = sample(1, machine="board", seconds=50e-3, baseline=100e-3)
    fast_board = sample(2, machine="server", seconds=0.9e-3, baseline=1e-3)
    assert pick(slow_board, fast_board) is slow_board
    elsewhere = sample(1, machine="server", seconds=3e-3, baseline=1e-3)
    assert pick(slow_board, fast_board, elsewhere) is fast_board
    rule = sample(machine="server", decisions={}, seconds=2e-3, baseline=None)
    lone = sample(3, machine="server", seconds=0.4e-3, baseline=None)
    assert pick(slow_board, fast_board, rule, lone) is lone, "a gain over the rule of that machine"


def test_keys_are_apart(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.append(PLAIN)
    for other in ({"kernel": "b"}, {"space": 2}, {"target": "aarch64"}, {"threads": 2}):
        assert store.best(*dataclasses.replace(PLAIN, **other).key) is None
    assert store.best(*PLAIN.key) == PLAIN
    store.append(dataclasses.replace(PLAIN, edgec="9", tvm="9", seconds=1e-4, decisions={}))
    assert store.best(*PLAIN.key) == PLAIN, "the rule gains nothing"


def some_records(seed: int) -> list[Record]:
    """Measurements of two kernels on two machines that replace, take back and repeat others."""
    draw = random.Random(seed)
    return [
        sample(
            decisions={} if draw.random() < 0.2 else {"tile": draw.randrange(4)},
            kernel=draw.choice("ab"),
            machine=draw.choice(["board", "server"]),
            valid=(valid := draw.random() < 0.8),
            seconds=draw.randrange(1, 5) * 1e-3 if valid else None,
            baseline=draw.choice([None, 2e-3]),
            confirmed=draw.random() < 0.7,
            date=f"2026-01-0{draw.randrange(1, 6)}T00:00:00Z",
            seed=number,
        )
        for number in range(draw.randrange(1, 25))
    ]


@pytest.mark.parametrize("seed", range(40))
def test_prune_and_order_change_no_choice(tmp_path: Path, seed: int) -> None:
    records = some_records(seed)
    store = Store(tmp_path / "a")
    store.append(*records)
    keys = {record.key for record in records}
    before = {key: store.best(*key) for key in keys}
    whole = store.read().records
    done = store.prune()
    assert done.kept == len(store.read().records) == len(whole) - done.dropped
    assert {key: store.best(*key) for key in keys} == before
    assert store.prune().dropped == 0
    shuffled = Store(tmp_path / "b")
    shuffled.append(*random.Random(seed).sample(records, len(records)))
    assert {key: shuffled.best(*key) for key in keys} == before
    exported = tmp_path / "best.jsonl"
    count = store.export(exported)
    assert count == sum(1 for each in before.values() if each and each.decisions)
    for record in Store(exported).read().records:
        assert record == before[record.key]
    store.merge(shuffled)
    assert {key: store.best(*key) for key in keys} == before, "what was taken back stays so"


def test_merge(tmp_path: Path) -> None:
    stores = [Store(tmp_path / str(n)) for n in range(3)]
    for n, store in enumerate(stores):
        store.append(*(sample(10 * n + i, machine=f"board {n}") for i in range(5)), PLAIN)
    whole = Store(tmp_path / "whole")
    assert whole.merge(*stores).added == 16
    again = whole.merge(*stores, whole)
    assert (again.added, again.known) == (0, 34)
    machines = [record.machine for record in whole.read().records]
    assert sorted(machines) == sorted(["bench", *(f"board {n % 3}" for n in range(15))])


def test_merge_many(tmp_path: Path) -> None:
    """More than one write of them."""
    big = Store(tmp_path / "big")
    big.append(*(sample(n) for n in range(9000)))
    whole = Store(tmp_path / "whole")
    assert whole.merge(big).added == 9000
    assert whole.read().records == big.read().records


def test_features_key() -> None:
    keys = {name: features_key(resolve(name)) for name in ("x86-64-v3", "n100", "aarch64")}
    assert len(set(keys.values())) == 3
    assert keys["aarch64"].startswith("aarch64 ")
    base = resolve("x86-64-v3")
    for change in (
        *({"mcpu": "haswell"}, {"features": ("+avxvnni",)}, {"vector_bits": 512}),
        *({"vector_registers": 32}, {"fma_units": 1}, {"l1_bytes": 1}, {"l2_bytes": 1}),
        *({"channel_block": 8}, {"arch": "other"}),
    ):
        assert features_key(dataclasses.replace(base, **change)) != keys["x86-64-v3"]
    same = dataclasses.replace(base, name="mine", summary="", libc="glibc 2.31", qemu_cpu="")
    assert features_key(same) == keys["x86-64-v3"]
    more = [dataclasses.replace(base, features=f) for f in (("+a", "+b"), ("+b", "+a"))]
    assert features_key(more[0]) == features_key(more[1])


def test_timestamps_grow() -> None:
    taken = [timestamp() for _ in range(1000)]
    assert taken == sorted(taken)
    assert sample(date=taken[0]) == decode(encode(sample(date=taken[0])))


def test_only_what_was_confirmed_is_used() -> None:
    rule = sample(0, decisions={}, seconds=2e-3, confirmed=False)
    slow, lucky = sample(1, seconds=1.5e-3), sample(2, seconds=0.5e-3, confirmed=False)
    assert pick(rule, slow, lucky) == slow
    assert pick(rule, lucky) == rule
    again = sample(1, seconds=1e-3, confirmed=False, date="2026-02-01T12:00:00.000000Z")
    assert pick(rule, slow, again) == slow, "a trial takes no confirmed record's place"
