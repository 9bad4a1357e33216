"""A board over SSH, with OpenSSH's own server and client between this machine and itself."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import Edgec
from test_targets import HERE

SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
pytestmark = pytest.mark.skipif(SSHD is None, reason="no sshd: apt-get install openssh-server")


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server of this machine's, and an `ssh` that knows it as `board`."""
    for key in ("host", "user"):
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / key]
        subprocess.run(words, check=True)
    port, remote = _free_port(), tmp_path / "remote"
    remote.mkdir()
    (tmp_path / "sshd_config").write_text(f"""
        ListenAddress 127.0.0.1:{port}
        HostKey {tmp_path}/host
        AuthorizedKeysFile {tmp_path}/user.pub
        PidFile none
        StrictModes no
        UsePAM no
        SetEnv TMPDIR={remote}
    """)
    (tmp_path / "ssh_config").write_text(f"""
        Host board
          HostName 127.0.0.1
          Port {port}
          User {getpass.getuser()}
          IdentityFile {tmp_path}/user
          UserKnownHostsFile {tmp_path}/known
          StrictHostKeyChecking no
          LogLevel ERROR
    """)
    client = tmp_path / "bin" / "ssh"
    client.parent.mkdir()
    client.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {tmp_path}/ssh_config "$@"\n')
    client.chmod(0o755)
    monkeypatch.setenv("PATH", f"{client.parent}:{os.environ['PATH']}")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    server = subprocess.Popen([str(SSHD), "-D", "-f", tmp_path / "sshd_config"])
    try:
        _wait_for(port)
        yield "ssh:board"
        assert not list(remote.iterdir()), "something is left on the board"
    finally:
        server.terminate()
        server.wait()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _wait_for(port: int) -> None:
    until = time.monotonic() + 10
    while time.monotonic() < until:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError(f"no server at port {port}")


@pytest.mark.nightly
def test_run_and_tune_on_a_board(edgec: Edgec, digits: Path, tmp_path: Path, board: str) -> None:
    artifact = tmp_path / "digits.edgec"
    assert edgec("compile", digits, "--target", HERE, "-o", artifact).code == 0
    done = edgec("verify", artifact, "--against", digits, "--on", board, "--json")
    assert done.result["verified"] == "device"
    done = edgec("bench", artifact, "--on", board, "--calls", "5", "--json")
    assert done.result["median_us"] > 0
    assert edgec("targets", "probe", "--ssh", "board", "--json").result["target"]
    words = ["--target", HERE, "--on", board, "--trials", "2", "--records", tmp_path / "records"]
    done = edgec("tune", digits, *words, "--json")
    assert (done.result["trials"], done.result["valid"]) == (2, 2)


def test_a_server_that_refuses(edgec: Edgec, digits: Path, tmp_path: Path, board: str) -> None:
    artifact = tmp_path / "digits.edgec"
    assert edgec("compile", digits, "--target", HERE, "-o", artifact).code == 0
    (tmp_path / "user.pub").unlink()
    done = edgec("run", artifact, "--on", board)
    assert done.code == 10
    assert "Permission denied" in done.err
