"""Same input, same bytes: whatever the folder, the number of processes and the tools on PATH."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgec.cache import Cache


def build(digits: Path, folder: Path, jobs: int, path: str, seed: int) -> bytes:
    """The artifact, compiled with an empty cache in a process of its own."""
    folder.mkdir(parents=True)
    cache = folder / "cache"
    cache.mkdir()
    (cache / "zig").symlink_to(Cache.default().folder("zig").resolve())
    shutil.copy(digits, folder / "digits_cnn.onnx")
    command = [sys.executable, "-m", "edgec.cli", "compile", "digits_cnn.onnx", "-j", str(jobs)]
    environment = os.environ | {
        "EDGEC_CACHE_DIR": str(cache),
        "PATH": path,
        "PYTHONHASHSEED": str(seed),
        "LC_ALL": ("C", "C.UTF-8")[seed % 2],
        "TZ": ("UTC", "Asia/Tokyo")[seed % 2],
    }
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return (folder / "digits_cnn.edgec").read_bytes()


def test_same_bytes(digits: Path, digits_artifact: Path, tmp_path: Path) -> None:
    everything = os.environ["PATH"]
    bare = tmp_path / "bin"
    bare.mkdir()
    first = build(digits, tmp_path / "a", 1, everything, 1)
    second = build(digits, tmp_path / "a much longer folder's name", 4, str(bare), 2)
    assert shutil.which("gcc", path=str(bare)) is None
    assert first == second
    assert first == digits_artifact.read_bytes(), "the cache makes no difference"


def test_paths_of_this_machine_stay_here(digits_artifact: Path, tmp_path: Path) -> None:
    """No folder, user or host name gets into an artifact."""
    data = digits_artifact.read_bytes()
    words = {str(Path.home()), str(tmp_path), str(Path(__file__).parents[1]), os.uname().nodename}
    for word in words:
        if len(word) > 5:
            assert word.encode() not in data


def test_what_changes_the_bytes(
    digits: Path, digits_artifact: Path, session_cache: Path, tmp_path: Path
) -> None:
    from edgec.compiler import compile_model
    from edgec.options import Options

    seen = {digits_artifact.read_bytes()}
    for options in (Options(level=0), Options(name="other"), Options(targets=("x86-64-v3",))):
        if options.targets != ("host",) and os.uname().machine != "x86_64":
            pytest.skip("x86-64-v3 would be emulated here")
        path = tmp_path / "x.edgec"
        compile_model(digits, path, options, cache=Cache(session_cache))
        assert path.read_bytes() not in seen
        seen.add(path.read_bytes())
