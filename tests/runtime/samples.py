"""Small models written in C, in place of compiled ones, built and packed like those."""

from __future__ import annotations

import hashlib
import platform
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgec.cache import Cache
from edgec.emit.archive import write_archive
from edgec.emit.linkable import Linkable
from edgec.emit.toolchain import Toolchain

C = Path(__file__).parent / "c"
MACHINE = platform.machine()
SCALE_WEIGHTS = bytes(64) + np.arange(1024, dtype=np.float32).tobytes()

X = (np.arange(-512, 512, dtype=np.float32) / 128).reshape(1, 1024)
Y = 2 * X + np.arange(1024, dtype=np.float32)
"""An input of `alpha`, and its output."""


def toolchain_for(triple: str) -> Toolchain:
    static = f"{triple.split('-')[0]}-linux-musl"
    return Toolchain(triple, Cache.default().path, static_triple=static)


def scale(toolchain: Toolchain, name: str, factor: int, golden: bytes = b"") -> Linkable:
    """y = factor * x + [0, 1, 2, ...] over 1024 floats."""
    macros = {
        "NAME": name,
        "FEATURES": '""',
        "SHA256": f'"{hashlib.sha256(SCALE_WEIGHTS).hexdigest()}"',
    }
    defines = "".join(f"#define {key} {value}\n" for key, value in macros.items())
    kernels = toolchain.compile(
        C / "scale_kernels.c", includes=[C], defines={"FACTOR": str(factor)}
    )
    program = defines + (C / "scale.c").read_text()
    digest = hashlib.sha256(golden).hexdigest() if golden else ""
    return Linkable(name, (kernels,), program, SCALE_WEIGHTS, digest)


def plain(toolchain: Toolchain, name: str) -> Linkable:
    """One of the models whose kernels stand in the program: steps, faults, alien, sift."""
    parallel = (C / "parallel.h").read_text()
    program = (C / f"{name}.c").read_text().replace('#include "parallel.h"', parallel)
    return Linkable(name, (), program, b"")


def scale_golden(factor: int) -> bytes:
    x = np.linspace(-1, 1, 1024, dtype=np.float32)
    return x.tobytes() + (factor * x + np.arange(1024, dtype=np.float32)).tobytes()


@dataclass
class Packed:
    """What goes into an artifact; tests change it before `write`."""

    manifest: dict[str, Any]
    members: dict[str, bytes] = field(default_factory=dict)

    @property
    def variant(self) -> dict[str, Any]:
        found: dict[str, Any] = self.manifest["variants"][0]
        return found

    def write(self, path: Path) -> Path:
        write_archive(path, self.manifest, self.members)
        return path


def pack(model: Linkable, library: bytes, golden: bytes = b"") -> Packed:
    variant: dict[str, Any] = {
        "id": "baseline",
        "requires": {"os": "linux", "arch": MACHINE, "features": [], "libc": "glibc 2.17"},
        "abi": 1,
        "library": f"baseline/lib{model.c_name}.so",
        "symbol": model.symbol,
        "weights": None,
        "golden": None,
    }
    members = {variant["library"]: library}
    if model.weights:
        variant["weights"] = f"weights/{hashlib.sha256(model.weights).hexdigest()}.bin"
        members[variant["weights"]] = model.weights
    if golden:
        variant["golden"] = "golden/baseline.bin"
        members[variant["golden"]] = golden
    manifest = {"format": "edgec", "version": [1, 0], "name": model.name, "variants": [variant]}
    return Packed(manifest, members)


def needs(program: str) -> str:
    """The path of a program, or skip the test that needs it."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed")
    return found
