"""edgec-run: one model as a static executable."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgec.emit.linkable import Linkable, link_runner
from edgec.emit.toolchain import Toolchain

from .samples import Packed, needs, plain, toolchain_for

X = (np.arange(-512, 512, dtype=np.float32) / 128).reshape(1, 1024)


@pytest.fixture(scope="session")
def runner(toolchain: Toolchain, alpha: Linkable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runner") / "edgec-run"
    path.write_bytes(link_runner(alpha, toolchain))
    path.chmod(0o755)
    return path


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in command], capture_output=True, text=True)


def test_small_and_static(runner: Path) -> None:
    assert runner.stat().st_size < 200 * 1024
    assert "INTERP" not in run(needs("readelf"), "-l", runner).stdout


def test_runs_arrays(runner: Path, artifact: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    done = run(runner, artifact, "--input", f"x={tmp_path}/x.npy", "--output", tmp_path)
    assert done.returncode == 0
    assert re.match(r"y +f4 \(1, 1024\)  mean .*, max 1030.* at 1023\n$", done.stdout)
    np.testing.assert_array_equal(np.load(tmp_path / "0-y.npy"), 2 * X + np.arange(1024))


def test_fills_inputs(runner: Path, artifact: Path, tmp_path: Path) -> None:
    done = run(runner, artifact, "--input", "x=zeros", "--output", tmp_path, "--threads", 2)
    assert done.returncode == 0
    np.testing.assert_array_equal(np.load(tmp_path / "0-y.npy")[0], np.arange(1024))
    run(runner, artifact, "--output", tmp_path)
    drawn = (np.load(tmp_path / "0-y.npy")[0] - np.arange(1024)) / 2
    assert 0 <= drawn.min() < 0.05
    assert 0.95 < drawn.max() < 1


def test_bench_and_selftest(runner: Path, artifact: Path) -> None:
    done = run(runner, artifact, "--bench", 100, "--threads", 1)
    assert re.match(r"100 runs, 1 threads: median [\d.]+ us, min", done.stdout)
    done = run(runner, artifact, "--bench", 10, "--threads", 3, "--spin-us", 0)
    assert done.stdout.startswith("10 runs, 3 threads")
    assert run(runner, artifact, "--selftest").stdout == "self-test passed\n"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "usage"),
        (["--bench", "many", "a"], 2, "--bench: wants a number"),
        (["--spin-us", "-1", "a"], 2, "--spin-us: wants a number"),
        (["--frobnicate", "1"], 2, "unknown option"),
        (["--output"], 2, "its value is missing"),
        (["absent.edgec"], 9, "No such file"),
        (["/dev/null"], 9, "not an artifact"),
        (["ARTIFACT", "--input", "z=zeros"], 12, "z=zeros: the model has no such input"),
        (["ARTIFACT", "--input", "x=absent.npy"], 12, "absent.npy: cannot be opened"),
        (["ARTIFACT", "--input", "x=ARTIFACT"], 12, "is not a .npy file"),
        (["ARTIFACT", "--output", "/nowhere"], 12, "/nowhere/0-y.npy: cannot be written"),
    ],
)
def test_errors(runner: Path, artifact: Path, words: list[str], code: int, message: str) -> None:
    done = run(runner, *[word.replace("ARTIFACT", str(artifact)) for word in words])
    assert done.returncode == code
    assert message in done.stderr


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (X.astype(np.float64), "another element type"),
        (X[0], "another shape"),
        (np.zeros((1, 10240), np.float32), "another shape"),
        (np.asfortranarray(np.zeros((2, 512), np.float32)), "Fortran order"),
    ],
)
def test_arrays_that_do_not_fit(
    runner: Path, artifact: Path, tmp_path: Path, array: np.ndarray, message: str
) -> None:
    np.save(tmp_path / "x.npy", array)
    done = run(runner, artifact, "--input", f"x={tmp_path}/x.npy")
    assert done.returncode == 12
    assert message in done.stderr


def test_cut_off_array(runner: Path, artifact: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    (tmp_path / "x.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:-1])
    done = run(runner, artifact, "--input", f"x={tmp_path}/x.npy")
    assert (done.returncode, "cut off" in done.stderr) == (12, True)


def test_damaged_artifacts(runner: Path, artifact: Path) -> None:
    data = artifact.read_bytes()
    rng = np.random.default_rng(1)
    for position in [0, 10, len(data) - 22, len(data) - 6, *rng.integers(len(data), size=40)]:
        flipped = bytearray(data)
        flipped[position] ^= 1 << rng.integers(8)
        artifact.write_bytes(flipped)
        assert run(runner, artifact).returncode in (0, 9)
    for size in rng.integers(len(data), size=20):
        artifact.write_bytes(data[:size])
        assert run(runner, artifact).returncode == 9


def test_weights_and_golden_data_are_found_by_hash(
    runner: Path, packed: Callable[[str], Packed], tmp_path: Path
) -> None:
    artifact = packed("alpha")
    artifact.members[artifact.variant["golden"]] = bytes(8192)
    done = run(runner, artifact.write(tmp_path / "other.edgec"), "--selftest")
    assert done.returncode == 9
    assert "it does not hold the golden data of this program" in done.stderr
    artifact.members[artifact.variant["weights"]] = bytes(4160)
    done = run(runner, artifact.write(tmp_path / "other.edgec"))
    assert done.returncode == 9
    assert "it does not hold the weights of this program" in done.stderr


def test_runs_on_aarch64(packed: Callable[[str], Packed], tmp_path: Path) -> None:
    qemu = needs("qemu-aarch64")
    toolchain = toolchain_for("aarch64-linux-gnu.2.17")
    program = tmp_path / "edgec-run"
    program.write_bytes(link_runner(plain(toolchain, "steps"), toolchain))
    program.chmod(0o755)
    artifact = packed("steps").write(tmp_path / "steps.edgec")
    done = run(qemu, program, artifact, "--input", "flags=zeros", "--output", tmp_path)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 4
    assert np.load(tmp_path / "3-count.npy") == 1
    assert np.load(tmp_path / "1-reversed.npy").shape == (4, 16)
