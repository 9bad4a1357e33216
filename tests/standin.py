"""A stand-in for ssh, which runs on this machine what a board is asked to run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_SSH = """#!/bin/sh
echo "$@" | head -n 1 >> "$SSH_LOG"
case "$*" in *down*) echo "ssh: connect to host down port 22: No route to host" >&2; exit 255;; esac
while [ "$1" != -- ]; do shift; done
[ $# = 3 ] || exit 99
exec sh -c "$3"
"""


def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put it first in PATH: where its temporary folders are; beside it is a log of its
    arguments."""
    program = folder / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(_SSH)
    program.chmod(0o755)
    board = folder / "board"
    board.mkdir()
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("SSH_LOG", str(folder / "log"))
    monkeypatch.setenv("TMPDIR", str(board))
    return board
