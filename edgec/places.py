"""Places to run a module other than in this process: QEMU here, a machine by SSH or by TVM's RPC.

A place is a folder somewhere that files are put into and commands are run in. It goes when the
place is closed.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from edgec import probefiles
from edgec.errors import DeviceError, TargetError, UsageError
from edgec.probefiles import Answers
from edgec.rpcshell import RpcShell
from edgec.targets import Target, emulator
from edgec.tune.boards import REACH_S, SSH

RUN_S = 900.0
"""A program that takes longer is taken for a hang."""


@dataclass(frozen=True)
class Ended:
    """How a program ended: its status, and what it wrote."""

    status: int
    output: bytes
    errors: str


class Place(Protocol):
    """Where programs can be run. Every method raises DeviceError where it cannot be reached."""

    @property
    def name(self) -> str:
        """As the command line calls it."""

    def answers(self) -> Answers | None:
        """What the machine says of itself; None where it is whatever is emulated."""

    def put(self, name: str, data: bytes) -> None:
        """Write a file, which can be executed."""

    def run(self, words: Sequence[str], given: bytes, target: Target) -> Ended:
        """Run a program that was put there, made for `target`, with `given` as its input."""

    def close(self) -> None:
        """Leave nothing behind."""


@dataclass
class Qemu:
    """Whatever QEMU's user mode emulates on this machine."""

    name: str = "qemu"
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="edgec-")))

    def answers(self) -> Answers | None:
        return None

    def put(self, name: str, data: bytes) -> None:
        (self.folder / name).write_bytes(data)
        (self.folder / name).chmod(0o700)

    def run(self, words: Sequence[str], given: bytes, target: Target) -> Ended:
        qemu = emulator(target)
        if qemu is None:
            raise TargetError(
                f"there is no {target.qemu} for '{target.name}'", hint="apt-get install qemu-user"
            )
        command = [qemu, "-cpu", target.qemu_cpu, *words]
        return _run(command, given, self.name, self.folder)

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass
class Ssh:
    """A machine that `ssh` reaches without a password."""

    destination: str
    folder: str = ""

    @property
    def name(self) -> str:
        return f"ssh:{self.destination}"

    def answers(self) -> Answers | None:
        return probefiles.over_ssh(self.destination)

    def put(self, name: str, data: bytes) -> None:
        if not self.folder:
            made = self._shell('mktemp -d "${TMPDIR:-/tmp}/edgec-XXXXXX"', b"", REACH_S)
            self.folder = made.decode(errors="replace").strip()
        path = shlex.quote(f"{self.folder}/{name}")
        self._shell(f"cat > {path} && chmod 700 {path}", data, RUN_S)

    def run(self, words: Sequence[str], given: bytes, target: Target) -> Ended:
        command = f"cd {shlex.quote(self.folder)} && exec {shlex.join(words)}"
        return _run([*SSH, "--", self.destination, command], given, self.name)

    def close(self) -> None:
        if self.folder:
            self._shell(f"rm -rf {shlex.quote(self.folder)}", b"", REACH_S)

    def _shell(self, command: str, given: bytes, limit_s: float) -> bytes:
        ended = _run([*SSH, "--", self.destination, command], given, self.name, limit_s=limit_s)
        if ended.status:
            raise DeviceError(
                f"cannot be written to: {ended.errors or f'status {ended.status}'}", where=self.name
            )
        return ended.output


@dataclass
class Rpc:
    """A machine where TVM's RPC server listens at HOST:PORT."""

    address: str

    def __post_init__(self) -> None:
        self._shell = RpcShell(self.address)

    @property
    def name(self) -> str:
        return f"rpc:{self.address}"

    def answers(self) -> Answers | None:
        return probefiles.of_shell(self._shell)

    def put(self, name: str, data: bytes) -> None:
        self._shell.put(name, data)

    def run(self, words: Sequence[str], given: bytes, target: Target) -> Ended:
        program = shlex.quote(words[0])
        status, said, errors = self._shell.run(f"chmod 700 {program}; {shlex.join(words)}", given)
        return Ended(status, said, errors.decode(errors="replace").strip()[-2000:])

    def close(self) -> None:
        self._shell.close()


def place(text: str) -> Place:
    """The place that `text` names: "qemu", "ssh:USER@HOST" or "rpc:HOST:PORT".

    Raises:
        UsageError: it names none.
        DeviceError: it cannot be reached.
    """
    kind, _, where = text.partition(":")
    if text == "qemu":
        return Qemu()
    if kind == "ssh" and where and not where.startswith("-"):
        return Ssh(where)
    if kind == "rpc" and where:
        return Rpc(where)
    raise UsageError(
        f"'{text}' names no place", where="--on", hint="qemu, ssh:USER@HOST or rpc:HOST:PORT"
    )


def _run(
    command: Sequence[str],
    given: bytes,
    name: str,
    folder: Path | None = None,
    limit_s: float = RUN_S,
) -> Ended:
    try:
        done = subprocess.run(
            command, input=given, capture_output=True, timeout=limit_s, cwd=folder
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DeviceError(f"cannot be reached: {error}", where=name) from error
    errors = done.stderr.decode(errors="replace").strip()[-2000:]
    return Ended(done.returncode, done.stdout, errors)
