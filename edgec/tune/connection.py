"""The connection to a board: requests go there, answers come back, or it is lost."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import threading
from typing import BinaryIO, cast

from edgec.cache import Cache
from edgec.errors import DeviceError
from edgec.targets import Target
from edgec.tune.boards import Board
from edgec.tune.wire import Host, host_request, read_host

HELLO_S = 60.0
"""How long a board may take to say what it is."""


class Connection:
    """A board's running command. Its answers come one at a time.

    Raises:
        DeviceError: it does not start, or cannot run code for `target`.
    """

    def __init__(self, board: Board, target: Target, cache: Cache) -> None:
        self.board = board
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._command = board.command(target, cache)
        try:
            self._process = subprocess.Popen(
                self._command.words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                start_new_session=True,
            )
        except OSError as error:
            self._clear()
            raise DeviceError(f"cannot be started: {error}", where=board.name) from error
        try:
            self.host = self._hello(target)
        except BaseException:
            self.close()
            raise

    def _hello(self, target: Target) -> Host:
        answer = self.ask(host_request(target.cpu_flags), HELLO_S)
        try:
            host = read_host(answer)
        except (ValueError, KeyError) as error:
            raise DeviceError(f"says what is no answer: {error}", where=self.board.name) from error
        if host.missing:
            raise DeviceError(
                f"its CPU has no '{host.missing}', which target '{target.name}' uses",
                where=self.board.name,
                hint="tune for the target that the board is",
            )
        return host

    def ask(self, request: bytes, limit_s: float) -> bytes:
        """The answer to a request; DeviceError when it does not come within `limit_s` seconds."""
        late = threading.Event()

        def give_up() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(limit_s, give_up)
        timer.daemon = True
        timer.start()
        try:
            stdin = cast(BinaryIO, self._process.stdin)
            stdin.write(len(request).to_bytes(8, "little"))
            stdin.write(request)
            stdin.flush()
            size = int.from_bytes(self._read(8), "little")
            return self._read(size)
        except (OSError, ValueError, EOFError) as error:
            why = f"no answer for {limit_s:.0f} s" if late.is_set() else self._last_words()
            raise DeviceError(f"lost: {why}", where=self.board.name) from error
        finally:
            timer.cancel()

    def _read(self, size: int) -> bytes:
        data = cast(BinaryIO, self._process.stdout).read(size)
        if len(data) < size:
            raise EOFError
        return data

    def _last_words(self) -> str:
        """Why the command ended."""
        try:
            code = self._process.wait(5)
        except subprocess.TimeoutExpired:
            code = 0
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        return said[-1][:300] if said else f"its program ended with status {code}"

    def kill(self) -> None:
        """End the command, from any thread: whoever waits for an answer gets none."""
        self._process.kill()

    def close(self) -> None:
        """End the command and leave nothing behind."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                with contextlib.suppress(OSError):
                    stream.close()
        self._clear()

    def _clear(self) -> None:
        self._errors.close()
        if self._command.folder is not None:
            shutil.rmtree(self._command.folder, ignore_errors=True)
