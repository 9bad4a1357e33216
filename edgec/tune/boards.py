"""Boards: where kernels are measured.

Whatever a board is, a command runs for it on this machine that reads requests and writes answers,
each preceded by its length in 8 bytes, little-endian: `edgec-measure` itself, QEMU with it, an SSH
client, or a go-between to TVM's tracker.
"""

from __future__ import annotations

import shlex
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgec.cache import Cache
from edgec.errors import DeviceError, TargetError, UsageError
from edgec.targets import Target, emulator, runs_here
from edgec.tune.program import measuring_program

REACH_S = 60.0
"""How long it may take to log in on a board and copy the program there."""

_PROGRAM = "edgec-measure"
SSH = ("ssh", "-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10")
_ALIVE = ("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3")


@dataclass(frozen=True)
class Command:
    """A command that measures, and a folder that is to go when it has ended."""

    words: tuple[str, ...]
    folder: Path | None = None


class Board(Protocol):
    """Where kernels are measured."""

    @property
    def name(self) -> str:
        """As reports and records call it."""

    @property
    def is_here(self) -> bool:
        """Whether it shares this machine's processors."""

    def command(self, target: Target, cache: Cache) -> Command:
        """The command that measures there, with everything it needs in place.

        Raises:
            DeviceError: it cannot be reached, or does not fit `target`.
            LoweringError, TargetError: the program for it cannot be built.
        """


@dataclass(frozen=True)
class Local:
    """This machine, or one that QEMU emulates on it where its own processor is another."""

    @property
    def name(self) -> str:
        return "local"

    @property
    def is_here(self) -> bool:
        return True

    def command(self, target: Target, cache: Cache) -> Command:
        before = _emulation(target)
        folder = Path(tempfile.mkdtemp(prefix="edgec-"))
        program = folder / _PROGRAM
        program.write_bytes(measuring_program(target, cache))
        program.chmod(0o700)
        return Command((*before, str(program), "--remove"), folder)


@dataclass(frozen=True)
class Ssh:
    """A machine that `ssh` reaches, without a password. The program is copied there, and removes
    itself when it starts."""

    destination: str

    @property
    def name(self) -> str:
        return f"ssh:{self.destination}"

    @property
    def is_here(self) -> bool:
        return False

    def command(self, target: Target, cache: Cache) -> Command:
        program = measuring_program(target, cache)
        said = self._copy(program)
        machine, _, folder = said.strip().partition(" ")
        if machine != target.arch:
            self._run(f"rm -rf {shlex.quote(folder)}", b"")
            raise DeviceError(
                f"is a machine of type {machine}, target '{target.name}' is {target.arch}",
                where=self.name,
                hint="tune for the target that the board is",
            )
        path = shlex.quote(f"{folder}/{_PROGRAM}")
        run = f"{path} --remove; code=$?; rm -rf {shlex.quote(folder)}; exit $code"
        return Command((*SSH, *_ALIVE, "--", self.destination, run))

    def _copy(self, program: bytes) -> str:
        """The type of the machine and the new folder that the program lies in."""
        return self._run(
            'set -e; d=$(mktemp -d "${TMPDIR:-/tmp}/edgec-XXXXXX"); '
            "trap 'rm -rf \"$d\"' EXIT; trap 'exit 1' HUP INT TERM; "
            f'f="$d/{_PROGRAM}"; cat > "$f"; test "$(wc -c < "$f")" -eq {len(program)}; '
            'chmod 700 "$f"; echo "$(uname -m) $d"; trap - EXIT',
            program,
        )

    def _run(self, script: str, given: bytes) -> str:
        command = [*SSH, "--", self.destination, script]
        try:
            done = subprocess.run(command, input=given, capture_output=True, timeout=REACH_S)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise DeviceError(f"cannot be reached: {error}", where=self.name) from error
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            why = said[-1] if said else f"ssh ended with status {done.returncode}"
            raise DeviceError(
                f"cannot be reached: {why[:300]}",
                where=self.name,
                hint=f"`ssh {self.destination} true` must work without a password",
            )
        return done.stdout.decode(errors="replace")


def board(text: str) -> Board:
    """The board that `text` names: "local", or "ssh:USER@HOST".

    Raises:
        UsageError: it names none.
    """
    if text == "local":
        return Local()
    scheme, _, destination = text.partition(":")
    if scheme == "ssh" and destination and not destination.startswith("-"):
        return Ssh(destination)
    raise UsageError(
        f"'{text}' names no board", where="--on", hint="ssh:USER@HOST, or local for this machine"
    )


def _emulation(target: Target) -> tuple[str, ...]:
    """What comes before a program for `target` to run it on this machine."""
    if runs_here(target):
        return ()
    qemu = emulator(target)
    if qemu is None:
        raise TargetError(
            f"this machine cannot run code for '{target.name}'",
            hint="name a board that can: --on ssh:USER@HOST",
        )
    return (qemu, "-cpu", target.qemu_cpu)
