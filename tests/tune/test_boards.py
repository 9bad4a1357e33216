"""Boards over SSH, by a stand-in for `ssh` that runs the command here; and several at once."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from small_kernels import adds, never_ends
from standin import stand_in

from edgec.errors import EdgecError, TuningError, UsageError
from edgec.targets import host, resolve
from edgec.tune.boards import Local, Ssh, board
from edgec.tune.measure import Effort, Measurer

QUICK = Effort(bursts=4, burst_s=0.001, limit_s=1.0)


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the stand-in's temporary folders are; beside it is a log of its arguments."""
    folder = stand_in(tmp_path, monkeypatch)
    yield folder
    assert not list(folder.glob("edgec-??????/edgec-measure")), "something is left on the board"


def test_a_board_over_ssh(remote: Path) -> None:
    with Measurer(host(), [Ssh("pi@board")], jobs=1, effort=QUICK) as measurer:
        ((_, measured),) = measurer.measure(adds(), [{}], 1)
        assert not list(remote.glob("edgec-??????")), "the program removes itself when it starts"
        assert measurer.check(adds(), {}) == ""
    assert measured.error == ""
    assert measured.board == "ssh:pi@board"
    first, second = (remote.parent / "log").read_text().splitlines()
    for line in (first, second):
        assert "-o BatchMode=yes" in line
        assert " -- pi@board " in line


def test_a_board_that_is_not_reached_is_told(remote: Path) -> None:
    with (
        Measurer(host(), [Ssh("down")], jobs=1, effort=QUICK) as measurer,
        pytest.raises(TuningError, match=r"ssh:down: cannot be reached: .*No route to host"),
    ):
        list(measurer.measure(adds(), [{}], 1))


def test_a_board_of_another_architecture_is_told(remote: Path) -> None:
    target = resolve("aarch64" if host().arch == "x86_64" else "x86-64-v2")
    with (
        Measurer(target, [Ssh("pi@board")], jobs=1, effort=QUICK) as measurer,
        pytest.raises(TuningError, match=f"is a machine of type {host().arch}"),
    ):
        list(measurer.measure(adds(), [{}], 1))


def test_a_board_that_lacks_a_feature_is_told(remote: Path) -> None:
    target = replace(host(), cpu_flags=(*host().cpu_flags, "amx_of_tomorrow"))
    with (
        Measurer(target, [Ssh("pi@board")], jobs=1, effort=QUICK) as measurer,
        pytest.raises(TuningError, match="its CPU has no 'amx_of_tomorrow'"),
    ):
        list(measurer.measure(adds(), [{}], 1))


def test_others_go_on_without_a_board_that_is_lost(remote: Path) -> None:
    notes: list[str] = []
    boards = [Ssh("down"), Ssh("pi@one"), Ssh("pi@two")]
    with Measurer(host(), boards, jobs=1, effort=QUICK, on_note=notes.append) as measurer:
        results = [measured for _, measured in measurer.measure(adds(), [{}] * 40, 1)]
        assert len(results) == 40
        assert {measured.error for measured in results} == {""}
        assert {measured.board for measured in results} == {"ssh:pi@one", "ssh:pi@two"}
    assert [note for note in notes if note.startswith("board lost: ssh:down")]


def test_a_connection_that_breaks_costs_no_candidate(remote: Path) -> None:
    notes: list[str] = []

    def cut() -> None:
        running: list[str] = []
        while len(running) < 2:  # the program, and the trial that it has begun
            time.sleep(0.01)
            words = ["pgrep", "-f", f"^{remote}/edgec-.*/edgec-measure --remove"]
            running = subprocess.run(words, capture_output=True, text=True).stdout.split()
        os.kill(int(running[0]), signal.SIGKILL)

    with Measurer(host(), [Ssh("pi@one")], jobs=1, effort=QUICK, on_note=notes.append) as measurer:
        list(measurer.measure(adds(), [{}], 1))
        cutter = threading.Thread(target=cut)
        cutter.start()
        (result,) = measurer.measure(never_ends(), [{}], 1)
        cutter.join()
    assert result[1].error.startswith("hang"), "measured again when the board was back"
    assert [note for note in notes if note.startswith("board back: ssh:pi@one")]


def test_boards_by_name() -> None:
    assert board("local") == Local()
    assert board("ssh:pi@board") == Ssh("pi@board")
    for text in ("", "pi@board", "ssh:", "ssh:-oProxyCommand=x", "ftp:x"):
        with pytest.raises(UsageError, match="names no board"):
            board(text)


def test_a_machine_that_cannot_run_it_is_told() -> None:
    lame = replace(resolve("aarch64"), arch="riscv64", qemu_cpu="")
    with pytest.raises(EdgecError, match="cannot run code for"):
        Local().command(lame, None)  # type: ignore[arg-type]
