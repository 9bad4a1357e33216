"""Running, verifying and timing elsewhere: under QEMU, over SSH (a stand-in that runs the command
here) and by TVM's RPC."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from command import Edgec
from standin import stand_in
from test_targets import HERE, emulator

REPO = Path(__file__).parents[2]
OTHER = "rpi4" if HERE != "aarch64" else "x86-64-v2"


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    folder = stand_in(tmp_path, monkeypatch)
    yield "ssh:pi@board"
    assert not list(folder.glob("edgec-??????")), "something is left on the board"


@pytest.fixture
def both(edgec: Edgec, digits: Path, tmp_path: Path) -> Path:
    """The digits model for this machine and another."""
    path = tmp_path / "both.edgec"
    assert edgec("compile", digits, "--target", HERE, "--target", OTHER, "-o", path).code == 0
    return path


def answers(edgec: Edgec, artifact: Path, place: str, folder: Path) -> list[int]:
    """The digits that are seen on the first pictures."""
    pictures = folder / "pictures.npz"
    images = np.load(REPO / "models" / "digits_test.npz")["image"][:5]
    np.savez(pictures, image=images)
    words = ["run", artifact, "--on", place, "--input", pictures, "--output", folder / "out"]
    assert edgec(*words).code == 0
    logits = np.load(folder / "out" / "logits.npy")
    return list(logits.reshape(len(images), -1).argmax(axis=1))


def expected() -> list[int]:
    return list(np.load(REPO / "models" / "digits_labels.npy")[:5])


def test_under_qemu(edgec: Edgec, both: Path, digits: Path, tmp_path: Path) -> None:
    """The variant for the other machine is the one that QEMU emulates."""
    emulator("aarch64")
    assert answers(edgec, both, "qemu", tmp_path) == expected()
    done = edgec("verify", both, "--against", digits, "--on", "qemu", "--json")
    assert done.result["verified"] == "emulated"
    assert edgec("run", both, "--on", "qemu", "--selftest").code == 0
    done = edgec("bench", both, "--on", "qemu", "--calls", "5", "--json")
    assert done.result["variant"] == OTHER
    assert 0 < done.result["min_us"] <= done.result["median_us"] <= done.result["max_us"]
    assert "emulator" in done.objects[0]["text"]


def test_over_ssh(edgec: Edgec, both: Path, digits: Path, tmp_path: Path, ssh: str) -> None:
    """A board is asked what it is, and gets the variant it can run."""
    assert answers(edgec, both, ssh, tmp_path) == expected()
    done = edgec("verify", both, "--against", digits, "--on", ssh, "--json")
    assert done.result["verified"] == "device"
    done = edgec("bench", both, "--on", ssh, "--calls", "5", "--threads", "1", "--json")
    assert (done.result["variant"], done.result["threads"]) == (HERE, 1)
    done = edgec("targets", "probe", "--ssh", "pi@board", "--json")
    assert sum(done.result["cores"].values()) >= 1


def test_a_board_that_is_not_there(edgec: Edgec, both: Path, ssh: str) -> None:
    done = edgec("run", both, "--on", "ssh:down")
    assert done.code == 10
    assert "No route to host" in done.err
    assert edgec("targets", "probe", "--ssh", "down").code == 10


def test_a_board_that_cannot_run_it(edgec: Edgec, digits: Path, tmp_path: Path, ssh: str) -> None:
    path = tmp_path / "x.edgec"
    assert edgec("compile", digits, "--target", OTHER, "-o", path).code == 0
    done = edgec("run", path, "--on", ssh)
    assert done.code == 9
    assert f"is for {'aarch64' if OTHER == 'rpi4' else 'x86_64'}" in done.err
    assert f"edgec compile MODEL --target {HERE[:7]}" in done.err


@pytest.mark.parametrize("place", ["qemu:x", "ssh:", "ssh:-oProxyCommand=x", "rpc:", "telnet:x"])
def test_no_place(edgec: Edgec, both: Path, place: str) -> None:
    assert edgec("run", both, "--on", place).code == 2


def test_state_goes_on_from_run_to_run(tmp_path: Path, edgec: Edgec) -> None:
    """Each run there is a process of its own; the state is as in one."""
    emulator("aarch64")
    import onnx.parser

    model = tmp_path / "count.onnx"
    onnx.save(
        onnx.parser.parse_model(
            '<ir_version: 8, opset_import: ["" : 17]> count (float[4] x, float[4] s) => '
            "(float[4] y, float[4] z) { y = Add (x, s) z = Neg (y) }"
        ),
        model,
    )
    path = tmp_path / "count.edgec"
    assert edgec("compile", model, "--target", OTHER, "--state", "y=s", "-o", path).code == 0
    np.savez(tmp_path / "x.npz", x=np.ones((3, 4), np.float32))
    words = ["run", path, "--on", "qemu", "--input", tmp_path / "x.npz", "--output", tmp_path / "o"]
    assert edgec(*words).code == 0
    assert np.load(tmp_path / "o" / "z.npy")[..., 0].ravel().tolist() == [-1, -2, -3]
    assert edgec("verify", path, "--against", model, "--on", "qemu").code == 0


@pytest.fixture
def rpc(tmp_path: Path) -> Iterator[str]:
    """A server of TVM's on the loopback address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["--host", "127.0.0.1", "--port", str(port), "--port-end", str(port + 1)]
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "tvm.exec.rpc_server", *words],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        deadline = time.monotonic() + 60
        while b"bind to" not in (tmp_path / "log").read_bytes() and time.monotonic() < deadline:
            time.sleep(0.1)
        yield f"rpc:127.0.0.1:{port}"
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@pytest.mark.nightly
def test_by_rpc(edgec: Edgec, both: Path, digits: Path, tmp_path: Path, rpc: str) -> None:
    assert answers(edgec, both, rpc, tmp_path) == expected()
    assert edgec("verify", both, "--against", digits, "--on", rpc).code == 0
    done = edgec("targets", "probe", "--rpc", rpc.removeprefix("rpc:"), "--json")
    assert sum(done.result["cores"].values()) >= 1


def test_a_server_that_is_not_there(edgec: Edgec, both: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        done = edgec("run", both, "--on", f"rpc:127.0.0.1:{nobody.getsockname()[1]}")
    assert done.code == 10
    assert "rpc_server" in done.err
