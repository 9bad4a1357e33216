"""What the loader refuses: damaged, foreign and odd artifacts, and other machines' code."""

from __future__ import annotations

import ctypes
import json
import os
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from edgec.errors import ArtifactError
from edgec.runtime import load as loader
from edgec.runtime.load import load

from .samples import MACHINE, Packed, X, Y

Pack = Callable[[str], Packed]


@pytest.mark.parametrize("share", [0, 1e-4, 1e-3, 0.01, 0.1, 0.5, 0.9, 0.999, 0.99999])
def test_truncated(artifact: Path, share: float) -> None:
    data = artifact.read_bytes()
    artifact.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ArtifactError, match=r"damaged|empty"):
        load(artifact)


def test_flipped_bits_are_found_or_harmless(artifact: Path) -> None:
    data = artifact.read_bytes()
    rng = np.random.default_rng(0)
    positions = [
        *range(0, 64),
        *range(len(data) - 600, len(data)),
        *rng.integers(len(data), size=300),
    ]
    found = 0
    for position in positions:
        flipped = bytearray(data)
        flipped[position] ^= 1 << rng.integers(8)
        artifact.write_bytes(flipped)
        try:
            with load(artifact, threads=1) as module:
                np.testing.assert_array_equal(module.run({"x": X})["y"], Y)
        except ArtifactError:
            found += 1
    assert found > len(positions) // 3


def foreign_files() -> dict[str, bytes]:
    central = b"PK\1\2" + bytes(42)
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 1, 1, len(central), 0, 0)
    return {
        "text": b"this is not an artifact\n" * 100,
        "elf": Path(sys.executable).read_bytes()[:100_000],
        "zeros": bytes(100_000),
        "directory of nothing": central + end,
        "huge counts": struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 65535, 65535, 2**31, 2**31, 0),
    }


@pytest.mark.parametrize("content", foreign_files().values(), ids=foreign_files())
def test_foreign(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "foreign.edgec"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="not an edgec artifact") as caught:
        load(path)
    assert caught.value.exit_code == 9
    assert caught.value.where == str(path)


def test_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="No such file"):
        load(tmp_path / "absent.edgec")
    with pytest.raises(ArtifactError, match="is not a file"):
        load(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ArtifactError, match="is not a file"):
        load(tmp_path / "fifo")


MANIFESTS = {
    "no json": b"{",
    "not utf-8": b'{"format": "\xff"}',
    "a list": b"[]",
    "deep": b"[" * 100_000,
    "other format": b'{"format": "other"}',
    "no version": b'{"format": "edgec"}',
    "odd version": b'{"format": "edgec", "version": "1"}',
    "no variants": b'{"format": "edgec", "version": [1, 0], "files": {}}',
    "odd variants": b'{"format": "edgec", "version": [1, 0], "files": {}, "variants": [[], 3]}',
}


@pytest.mark.parametrize("manifest", MANIFESTS.values(), ids=MANIFESTS)
def test_odd_manifest(tmp_path: Path, manifest: bytes) -> None:
    path = tmp_path / "odd.edgec"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("manifest.json", manifest)
    with pytest.raises(ArtifactError, match="not an edgec artifact"):
        load(path)


def test_compressed_members_are_refused(artifact: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed.edgec"
    with (
        zipfile.ZipFile(artifact) as source,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
    with pytest.raises(ArtifactError, match="compressed"):
        load(packed)


@pytest.mark.parametrize("member", ["library", "weights"])
def test_changed_member_is_refused(packed: Pack, tmp_path: Path, member: str) -> None:
    """Also where the ZIP file's own checksum was made to agree."""
    path = packed("alpha").write(tmp_path / "alpha.edgec")
    changed = packed("alpha")
    name = changed.variant[member]
    with zipfile.ZipFile(path) as archive:
        files = json.loads(archive.read("manifest.json"))["files"]
    content = bytearray(changed.members[name])
    content[len(content) // 2] ^= 1
    changed.members[name] = bytes(content)
    changed.write(path)
    with zipfile.ZipFile(path) as archive:
        manifest = json.loads(archive.read("manifest.json"))
        others = {key: archive.read(key) for key in archive.namelist() if key != "manifest.json"}
    manifest["files"] = files
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("manifest.json", json.dumps(manifest))
        for key, value in others.items():
            archive.writestr(key, value)
    with pytest.raises(ArtifactError, match=f"'{name}' has changed"):
        load(path)


def test_weights_of_another_library_are_refused(packed: Pack, tmp_path: Path) -> None:
    artifact = packed("alpha")
    artifact.members[artifact.variant["weights"]] = bytes(4160)
    with pytest.raises(ArtifactError, match="weights belong to another library"):
        load(artifact.write(tmp_path / "alpha.edgec"))


def test_library_without_its_symbol(packed: Pack, tmp_path: Path) -> None:
    artifact = packed("alpha")
    artifact.variant["symbol"] = "edgec_model_gamma"
    with pytest.raises(ArtifactError, match="no edgec_model_gamma"):
        load(artifact.write(tmp_path / "alpha.edgec"))


def test_library_that_is_none(packed: Pack, tmp_path: Path) -> None:
    artifact = packed("alpha")
    artifact.members[artifact.variant["library"]] = b"#!/bin/sh\n"
    with pytest.raises(ArtifactError, match="cannot be loaded"):
        load(artifact.write(tmp_path / "alpha.edgec"))


def test_versions(packed: Pack, tmp_path: Path) -> None:
    artifact = packed("alpha")
    artifact.manifest["version"] = [1, 7]
    artifact.manifest["a key of the future"] = artifact.variant["another"] = {"x": [1]}
    with load(artifact.write(tmp_path / "minor.edgec")) as module:
        module.run({"x": X})
    artifact.manifest["version"] = [2, 0]
    with pytest.raises(ArtifactError, match="format version 2") as caught:
        load(artifact.write(tmp_path / "major.edgec"))
    assert "load.py" in caught.value.hint


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("os", "windows", "it is for windows, this is linux"),
        ("arch", "riscv64", f"it is for riscv64, this is {MACHINE}"),
        ("features", ["fpu_of_tomorrow"], "this CPU has no fpu_of_tomorrow"),
        ("libc", "glibc 9.1", r"it needs glibc 9\.1, this is 2\."),
    ],
)
def test_requirements(packed: Pack, tmp_path: Path, key: str, value: Any, message: str) -> None:
    artifact = packed("alpha")
    artifact.variant["requires"][key] = value
    with pytest.raises(ArtifactError, match=message) as caught:
        load(artifact.write(tmp_path / "alpha.edgec"))
    assert "--target host" in caught.value.hint


def test_abi(packed: Pack, tmp_path: Path) -> None:
    artifact = packed("alpha")
    artifact.variant["abi"] = 2
    with pytest.raises(ArtifactError, match="ABI version 2, this loader speaks 1"):
        load(artifact.write(tmp_path / "alpha.edgec"))


def test_a_library_with_fewer_functions(
    packed: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Longer(loader._CModel):
        _fields_: ClassVar = [("later", ctypes.c_void_p)]

    path = packed("alpha").write(tmp_path / "alpha.edgec")
    monkeypatch.setattr(loader, "_CModel", Longer)
    with pytest.raises(ArtifactError, match="of an older edgec"):
        load(path)


def test_the_library_checks_the_cpu_as_well(packed: Pack, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no 'fpu_of_tomorrow'"):
        load(packed("alien").write(tmp_path / "alien.edgec"))
