"""Candidates are measured; what goes wrong with one costs that one."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from small_kernels import adds, kernel, never_ends, reads_beyond

from edgec.cache import Cache
from edgec.errors import TuningError
from edgec.targets import host, resolve
from edgec.tune.boards import Local
from edgec.tune.measure import Effort, Measured, Measurer

QUICK = Effort(bursts=4, burst_s=0.001, limit_s=0.5)


@pytest.fixture(scope="module")
def measurer() -> Iterator[Measurer]:
    with Measurer(host(), effort=QUICK, cache=Cache.default()) as measurer:
        yield measurer


def one(measurer: Measurer, *arguments: object) -> Measured:
    (result,) = measurer.measure(*arguments)  # type: ignore[arg-type]
    return result[1]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_candidate_is_measured(measurer: Measurer, threads: int) -> None:
    measured = one(measurer, adds(), [{}], threads)
    assert measured.error == ""
    assert 1e-8 < measured.seconds < 1e-3
    assert measured.board == "local"
    assert measured.cost.run > 0


def test_more_candidates_than_are_begun_at_once_all_come(measurer: Measurer) -> None:
    results = list(measurer.measure(adds(), [{}] * 20, 1))
    assert len(results) == 20
    assert all(math.isfinite(measured.seconds) for _, measured in results)


def test_candidates_are_read_as_they_are_needed(measurer: Measurer) -> None:
    read = []
    candidates = (read.append(i) or {} for i in range(1000))
    for _, _ in zip(range(3), measurer.measure(adds(), candidates, 1), strict=False):
        pass
    assert 3 <= len(read) < 20


@pytest.mark.parametrize(
    ("bad", "error"),
    [(reads_beyond, "crash: SIGSEGV"), (never_ends, "hang")],
)
def test_a_bad_kernel_costs_one_trial(measurer: Measurer, bad: object, error: str) -> None:
    measured = one(measurer, bad(), [{}], 1)  # type: ignore[operator]
    assert measured.error.startswith(error)
    assert measured.seconds == math.inf
    assert one(measurer, adds(), [{}], 1).error == ""


def test_what_does_not_compile_costs_one_trial(measurer: Measurer) -> None:
    broken = replace(adds(), overwrites=(0, 99))
    assert one(measurer, broken, [{}], 1).error.startswith("build: ")
    assert one(measurer, adds(), [{}], 1).error == ""


def test_more_memory_than_the_limit_is_refused() -> None:
    with Measurer(host(), effort=replace(QUICK, memory_bytes=10_000), jobs=1) as small:
        assert one(small, adds(), [{}], 1).error.startswith("memory")


def test_the_rule_agrees_with_itself(measurer: Measurer) -> None:
    assert measurer.check(adds(), {}) == ""


def test_an_overwritten_input_is_restored(measurer: Measurer) -> None:
    over = replace(adds(), overwrites=(0, 2))
    assert measurer.check(over, {}) == ""
    assert one(measurer, over, [{}], 1).error == ""


def test_a_candidate_that_leaves_output_unwritten_is_wrong(measurer: Measurer) -> None:
    from tvm import te

    half = kernel("half", lambda x: te.compute((2048,), lambda i: x[i] + 1), "float32")
    assert "wrong result on random inputs: output 0: 2048 of 4096" in measurer.check(half, {})


def test_an_untuned_kernel_that_fails_is_told(measurer: Measurer) -> None:
    with pytest.raises(TuningError, match="untuned kernel fails: crash"):
        measurer.check(reads_beyond(), {})


def test_no_board_left_ends_tuning() -> None:
    other = resolve("aarch64" if host().arch == "x86_64" else "x86-64-v2")
    lame = replace(other, qemu_cpu="")
    with (
        Measurer(lame, [Local()], jobs=1) as measurer,
        pytest.raises(TuningError, match="no board is left") as raised,
    ):
        list(measurer.measure(adds(), [{}], 1))
    assert raised.value.exit_code == 11
    assert "cannot run code" in raised.value.what


def children(pid: int) -> set[int]:
    """All processes below one."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True).stdout
    pairs = [tuple(map(int, line.split())) for line in listed.splitlines()]
    found, before = {pid}, 0
    while len(found) > before:
        before = len(found)
        found |= {child for child, parent in pairs if parent in found}
    return found - {pid}


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


_ENDLESS = """
from edgec.targets import host
from edgec.tune.measure import Effort, Measurer
from small_kernels import adds, never_ends
with Measurer(host(), effort=Effort(limit_s=100)) as measurer:
    list(measurer.measure(adds(), [{}], 1))
    print("ready", flush=True)
    list(measurer.measure(never_ends(), [{}] * 9, 1))
"""


def test_no_process_outlives_a_killed_parent(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", _ENDLESS],
        cwd=Path(__file__).parent,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == "ready\n"
    time.sleep(1.5)
    below = children(parent.pid)
    assert len(below) >= 3, "builders, the program and its trial"
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 5
    while any(map(alive, below)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in below if alive(pid)]
    assert not list(tmp_path.glob("edgec-*/edgec-measure"))


def test_a_killed_program_is_started_again() -> None:
    notes: list[str] = []
    with Measurer(host(), effort=QUICK, jobs=1, on_note=notes.append) as other:
        assert one(other, adds(), [{}], 1).error == ""
        listed = subprocess.run(["pgrep", "-P", str(os.getpid())], capture_output=True, text=True)
        names = {pid: Path(f"/proc/{pid}/comm").read_text() for pid in listed.stdout.split()}
        mine = [int(pid) for pid, name in names.items() if name.startswith("edgec-measure")]
        os.kill(max(mine), signal.SIGKILL)
        assert one(other, adds(), [{}], 1).error == ""
    assert [note for note in notes if "board back: local" in note]


def test_a_kernel_of_another_machine() -> None:
    target = resolve("aarch64")
    try:
        with Measurer(target, effort=replace(QUICK, limit_s=20), jobs=1) as emulated:
            assert one(emulated, adds(), [{}], 1).error == ""
            assert emulated.check(adds(), {}) == ""
            assert one(emulated, reads_beyond(), [{}], 1).error == "crash: SIGSEGV"
    except TuningError as error:
        pytest.skip(f"needs qemu-aarch64: {error.what}")
