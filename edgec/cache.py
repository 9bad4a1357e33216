"""A content-addressed cache on disk: what was compiled once is found again.

An entry is a file named by its key, its content preceded by the content's SHA-256, so that an entry
torn by a power cut is a miss and not a surprise. Entries appear whole or not at all, and several
processes may share one cache.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

_DIGEST = 32


@dataclass(frozen=True)
class CacheInfo:
    """Where the cache is and what it holds: entries and bytes by kind."""

    path: Path
    entries: dict[str, int]
    nbytes: dict[str, int]


@dataclass(frozen=True)
class Cache:
    """The cache below `path`; a kind ("kernel", "notes", "artifact") is a folder of it.

    Without `reuse` nothing is found, so that everything is made anew and stored.
    """

    path: Path
    reuse: bool = True

    @staticmethod
    def default() -> Cache:
        """`$EDGEC_CACHE_DIR`, else `$XDG_CACHE_HOME/edgec`, else `~/.cache/edgec`."""
        chosen = os.environ.get("EDGEC_CACHE_DIR")
        if chosen:
            return Cache(Path(chosen))
        base = os.environ.get("XDG_CACHE_HOME")
        return Cache((Path(base) if base else Path.home() / ".cache") / "edgec")

    def get(self, kind: str, key: str) -> bytes | None:
        """The entry, or None where there is none or it is damaged."""
        if not self.reuse:
            return None
        try:
            data = self._file(kind, key).read_bytes()
        except OSError:
            return None
        digest, content = data[:_DIGEST], data[_DIGEST:]
        return content if hashlib.sha256(content).digest() == digest else None

    def put(self, kind: str, key: str, content: bytes) -> None:
        """Store an entry. A cache that cannot be written to is no error: it only saves time."""
        file = self._file(kind, key)
        with contextlib.suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=".new-")
            try:
                with os.fdopen(handle, "wb") as stream:
                    stream.write(hashlib.sha256(content).digest())
                    stream.write(content)
                os.replace(temporary, file)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise

    def number(self, kind: str, key: str, make: Callable[[], float]) -> float:
        """The number that is stored, else what `make` gives, which is stored then."""
        stored = self.get(kind, key)
        if stored is not None:
            return float(stored)
        made = make()
        self.put(kind, key, repr(float(made)).encode())
        return made

    def folder(self, name: str) -> Path:
        """A folder of the cache for tools that keep their own, made if absent."""
        folder = self.path / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def info(self) -> CacheInfo:
        """Count what is there; what another process takes away meanwhile is not."""
        entries: dict[str, int] = {}
        nbytes: dict[str, int] = {}
        for folder in sorted(self.path.glob("*")) if self.path.is_dir() else []:
            entries[folder.name] = nbytes[folder.name] = 0
            for place, _, names in os.walk(folder):
                for name in names:
                    with contextlib.suppress(FileNotFoundError):
                        nbytes[folder.name] += os.stat(os.path.join(place, name)).st_size
                        entries[folder.name] += 1
        return CacheInfo(self.path, entries, nbytes)

    def clear(self) -> None:
        """Delete every entry."""
        for folder in self.path.glob("*") if self.path.is_dir() else []:
            shutil.rmtree(folder, ignore_errors=True)

    def _file(self, kind: str, key: str) -> Path:
        return self.path / kind / key[:2] / key


def key_of(*parts: object) -> str:
    """A key that changes when any part does: SHA-256 over their text, lengths included."""
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else repr(part).encode()
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


@functools.cache
def tool_digest(*folders: str) -> str:
    """Identifies this edgec and the compilers below it: sources and versions.

    With `folders` of the package, only by what is in these.
    """
    package = Path(__file__).resolve().parent
    roots = [package / name for name in folders or (".", "passes", "targets")]
    digest = hashlib.sha256()
    for file in sorted(
        path
        for pattern in ("*.py", "*.c", "*.h", "*.toml")
        for root in roots
        for path in root.resolve().rglob(pattern)
    ):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    for name in ("apache-tvm", "apache-tvm-ffi", "onnx", "onnx-graphsurgeon", "ziglang"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            digest.update(f"{name}={metadata.version(name)}".encode())
    return digest.hexdigest()
