"""The digits detector, whose last output is as large as a run makes it, on real scenes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from command import Edgec

import build
from digits import split
from edgec.cache import Cache
from edgec.compiler import compile_model
from edgec.emit.artifact import linkable
from edgec.emit.linkable import link_runner
from edgec.emit.toolchain import Toolchain
from edgec.options import Options
from edgec.runtime.load import load, read_manifest
from scenes import scenes as make

DETECTOR = Path(build.__file__).parent / "digits_detector.onnx"
SCENES = 24


@pytest.fixture(scope="module")
def scenes() -> np.ndarray:
    """Canvases float32 [n, 1, 1, 96, 96], one batch of 1 each."""
    _, test = split()
    canvases, _ = make(*test, count=SCENES, seed=3)
    return canvases[:, None]


@pytest.fixture(scope="module")
def expected(scenes: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(DETECTOR)
    return [session.run(["selected"], {"image": scene})[0] for scene in scenes]


@pytest.fixture(scope="module")
def artifact(session_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("detector") / "digits_detector.edgec"
    compile_model(DETECTOR, path, cache=Cache(session_cache))
    return path


def test_detections_of_real_scenes(
    artifact: Path, scenes: np.ndarray, expected: list[np.ndarray]
) -> None:
    with load(artifact) as module:
        for scene, wanted in zip(scenes, expected, strict=True):
            np.testing.assert_array_equal(module.run({"image": scene})["selected"], wanted)
        module.selftest()
    assert len({len(wanted) for wanted in expected}) > 3


def test_the_manifest_marks_the_extent(artifact: Path) -> None:
    boxes, scores, selected = read_manifest(artifact)["variants"][0]["outputs"]
    assert selected["shape"] == [100, 3]
    assert selected["dynamic"] == {"axis": 0}
    assert "dynamic" not in boxes.keys() | scores.keys()


def test_commands(artifact: Path, scenes: np.ndarray, edgec: Edgec, tmp_path: Path) -> None:
    assert "selected int64[0..100, 3]" in edgec("inspect", artifact).out
    np.savez(tmp_path / "scenes.npz", image=scenes[:4, 0])
    done = edgec("run", artifact, "--input", tmp_path / "scenes.npz", "--output", tmp_path / "o")
    assert "int64[*,3]" in done.out
    assert np.load(tmp_path / "o" / "boxes.npy").shape == (4, 1, 144, 4)
    found = [np.load(tmp_path / "o" / f"selected.{i}.npy") for i in range(4)]
    assert all(rows.shape[1] == 3 for rows in found)
    assert edgec("verify", artifact, "--against", DETECTOR).code == 0


def test_on_aarch64(scenes: np.ndarray, expected: list[np.ndarray], tmp_path: Path) -> None:
    qemu = shutil.which("qemu-aarch64")
    if qemu is None:
        pytest.skip("qemu-aarch64 is not installed")
    cache = Cache.default()
    path = tmp_path / "detector.edgec"
    options = Options(targets=("aarch64",), require="emulated")
    compiled = compile_model(DETECTOR, path, options, cache=cache)
    assert compiled.manifest["variants"][0]["verified"] == "emulated"
    model, target = linkable(path)
    runner = tmp_path / "edgec-run"
    runner.write_bytes(link_runner(model, Toolchain.of(target, cache.path)))
    runner.chmod(0o755)
    for scene, wanted in zip(scenes[:2], expected, strict=False):
        np.save(tmp_path / "image.npy", scene)
        words = [path, "--input", f"image={tmp_path}/image.npy", "--output", tmp_path]
        done = subprocess.run([qemu, runner, *words], capture_output=True, text=True, check=True)
        assert f"i8 ({len(wanted)}, 3)" in done.stdout
        np.testing.assert_array_equal(np.load(tmp_path / "2-selected.npy"), wanted)
