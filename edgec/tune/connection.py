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
from edgec.tune.boards import Board, Command
from edgec.tune.wire import Host, host_request, read_host

HELLO_S = 60.0
"""How long a board may take to say what it is."""
_LAST_WORDS_S = 5.0


class Connection:
    """A board's command, which may be ended from any thread, also while it starts."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self._lock = threading.Lock()
        self._ended = False
        self._command = Command(())
        self._process: subprocess.Popen[bytes] | None = None
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115

    def start(self, target: Target, cache: Cache) -> Host:
        """Start the command; what the board says of itself.

        Raises:
            DeviceError: it cannot be reached or started, or cannot run code for `target`.
            LoweringError, TargetError: the program for it cannot be built.
        """
        self._command = self.board.command(target, cache)
        with self._lock:
            if self._ended:
                raise DeviceError("was left", where=self.board.name)
            try:
                self._process = subprocess.Popen(
                    self._command.words,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=self._errors,
                    start_new_session=True,
                )
            except OSError as error:
                raise DeviceError(f"cannot be started: {error}", where=self.board.name) from error
        return self._hello(target)

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
        process = self._process
        if process is None:
            raise DeviceError("is not connected", where=self.board.name)
        late = threading.Event()

        def give_up() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(limit_s, give_up)
        timer.daemon = True
        timer.start()
        try:
            stdin = cast(BinaryIO, process.stdin)
            stdin.write(len(request).to_bytes(8, "little"))
            stdin.write(request)
            stdin.flush()
            size = int.from_bytes(_read(process, 8), "little")
            return _read(process, size)
        except (OSError, ValueError, EOFError) as error:
            why = f"no answer for {limit_s:.0f} s" if late.is_set() else self._last_words(process)
            raise DeviceError(f"lost: {why}", where=self.board.name) from error
        finally:
            timer.cancel()

    def _last_words(self, process: subprocess.Popen[bytes]) -> str:
        """Why the command ended."""
        try:
            code = process.wait(_LAST_WORDS_S)
        except subprocess.TimeoutExpired:
            return "it sends nothing more"
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        return said[-1][:300] if said else f"its program ended with status {code}"

    def end(self) -> None:
        """End the command: whoever waits for an answer gets none."""
        with self._lock:
            self._ended = True
            if self._process is not None:
                self._process.kill()

    def close(self) -> None:
        """End the command and leave nothing behind; for the thread that started it."""
        self.end()
        if self._process is not None:
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                if stream:
                    with contextlib.suppress(OSError):
                        stream.close()
        self._errors.close()
        if self._command.folder is not None:
            shutil.rmtree(self._command.folder, ignore_errors=True)


def _read(process: subprocess.Popen[bytes], size: int) -> bytes:
    data = cast(BinaryIO, process.stdout).read(size)
    if len(data) < size:
        raise EOFError
    return data
