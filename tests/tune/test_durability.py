"""What was acknowledged is there: after kills, on a full disk, with many writers."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from writer import written

from edgec.tune.records import FILE, Store

WRITER = [sys.executable, str(Path(__file__).with_name("writer.py"))]


def start(folder: Path, name: str, first: int, count: int, **options: Any) -> subprocess.Popen[str]:
    """A writer as a process."""
    command = [*WRITER, str(folder), name, str(first), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)


def numbers_of(store: Store, name: str) -> list[int]:
    """Numbers of the records of one writer, each of which must be what it wrote."""
    mine = [record for record in store.read().records if record.machine == name]
    for record in mine:
        assert record == written(name, record.seed)
    return [record.seed for record in mine]


@pytest.mark.parametrize(
    "rounds", [12, pytest.param(200, marks=pytest.mark.nightly)], ids=["short", "full"]
)
def test_killed_at_random_points(tmp_path: Path, rounds: int) -> None:
    """Of two writers one is killed; the other is never kept waiting, and nothing kept is lost."""
    draw = random.Random(3)
    store = Store(tmp_path)
    acknowledged: list[int] = []
    survivor = start(tmp_path, "survivor", 0, 10**9)
    for _ in range(rounds):
        victim = start(tmp_path, "victim", max(acknowledged, default=-1) + 1000, 10**9)
        assert victim.stdout is not None
        acknowledged.append(int(victim.stdout.readline()))
        time.sleep(draw.uniform(0, 0.03))
        victim.send_signal(signal.SIGKILL)
        acknowledged += [int(line) for line in victim.stdout.read().split()]
        victim.wait()
    survivor.send_signal(signal.SIGKILL)
    assert survivor.stdout is not None
    survived = [int(line) for line in survivor.stdout.read().split()]
    survivor.wait()
    assert len(survived) > rounds
    kept = Counter(numbers_of(store, "victim"))
    assert not set(acknowledged) - set(kept)
    assert len(kept) - len(acknowledged) <= rounds, "one more a kill was kept and not yet said"
    assert set(numbers_of(store, "survivor")) >= set(survived)
    assert max(kept.values()) == 1
    store.append(written("last", 0))
    reading = store.check()
    assert (reading.torn, reading.foreign) == (0, 0)


@pytest.mark.parametrize(
    "count", [50, pytest.param(500, marks=pytest.mark.nightly)], ids=["short", "full"]
)
def test_many_writers(tmp_path: Path, count: int) -> None:
    names = [f"writer {n}" for n in range(8)]
    writers = [start(tmp_path, name, 0, count) for name in names]
    for writer in writers:
        said, _ = writer.communicate()
        assert said.split() == [str(n) for n in range(count)]
    for name in names:
        assert numbers_of(Store(tmp_path), name) == list(range(count)), (
            "in the order they were kept"
        )
    reading = Store(tmp_path).check()
    assert (len(reading.records), reading.torn, reading.foreign) == (8 * count, 0, 0)


def test_writers_while_it_is_pruned(tmp_path: Path) -> None:
    """Appending to a file that is being replaced: the records are in the new one."""
    store = Store(tmp_path)
    writers = [start(tmp_path, f"writer {n}", 0, 60) for n in range(2)]
    while any(writer.poll() is None for writer in writers):
        store.prune()
    for writer in writers:
        assert writer.communicate()[0].split()[-1] == "59"
    for kernel in (f"writer {n}.{k}" for n in range(2) for k in range(5)):
        [best] = {r.seed for r in store.read([kernel]).records if r == store.best(*r.key)}
        assert best == int(kernel[-1]), "the fastest of a kernel is its first"


ON_A_SMALL_DISK = """
set -e
mount -t tmpfs -o size=96k none "$1"
shift
dd if=/dev/zero of="$1/filler" bs=1k count=16 2>/dev/null
"$@" disk 0 100000
"$@" disk 200000 1 # still full
echo "left: $(ls -A "$1" | tr '\\n' ' ')"
rm "$1/filler"
"$@" disk 300000 1 # there is room again
cat "$1/{file}" > "$KEPT"
"""


def test_full_disk(tmp_path: Path) -> None:
    """A real one, in a name space of its own: loud, nothing lost, and mended when there is room."""
    namespace = ["unshare", "-rm", "sh", "-c"]
    small = tmp_path / "small"
    small.mkdir()
    mount = [*namespace, 'mount -t tmpfs -o size=96k none "$0"', str(small)]
    if not shutil.which("unshare") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs user name spaces: sysctl kernel.unprivileged_userns_clone=1")
    kept = tmp_path / "kept" / FILE
    kept.parent.mkdir()
    script = ON_A_SMALL_DISK.replace("{file}", FILE).replace('"$@" disk', 'write "$1" disk')
    script = f'write() {{ {sys.executable} {WRITER[1]} "$@"; }}\n{script}'
    done = subprocess.run(
        [*namespace, script, "sh", str(small), str(small)],
        capture_output=True,
        text=True,
        env=os.environ | {"KEPT": str(kept)},
    )
    assert done.returncode == 0, done.stderr
    check_full(done.stdout, small / FILE, str(small), Store(kept.parent))


def check_full(said: str, file: Path, disk: str, store: Store) -> None:
    """What writers said who filled a disk, and whether what they acknowledged is in `store`."""
    lines = said.splitlines()
    numbers = [int(line) for line in lines if line.isdigit()]
    complaints = [line for line in lines if line.startswith("full: ")]
    assert len(complaints) == 2
    for complaint in complaints:
        assert complaint.startswith(f"full: {file}: records cannot be kept: ")
        assert f"mounted at {disk}" in complaint
    assert len(numbers) > 20
    assert numbers_of(store, "disk") == numbers
    assert numbers[-1] == 300_000
    reading = store.read()
    assert (reading.torn, reading.foreign) == (0, 0)


def test_file_size_limit(tmp_path: Path) -> None:
    """The same where a process may write so much and no more: the last write is cut short."""

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    said = "".join(
        start(tmp_path, "disk", first, count, preexec_fn=preexec).communicate()[0]
        for first, count, preexec in (
            (0, 10**6, limited),
            (200_000, 1, limited),
            (300_000, 1, None),
        )
    )
    place = tmp_path
    while not place.is_mount():
        place = place.parent
    check_full(said, tmp_path / FILE, str(place), Store(tmp_path))
