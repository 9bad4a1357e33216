"""Other machines than this one: their artifacts, run by QEMU where it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgec import targets
from edgec.runtime.load import read_manifest

Edgec = Callable[..., Any]
REPO = Path(__file__).parents[2]
HERE = {"x86_64": "x86-64-v3", "aarch64": "aarch64"}[os.uname().machine]


def emulator(arch: str) -> str:
    path = shutil.which(f"qemu-{arch}")
    if path is None:
        pytest.skip(f"needs qemu-{arch} (apt-get install qemu-user)")
    return path


@pytest.fixture
def aarch64(edgec: Edgec, digits: Path, tmp_path: Path) -> Path:
    """The digits model and a static edgec-run beside it, for aarch64."""
    path = tmp_path / "x.edgec"
    done = edgec("compile", digits, "--target", "aarch64", "-o", path, "--runner")
    assert done.code == 0, done.err
    return path


def test_emulated(aarch64: Path, tmp_path: Path) -> None:
    """The program that a board runs classifies digits."""
    qemu = emulator("aarch64")
    [variant] = read_manifest(aarch64)["variants"]
    assert variant["verified"] == "emulated"
    assert variant["requires"]["arch"] == "aarch64"
    images = np.load(REPO / "models" / "digits_test.npz")["image"]
    labels = np.load(REPO / "models" / "digits_labels.npy")
    for index in range(5):
        np.save(tmp_path / "image.npy", images[index].reshape(1, 1, 8, 8))
        words = ["--input", f"image={tmp_path / 'image.npy'}", "--output", str(tmp_path)]
        command = [qemu, str(aarch64.with_suffix(".run")), str(aarch64), *words]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert np.load(tmp_path / "0-logits.npy").argmax() == labels[index]


def test_one_artifact_for_two_machines(edgec: Edgec, digits: Path, tmp_path: Path) -> None:
    """Variants stand in the order they were asked for; this machine picks its own."""
    other = "aarch64" if HERE != "aarch64" else "x86-64-v3"
    path = tmp_path / "x.edgec"
    done = edgec("compile", digits, "--target", other, "--target", HERE, "-o", path, "--json")
    assert [variant["id"] for variant in done.result["variants"]] == [other, HERE]
    import edgec as library

    assert library.load(path).variant == HERE
    with pytest.raises(library.EdgecError, match=other):
        library.load(path, variant=other)


def test_libraries_of_another_machine(edgec: Edgec, aarch64: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert edgec("export", aarch64, out).code == 0
    machine = (out / "lib" / "libdigits_cnn.so").read_bytes()[18:20]
    assert int.from_bytes(machine, "little") == 183, "EM_AARCH64"


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="levels of x86-64 need one")
@pytest.mark.parametrize("name", ["x86-64-v2", "x86-64-v3"])
def test_levels_of_x86_64(edgec: Edgec, digits: Path, tmp_path: Path, name: str) -> None:
    if not targets.runs_here(targets.resolve(name)):
        pytest.skip(f"this processor is not {name}")
    words = ["--target", name, "-o", tmp_path / "x.edgec", "--require", "device", "--json"]
    [variant] = edgec("compile", digits, *words).result["variants"]
    assert variant["verified"] == "device"


def test_host_is_named_by_what_it_is() -> None:
    """An artifact never says "host": the manifest names a target that means the same elsewhere."""
    host = targets.resolve("host")
    assert host.name != "host"
    assert targets.resolve(host.name) == host
