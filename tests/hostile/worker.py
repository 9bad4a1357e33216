"""Runs the command line again and again in one process, and measures it.

`Worker` starts this file as that process: a line of JSON with the words of a command comes in, a
line with the exit code, the seconds and the peak memory of the command and its helpers goes out.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SECONDS = 10.0
START_SECONDS = 120.0
"""For the first model, before which everything is imported."""
HONEST = Path(__file__).parents[2] / "models" / "digits_cnn.onnx"


@dataclass(frozen=True)
class Ending:
    """How a command ended: `code` is None where the process died or was too slow; memory in KiB."""

    code: int | None
    said: str
    seconds: float = 0.0
    memory: int = 0


class Worker:
    """A process that runs commands; a new one takes over after a crash or a hang."""

    def __init__(self) -> None:
        self._process = self._start()
        self.run("inspect", HONEST, seconds=START_SECONDS)

    def run(self, *words: object, seconds: float = SECONDS) -> Ending:
        """Run `edgec` with `words`, for `seconds` at most."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(word) for word in words]) + "\n")
        self._process.stdin.flush()
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            line = self._process.stdout.readline() if selector.select(seconds) else ""
        if line:
            return Ending(**json.loads(line))
        try:
            code = self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            code = None
        self.close()
        self._process = self._start()
        return Ending(None, f"no answer in {seconds:g} s" if code is None else f"ended: {code}")

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()

    @staticmethod
    def _start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        )


def _family() -> Iterator[int]:
    """This process and its children."""
    yield os.getpid()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            yield from map(int, (task / "children").read_text().split())


def _peak() -> int:
    total = 0
    for process in _family():
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{process}/status").read_text()
            total += int(status.split("VmHWM:")[1].split()[0])
    return total


def _forget_peak() -> None:
    for process in _family():
        with contextlib.suppress(OSError):
            Path(f"/proc/{process}/clear_refs").write_text("5")


def _serve() -> None:
    from edgec.cli import main

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        _forget_peak()
        said = io.StringIO()
        start = time.perf_counter()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            try:
                code = main(json.loads(line))
            except SystemExit as ended:
                code = int(ended.code or 0)
        ending = {
            "code": code,
            "said": said.getvalue()[:2000],
            "seconds": time.perf_counter() - start,
            "memory": _peak(),
        }
        answers.write(json.dumps(ending) + "\n")
        answers.flush()


if __name__ == "__main__":
    _serve()
