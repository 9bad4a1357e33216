"""The artifact as a file."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgec.emit.archive import PAGE, write_archive, write_file
from edgec.errors import ArtifactError

MEMBERS = {"b/lib.so": b"\x7fELF" * 2000, "a.bin": b"", "weights/\N{SNOWMAN}.bin": bytes(5000)}


def test_members_are_stored_sorted_and_aligned(tmp_path: Path) -> None:
    path = tmp_path / "model.edgec"
    write_archive(path, {"format": "edgec"}, MEMBERS)
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        infos = archive.infolist()
        assert [info.filename for info in infos] == ["manifest.json", *sorted(MEMBERS)]
        manifest = json.loads(archive.read("manifest.json"))
        for info in infos:
            assert info.compress_type == zipfile.ZIP_STORED
            assert info.date_time == (1980, 1, 1, 0, 0, 0)
            sizes = data[info.header_offset + 26 : info.header_offset + 30]
            extra = int.from_bytes(sizes[2:], "little")
            start = info.header_offset + 30 + int.from_bytes(sizes[:2], "little") + extra
            assert start % PAGE == 0
            assert data[start : start + info.file_size] == archive.read(info)
    assert manifest["format"] == "edgec"
    assert manifest["files"] == {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        for name, content in MEMBERS.items()
    }


def test_same_input_same_bytes(tmp_path: Path) -> None:
    write_archive(tmp_path / "one", {"a": 1, "b": 2}, MEMBERS)
    write_archive(tmp_path / "two", {"b": 2, "a": 1}, dict(reversed(MEMBERS.items())))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_mode_follows_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_file(tmp_path / "data", [b"x"])
        write_file(tmp_path / "program", [b"x"], executable=True)
    finally:
        os.umask(before)
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "program").stat().st_mode & 0o777 == 0o750


def test_unwritable_places(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="No such file") as caught:
        write_archive(tmp_path / "absent" / "model.edgec", {}, MEMBERS)
    assert caught.value.exit_code == 9
    assert "space left" in caught.value.hint
    with pytest.raises(ArtifactError, match="cannot be written"):
        write_archive(tmp_path, {}, MEMBERS)
    with pytest.raises(ArtifactError, match="Not a directory"):
        write_archive("/dev/null/model.edgec", {}, MEMBERS)


def test_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "model.edgec"
    path.write_bytes(b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(ArtifactError, match="cannot be written"):
            write_archive(path, {}, MEMBERS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [file.name for file in tmp_path.iterdir()] == ["model.edgec"]
    assert path.read_bytes() == b"old"


def test_interrupt_leaves_nothing(tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"begun"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_file(tmp_path / "model.edgec", chunks())
    assert list(tmp_path.iterdir()) == []
