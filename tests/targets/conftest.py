"""One artifact for many machines, which tests share: compiling is what takes time."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgec.cache import Cache
from edgec.compiler import compile_model
from edgec.options import Options

TARGETS = (
    "armv7",
    "armv7+vfp4",
    "rpi4",
    "rpi5",
    "jetson-xavier",
    "jetson-orin-nano",
    "jetson-thor",
    "x86-64-v2",
    "x86-64-v3",
)


@pytest.fixture(scope="session")
def everywhere(digits: Path, session_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits model for nine kinds of machines."""
    path = tmp_path_factory.mktemp("everywhere") / "digits_cnn.edgec"
    compile_model(digits, path, Options(targets=TARGETS), cache=Cache(session_cache))
    return path
