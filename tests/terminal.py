"""Commands on a terminal."""

from __future__ import annotations

import os
import pty
import subprocess


def on_terminal(command: list[str], environment: dict[str, str]) -> str:
    """What `command` writes to a terminal of 60 columns."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        command,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=os.environ | environment | {"COLUMNS": "60"},
    )
    os.close(slave)
    seen = b""
    while True:
        try:
            block = os.read(master, 65536)
        except OSError:
            break
        if not block:
            break
        seen += block
    os.close(master)
    assert process.wait() == 0
    return seen.decode()
