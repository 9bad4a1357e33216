"""The ZIP file that an artifact is: stored members at page boundaries, the same bytes every time.

`edgec.runtime.load` reads it back, and maps its members straight from the file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from edgec.errors import ArtifactError

PAGE = 4096
MANIFEST = "manifest.json"

_LOCAL = struct.Struct("<IHHHHHIIIHH")
_CENTRAL = struct.Struct("<IHHHHHHIIIHHHHHII")
_END = struct.Struct("<IHHHHIIH")
_DATE = 1 << 5 | 1  # 1980-01-01
_PADDING_FIELD = 0xED6E
_LIMIT = 0xFFFFFFFF


def write_archive(
    path: str | os.PathLike[str], manifest: Mapping[str, object], members: Mapping[str, bytes]
) -> None:
    """Write an artifact: `manifest` first, then `members` by name.

    "files" is added to the manifest: the size and SHA-256 of each member. The file appears whole or
    not at all: it is written beside its place, flushed to disk and renamed.

    Raises:
        ArtifactError: the file cannot be written, or exceeds the 4 GiB of a plain ZIP.
    """
    files = {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        for name, data in sorted(members.items())
    }
    head = json.dumps({**manifest, "files": files}, indent=1, sort_keys=True, ensure_ascii=False)
    ordered = [(MANIFEST, f"{head}\n".encode()), *sorted(members.items())]
    if sum(len(data) + 2 * PAGE for _, data in ordered) > _LIMIT:
        raise ArtifactError("the artifact would exceed 4 GiB", where=str(path))
    write_file(path, _chunks(ordered))


def write_file(
    path: str | os.PathLike[str], chunks: Iterable[bytes], *, executable: bool = False
) -> None:
    """Write a file that appears whole or not at all.

    It is written beside its place, flushed to disk and renamed; on failure nothing is left.

    Raises:
        ArtifactError: the file cannot be written.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        try:
            with open(os.open(temporary, flags, 0o777 if executable else 0o666), "wb") as stream:
                for chunk in chunks:
                    stream.write(chunk)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        sync_folder(target.parent)
    except OSError as error:
        raise ArtifactError(
            f"cannot be written: {error.strerror or error}",
            where=str(target),
            hint="check that the folder exists, is writable and has space left",
        ) from error


def _chunks(members: list[tuple[str, bytes]]) -> Iterator[bytes]:
    """The bytes of a ZIP file whose members' contents start at multiples of PAGE."""
    directory = []
    offset = 0
    for name, data in members:
        encoded = name.encode()
        fixed = offset + _LOCAL.size + len(encoded) + 4
        padding = -fixed % PAGE
        extra = struct.pack("<HH", _PADDING_FIELD, padding) + bytes(padding)
        common = (0x800, 0, 0, _DATE, zlib.crc32(data), len(data), len(data), len(encoded))
        yield _LOCAL.pack(0x04034B50, 10, *common, len(extra)) + encoded + extra
        yield data
        entry = _CENTRAL.pack(0x02014B50, 0x030A, 10, *common, 0, 0, 0, 0, 0o100644 << 16, offset)
        directory.append(entry + encoded)
        offset += _LOCAL.size + len(encoded) + len(extra) + len(data)
    central = b"".join(directory)
    yield central
    yield _END.pack(0x06054B50, 0, 0, len(members), len(members), len(central), offset, 0)


def sync_folder(folder: Path) -> None:
    """Make new names in `folder` durable; some file systems cannot."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
