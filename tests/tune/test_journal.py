"""Damage to a store: every cut, every flip, and what was never one; the rest stays readable."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from samples import PLAIN, sample

from edgec.errors import TuningError
from edgec.tune import journal
from edgec.tune.journal import LINE_LIMIT, Journal, line_of
from edgec.tune.record import encode
from edgec.tune.records import FILE, Store

RECORDS = [sample(n, label=f"number {n}") for n in range(4)]
LINES = [line_of(encode(record)) for record in RECORDS]


@contextlib.contextmanager
def limited_files(nbytes: int) -> Iterator[None]:
    """No file may become larger meanwhile."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_line_is_json() -> None:
    [line] = LINES[0].splitlines()
    facts = json.loads(line)
    assert set(facts) == {"edgec", "sum", "record"}
    assert facts["record"]["label"] == "number 0"


def test_cut_at_every_byte(tmp_path: Path) -> None:
    """What was whole is read, and the next record that is appended is kept and no more is torn."""
    whole = b"".join(LINES)
    file = tmp_path / FILE
    store = Store(tmp_path)
    for cut in range(len(whole) + 1):
        file.write_bytes(whole[:cut])
        reading = store.read()
        count = len(reading.records)
        assert reading.records == RECORDS[:count]
        ends = [sum(map(len, LINES[: n + 1])) for n in range(len(LINES))]
        assert count == sum(cut >= end - 1 for end in ends)
        rest = cut - sum(map(len, LINES[:count]))
        assert (reading.torn, reading.foreign) == (int(rest > 0), 0)
        if cut % 7 == 0 or rest in (-1, 0, 1):
            store.append(PLAIN)
            mended = store.check()
            assert mended.records == [*RECORDS[:count], PLAIN]
            assert (mended.torn, mended.foreign) == (0, 0)


def test_a_piece_lost_anywhere(tmp_path: Path) -> None:
    """Bytes missing in the middle cost the lines that they are of."""
    whole = b"".join(LINES)
    file = tmp_path / FILE
    draw = random.Random(1)
    for _ in range(300):
        start = draw.randrange(len(whole))
        end = min(len(whole), start + draw.choice([1, 2, 50, 500]))
        file.write_bytes(whole[:start] + whole[end:])
        touched = [
            max(0, sum(map(len, LINES[:n]))) < end and start < sum(map(len, LINES[: n + 1]))
            for n in range(len(LINES))
        ]
        found = Store(tmp_path).read().records
        assert [r for r in found if r not in RECORDS] == []
        assert set(map(repr, found)) >= {
            repr(record) for record, hit in zip(RECORDS, touched, strict=True) if not hit
        }


def test_flipped_bits(tmp_path: Path) -> None:
    """Any bit flipped costs the record that it is of, and nobody reads a wrong one."""
    whole = b"".join(LINES)
    file = tmp_path / FILE
    draw = random.Random(2)
    places = [(n, bit) for n in range(len(whole)) for bit in range(8)]
    for place, bit in draw.sample(places, 2000) + [(len(line) - 1, 0) for line in LINES]:
        changed = bytearray(whole)
        changed[place] ^= 1 << bit
        file.write_bytes(changed)
        reading = Store(tmp_path).read()
        assert [r for r in reading.records if r not in RECORDS] == []
        assert len(reading.records) >= len(RECORDS) - 1
        if len(reading.records) < len(RECORDS):
            assert reading.torn + reading.foreign >= 1


def test_a_torn_record_before_whole_ones(tmp_path: Path) -> None:
    """As writers that mend nothing would leave it."""
    (tmp_path / FILE).write_bytes(LINES[0][:100] + LINES[1] + LINES[2][:-1] + LINES[3])
    reading = Store(tmp_path).read()
    assert reading.records == RECORDS[1:]
    assert (reading.torn, reading.foreign) == (1, 0)
    assert reading.problems[0].line == 1


def test_mending_takes_no_whole_record(tmp_path: Path) -> None:
    """A line break was lost between two, and the last one's was not yet written."""
    (tmp_path / FILE).write_bytes(LINES[0][:-1] + LINES[1][:-1])
    store = Store(tmp_path)
    store.append(PLAIN)
    assert store.read().records == [*RECORDS[:2], PLAIN]


FOREIGN = [
    b"\n\n\n",
    b"\x00" * 5000,
    b"\xff\xfe\x00garbage",
    b'{"edgec":2,"sum":"0123456789abcdef","record":{}}',
    b"<html>" * 100,
    encode(PLAIN),
    b'["workload", []]',
    os.urandom(5000).replace(b"\n", b""),
]


