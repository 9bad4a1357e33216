"""An append-only file of lines with checksums: what was appended stays, whatever happens next.

A line is `{"edgec":1,"sum":"SUM","record":PAYLOAD}`: one JSON object in which SUM is the first 16
digits of the SHA-256 of PAYLOAD's bytes as they stand there. An append holds the lock of the file
(`flock`: the kernel releases that of a process that dies), is one write at its end, and is flushed
to the disk before it returns. PAYLOAD has no line breaks and cannot hold the beginning of a line,
whose quotes would be escaped in it, so a reader finds every whole line again after one that is not:
a cut or a flipped bit costs the line that it hits.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgec.emit.archive import sync_folder, write_file
from edgec.errors import ArtifactError, TuningError
from edgec.report import size

LINE_LIMIT = 1 << 18
"""Bytes of a line; a longer one is not ours, and is passed over without being held."""

LOCK_LIMIT = 60.0
"""Seconds to wait for another process that writes."""

_START = b'{"edgec":1,"sum":"'
_MIDDLE = b'","record":'
_SUM = slice(len(_START), len(_START) + 16)
_PAYLOAD = slice(_SUM.stop + len(_MIDDLE), -1)

PAYLOAD_AT = _PAYLOAD.start
"""Where in a whole line its payload begins."""


def line_of(payload: bytes) -> bytes:
    """The line that holds `payload`, with its line break."""
    return b"".join((_START, _sum(payload), _MIDDLE, payload, b"}\n"))


def payload_of(line: bytes) -> bytes | None:
    """What a line without its line break holds, or None where it is not whole."""
    payload = line[_PAYLOAD]
    whole = line.startswith(_START) and line.endswith(b"}") and line[_SUM] == _sum(payload)
    return payload if whole else None


def is_torn(line: bytes) -> bool:
    """Of a line that holds nothing, whether it was one of ours."""
    return line.startswith(_START) or (line != b"" and _START.startswith(line))


@dataclass(frozen=True)
class Journal:
    """The journal in `path`; its lock is the file `.lock` beside it."""

    path: Path

    def lines(self, skip: Callable[[bytes], bool] | None = None) -> Iterator[tuple[int, bytes]]:
        """Numbers and contents of the lines, without line breaks; there are none without a file.

        What follows on the same line after one that was torn comes as a line of its own. Of a line
        that exceeds `LINE_LIMIT`, the content is empty. Lines that `skip` is true of are left out.

        Raises:
            TuningError: the file cannot be read, or is no file.
        """
        try:
            handle = self._open(os.O_RDONLY)
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._failure("cannot be read", error) from error
        number = 0
        with open(handle, "rb") as stream:
            while True:
                try:
                    line = stream.readline(LINE_LIMIT)
                    long = len(line) == LINE_LIMIT and line[-1:] != b"\n"
                    while long and stream.readline(LINE_LIMIT)[-1:] not in (b"\n", b""):
                        pass
                except OSError as error:
                    raise self._failure("cannot be read", error) from error
                if not line:
                    return
                number += 1
                after = line.find(_START, 1)
                if after < 0 and skip is not None and skip(line):
                    continue
                line = b"" if long else line.removesuffix(b"\n")
                while after > 0:
                    yield number, line[:after]
                    line = line[after:]
                    after = line.find(_START, 1)
                yield number, line

    def append(self, payloads: Sequence[bytes]) -> None:
        """Add lines; they are on the disk when this returns, and none is there when it fails.

        Makes the folder and the file where they are missing, and mends an end that was torn.

        Raises:
            TuningError: they cannot be kept; it names the file and the disk.
        """
        data = b"".join(map(line_of, payloads))
        try:
            missing = [p for p in (self.path.parent, *self.path.parent.parents) if not p.exists()]
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.locked():
                new = not self.path.exists()
                handle = self._open(os.O_RDWR | os.O_APPEND | os.O_CREAT)
                try:
                    _append(handle, data)
                finally:
                    os.close(handle)
            for folder in [*([self.path.parent] if new else []), *(p.parent for p in missing)]:
                sync_folder(folder)
        except OSError as error:
            raise self._failure("records cannot be kept", error) from error

    def rewrite(self, payloads: Iterable[bytes]) -> None:
        """Replace all lines, whole or not at all. The caller holds the lock.

        Raises:
            TuningError: the file cannot be written; it is as it was.
        """
        try:
            for left in self.path.parent.iterdir():
                if left.name.startswith(f".{self.path.name}."):
                    left.unlink()
            write_file(self.path, map(line_of, payloads))
        except (ArtifactError, OSError) as error:
            cause = error if isinstance(error, OSError) else error.__cause__
            raise self._failure("cannot be rewritten", cause) from error

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other writers out.

        Raises:
            TuningError: another process has kept the lock for `LOCK_LIMIT` seconds.
        """
        place = self.path.with_name(".lock")
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            handle = os.open(place, flags, 0o666)
        except OSError as error:
            raise self._failure("cannot be locked", error) from error
        try:
            deadline = time.monotonic() + LOCK_LIMIT
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise TuningError(
                            f"another process has been writing for {LOCK_LIMIT:.0f} s",
                            where=str(self.path),
                            hint=f"`fuser {place}` names it",
                        ) from None
                    time.sleep(0.002)
            try:
                yield
            finally:  # a child that was forked meanwhile holds the handle, too
                fcntl.flock(handle, fcntl.LOCK_UN)
        finally:
            os.close(handle)

    def _open(self, flags: int) -> int:
        """A handle of the file, through no link; only of a regular file."""
        flags |= os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        handle = os.open(self.path, flags, 0o666)
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise OSError("it is not a regular file")
        return handle

    def _failure(self, what: str, error: BaseException | None) -> TuningError:
        return TuningError(
            f"{what}: {getattr(error, 'strerror', None) or error}",
            where=str(self.path),
            hint=f"{_disk(self.path)}; what was kept before stays readable",
        )


def _append(handle: int, data: bytes) -> None:
    """Write `data` at the end and flush it to the disk, or leave the file as long as it was."""
    end, mend = _whole_end(handle)
    try:
        left = memoryview(mend + data)
        while left:
            left = left[os.write(handle, left) :]
        os.fsync(handle)
    except BaseException:
        with contextlib.suppress(OSError):
            os.ftruncate(handle, end)
        raise


def _whole_end(handle: int) -> tuple[int, bytes]:
    """Where to go on writing, and what to write first, after taking a torn line off the end.

    A whole line that lacks its line break gets it, as does what is not ours.
    """
    end = os.fstat(handle).st_size
    start = max(0, end - LINE_LIMIT)
    tail = os.pread(handle, end - start, start).rpartition(b"\n")[2]
    if not tail:
        return end, b""
    tail = tail[max(0, tail.rfind(_START)) :]
    if len(tail) == LINE_LIMIT or payload_of(tail) is not None or not is_torn(tail):
        return end, b"\n"
    os.ftruncate(handle, end - len(tail))
    return end - len(tail), b""


def _sum(payload: bytes) -> bytes:
    return hashlib.sha256(payload).hexdigest()[:16].encode()


def _disk(path: Path) -> str:
    """The disk that `path` is on, and how full it is."""
    place = path.absolute()
    while not os.path.ismount(place):
        place = place.parent
    facts = os.statvfs(place)
    free, whole = facts.f_bavail * facts.f_frsize, facts.f_blocks * facts.f_frsize
    return f"its disk, mounted at {place}, has {size(free)} free of {size(whole)}"
