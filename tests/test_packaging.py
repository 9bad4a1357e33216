"""What users ship and install: exported libraries, artifacts on a board, wheels."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import Edgec

REPO = Path(__file__).parents[1]
DIGITS = REPO / "models" / "digits_test.npz"
LABELS = REPO / "models" / "digits_labels.npy"


def output(*command: object, **options: Any) -> str:
    """What `command` prints; it must succeed."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def some_digits() -> tuple[bytes, list[int]]:
    """100 pictures as raw floats, and what is on them."""
    images = np.load(DIGITS)["image"][:100].astype(np.float32)
    return images.tobytes(), np.load(LABELS)[:100].tolist()


@pytest.mark.parametrize("form", ["shared", "static"])
def test_c_program(
    edgec: Edgec,
    digits_artifact: Path,
    tmp_path: Path,
    some_digits: tuple[bytes, list[int]],
    form: str,
) -> None:
    """A short C program classifies digits; it needs libc, libm and libpthread alone."""
    gcc = shutil.which("gcc")
    if gcc is None:
        pytest.skip("needs gcc")
    out = tmp_path / "out"
    assert edgec("export", digits_artifact, out).code == 0
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", f"-I{out}/include"]
    library = {
        "shared": [f"-L{out}/lib", "-ldigits_cnn", f"-Wl,-rpath,{out}/lib"],
        "static": [f"{out}/lib/libdigits_cnn.a", "-lm", "-lpthread"],
    }
    program = tmp_path / "classify"
    output(gcc, *flags, REPO / "tests" / "classify.c", "-o", program, *library[form])
    pictures, labels = some_digits
    done = subprocess.run([program], input=pictures, capture_output=True)
    assert done.returncode == 0, done.stderr
    right = np.mean(np.equal([int(line) for line in done.stdout.split()], labels))
    assert right >= 0.98
    allowed = {"linux-vdso", "ld-linux-x86-64", "ld-linux-aarch64", "libc", "libm", "libpthread"}
    needed = re.findall(r"^\s*(?:\S*/)?([\w-]+)\.so", output("ldd", program), re.MULTILINE)
    assert set(needed) <= allowed | ({"libdigits_cnn"} if form == "shared" else set())
    if form == "shared":
        needed = re.findall(r"(\w+)\.so[.\d]* =>", output("ldd", out / "lib/libdigits_cnn.so"))
        assert set(needed) <= allowed


def test_numpy_is_all_a_board_needs(
    digits_artifact: Path, tmp_path: Path, some_digits: tuple[bytes, list[int]]
) -> None:
    """The artifact's own load.py runs it in an environment that holds numpy alone."""
    home = tmp_path / "venv"
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    install = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "numpy"]
    if subprocess.run(install, capture_output=True).returncode:
        pytest.skip("numpy cannot be installed here: no network")
    with zipfile.ZipFile(digits_artifact) as archive:
        archive.extract("load.py", tmp_path)
    shutil.copy(digits_artifact, tmp_path / "m.edgec")
    code = (
        "import sys, numpy as np, load\n"
        "module = load.load('m.edgec')\n"
        "for image in np.frombuffer(sys.stdin.buffer.read(), 'f4').reshape(-1, 1, 1, 8, 8):\n"
        "    print(module.run({'image': image})['logits'].argmax())\n"
        "module.selftest()\n"
        "assert not {'edgec', 'tvm', 'onnx'} & set(sys.modules)\n"
    )
    pictures, labels = some_digits
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [python, "-c", code], input=pictures, cwd=tmp_path, env=environment, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
    assert np.mean(np.equal([int(line) for line in done.stdout.split()], labels)) >= 0.98


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel from a copy of the checkout in which, as on Windows, symlinks are small files."""
    folder = tmp_path_factory.mktemp("checkout")
    source = folder / "edgec"
    try:
        listed = output("git", "ls-files", "-z", "-co", "--exclude-standard", cwd=REPO)
    except (AssertionError, OSError):
        pytest.skip("needs a git checkout")
    for name in filter(None, listed.split("\0")):
        path = REPO / name
        if not os.path.lexists(path):
            continue
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            (source / name).write_text(os.readlink(path))
        else:
            shutil.copy(path, source / name)
    assert (source / "edgec" / "passes").is_file()
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, source]
    environment = os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if "setuptools" in done.stderr and "No matching distribution" in done.stderr:
        pytest.skip("setuptools cannot be installed here: no network")
    assert done.returncode == 0, done.stderr
    [path] = folder.glob("*.whl")
    return path


def test_wheel_holds_everything(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("edgec", "passes", "targets"):
        for path in (REPO / folder).rglob("*"):
            if (
                path.suffix in {".py", ".c", ".h", ".toml", ".jsonl"}
                and "__pycache__" not in path.parts
            ):
                place = path.relative_to(REPO)
                expected = place if folder == "edgec" else Path("edgec") / place
                assert str(expected) in names
    assert "edgec/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not any(name.startswith(("passes/", "targets/", "tests/", "models/")) for name in names)


def test_wheel_compiles(wheel: Path, digits: Path, session_cache: Path, tmp_path: Path) -> None:
    place = tmp_path / "installed"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index"]
    output(*pip, "--target", place, wheel)
    environment = os.environ | {"PYTHONPATH": str(place), "EDGEC_CACHE_DIR": str(session_cache)}
    code = "import edgec.passes, edgec.targets; print(edgec.passes.__file__)"
    run = {"cwd": tmp_path, "env": environment}
    assert output(sys.executable, "-c", code, **run).startswith(str(place))
    words = ["compile", digits, "-o", "x.edgec"]
    assert "verified: device" in output(sys.executable, "-m", "edgec.cli", *words, **run)


@pytest.mark.nightly
def test_fresh_clone(tmp_path: Path) -> None:
    """Python, make and a network are enough for the demonstration."""
    clone = tmp_path / "edgec"
    output("git", "clone", "-q", REPO, clone)
    done = output("make", "demo", cwd=clone)
    assert "verified: device" in done