@pytest.mark.parametrize("text", FOREIGN, ids=range(len(FOREIGN)))
def test_foreign_lines(tmp_path: Path, text: bytes) -> None:
    """They are counted wherever they stand; nothing is taken away that is not ours."""
    file = tmp_path / FILE
    file.write_bytes(LINES[0] + text)
    store = Store(tmp_path)
    store.append(RECORDS[1])
    assert file.read_bytes().startswith(LINES[0] + text)
    reading = store.check()
    assert reading.records == RECORDS[:2]
    assert (reading.torn, reading.foreign) == (0, max(1, text.count(b"\n")))
    assert store.prune().foreign == reading.foreign
    assert store.check().foreign == 0


def test_a_huge_line_is_not_held(tmp_path: Path) -> None:
    """1 GB without a line break, between records, read in little memory."""
    file = tmp_path / FILE
    with open(file, "wb") as stream:
        stream.write(LINES[0])
        stream.seek(10**9, os.SEEK_CUR)
        stream.write(b"\n" + LINES[1])
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from edgec.tune.records import Store\n"
        "pages = int(Path('/proc/self/statm').read_text().split()[0])\n"
        "limit = pages * resource.getpagesize() + (32 << 20)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        "reading = Store(Path(sys.argv[1])).read()\n"
        "print(len(reading.records), reading.torn, reading.foreign)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "2 0 1\n"), done.stderr
    Store(tmp_path).append(PLAIN)
    assert Store(tmp_path).read().records == [*RECORDS[:2], PLAIN]


def test_a_huge_unfinished_line_is_left(tmp_path: Path) -> None:
    file = tmp_path / FILE
    text = LINES[0] + b"x" * (2 * LINE_LIMIT + 5)
    file.write_bytes(text)
    Store(tmp_path).append(PLAIN)
    assert file.read_bytes() == text + b"\n" + line_of(encode(PLAIN))


@pytest.mark.parametrize("kind", ["link", "device", "pipe", "folder"])
def test_what_is_no_file(tmp_path: Path, kind: str) -> None:
    """Nothing is read or written through links, pipes and the like; nothing hangs."""
    store = tmp_path / "store"
    store.mkdir()
    elsewhere = tmp_path / "mine.txt"
    elsewhere.write_bytes(LINES[0])
    if kind == "link":
        (store / FILE).symlink_to(elsewhere)
    elif kind == "device":
        (store / FILE).symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(store / FILE)
    else:
        (store / FILE).mkdir()
    for action in (Store(store).read, lambda: Store(store).append(PLAIN)):
        with pytest.raises(TuningError) as raised:
            action()
        assert raised.value.where == str(store / FILE)
    assert elsewhere.read_bytes() == LINES[0]


def test_the_lock_is_no_way_out(tmp_path: Path) -> None:
    (tmp_path / ".lock").symlink_to("/dev/null")
    with pytest.raises(TuningError, match="locked"):
        Store(tmp_path).append(PLAIN)


def test_a_store_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "in the way").write_text("")
    with pytest.raises(TuningError) as raised:
        Store(tmp_path / "in the way" / "store").append(PLAIN)
    assert "store" in raised.value.where


def test_waiting_for_a_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for ever; then it is said who might be asked."""
    kept = Journal(tmp_path / FILE)
    monkeypatch.setattr(journal, "LOCK_LIMIT", 0.2)
    with kept.locked():
        started = time.monotonic()
        with pytest.raises(TuningError, match="another process"):
            Store(tmp_path).append(PLAIN)
        assert 0.2 <= time.monotonic() - started < 5
        writer = threading.Thread(target=Store(tmp_path).append, args=(PLAIN,))
        writer.start()
        time.sleep(0.05)
        assert Store(tmp_path).read().records == []
    writer.join()
    assert Store(tmp_path).read().records == [PLAIN]


def test_several_are_kept_together_or_not_at_all(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.append(PLAIN)
    with limited_files(len(line_of(encode(PLAIN))) + 1500), pytest.raises(TuningError):
        store.append(*(sample(n) for n in range(50)))
    assert (tmp_path / FILE).read_bytes() == line_of(encode(PLAIN))


def test_prune_that_cannot_write_changes_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.append(*(sample(n) for n in range(50)), *(sample(n, kernel="b") for n in range(9)))
    before = (tmp_path / FILE).read_bytes()
    with limited_files(100), pytest.raises(TuningError) as raised:
        store.prune()
    assert "mounted at" in raised.value.hint
    assert (tmp_path / FILE).read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {FILE, ".lock"}
    (tmp_path / f".{FILE}.0badcafe").write_bytes(b"left by one that was killed")
    assert store.prune().kept == 2
    assert {path.name for path in tmp_path.iterdir()} == {FILE, ".lock"}
