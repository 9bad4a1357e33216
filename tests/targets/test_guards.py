"""A module on the wrong machine says what is wrong and what to do, before it runs an instruction
that the machine has not."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from command import Edgec
from test_targets import HERE, emulator

import edgec as library
from edgec.errors import ArtifactError
from edgec.runtime import load as loader


@pytest.mark.parametrize(
    ("target", "cpu", "missing"),
    [
        ("rpi5", "cortex-a76", ""),
        ("rpi5", "cortex-a72", "asimddp"),
        ("jetson-xavier", "cortex-a57", "asimdhp"),
        ("jetson-thor", "cortex-a76", "i8mm"),
        ("rpi4", "cortex-a53", ""),
        ("armv7+vfp4", "cortex-a7", ""),
        ("armv7+vfp4", "cortex-a9", "vfpv4"),
    ],
)
def test_an_arm_processor_that_lacks_a_feature(
    edgec: Edgec, everywhere: Path, tmp_path: Path, target: str, cpu: str, missing: str
) -> None:
    """The program asks the kernel, not /proc/cpuinfo, which here tells of another machine."""
    qemu = emulator("arm" if target.startswith("armv7") else "aarch64")
    words = ["export", everywhere, tmp_path, "--variant", target, "--runner"]
    assert edgec(*words).code == 0
    program = tmp_path / "bin" / "digits_cnn-run"
    words = [qemu, "-cpu", cpu, program, everywhere, "--selftest"]
    done = subprocess.run(words, capture_output=True, text=True)
    if not missing:
        assert done.returncode == 0, done.stderr
        return
    assert done.returncode == 9
    assert f"this CPU has no '{missing}'" in done.stderr
    assert "edgec compile MODEL --target" in done.stderr


def pretend(path: Path, copy: Path, **requires: str) -> Path:
    """A copy of an artifact whose variants ask for something else."""
    with zipfile.ZipFile(path) as before, zipfile.ZipFile(copy, "w") as after:
        for info in before.infolist():
            data = before.read(info)
            if info.filename == "manifest.json":
                manifest = json.loads(data)
                for variant in manifest["variants"]:
                    variant["requires"] |= requires
                data = json.dumps(manifest).encode()
            after.writestr(zipfile.ZipInfo(info.filename), data)
    return copy


@pytest.mark.parametrize(
    ("requires", "says"),
    [
        ({"arch": "riscv64"}, "it is for riscv64, this is"),
        ({"libc": "glibc 9.99"}, "it needs glibc 9.99, this is 2"),
        ({"libc": "musl"}, "it needs musl, this system has glibc"),
        ({"libc": "bionic 24"}, "it needs bionic 24, this system has glibc"),
        ({"os": "plan9"}, "it is for plan9, this is linux"),
        ({"features": ["fpu_of_tomorrow"]}, "this CPU has no fpu_of_tomorrow"),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux with glibc")
def test_the_loader_says_what_does_not_fit(
    digits_artifact: Path, tmp_path: Path, requires: dict[str, Any], says: str
) -> None:
    path = pretend(digits_artifact, tmp_path / "x.edgec", **requires)
    with pytest.raises(ArtifactError, match="this machine cannot run it") as caught:
        library.load(path)
    assert says in caught.value.what
    assert "edgec compile MODEL --target host" in caught.value.hint


@pytest.mark.skipif(HERE != "x86-64-v3", reason="needs an x86-64")
def test_the_best_variant_that_fits_is_taken(everywhere: Path) -> None:
    assert library.load(everywhere).variant == HERE


@pytest.mark.parametrize(
    ("machine", "size", "arch"),
    [
        ("aarch64", 1 << 63, "aarch64"),
        ("aarch64", 1 << 31, "armv7l"),
        ("armv8l", 1 << 31, "armv7l"),
        ("armv7l", 1 << 31, "armv7l"),
        ("x86_64", 1 << 63, "x86_64"),
    ],
)
def test_a_32_bit_python_on_a_64_bit_system(
    monkeypatch: pytest.MonkeyPatch, machine: str, size: int, arch: str
) -> None:
    """As on Raspberry Pi OS of 32 bits with the kernel of 64."""

    class Uname:
        pass

    named = Uname()
    named.machine = machine  # type: ignore[attr-defined]
    monkeypatch.setattr(loader.os, "uname", lambda: named)
    monkeypatch.setattr(loader.sys, "maxsize", size - 1)
    assert loader._machine() == arch
