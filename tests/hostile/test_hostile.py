"""Hostile models through the command line: success or a typed error, in time and within memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import hostile_files
import hostile_operators
import numpy as np
import onnx
import pytest
from onnx import TensorProto
from worker import Worker

from edgec.errors import ModelError

REPO = Path(__file__).parents[2]
sys.path.insert(0, str(REPO / "tests" / "passes"))

CODES = {0, ModelError.exit_code}
MEMORY = 1 << 20
"""KiB beyond what optimising a small honest model takes."""

ESCAPES = [
    *("../secret.bin", "a/../../secret.bin", "/etc/passwd", "//etc/passwd", "\\etc\\passwd"),
    *("..\\secret.bin", "C:\\secret.bin", "file:///etc/passwd", "", ".", "..", "~", "$HOME"),
    *("w.bin\0.txt", "w.bin/", "a//w.bin", "absent.bin", "folder", "symlink.bin"),
    *("linked/secret.bin", "hardlink.bin", "fifo", "/dev/zero", "zero"),
]

_Model = onnx.ModelProto | bytes


def models() -> dict[str, _Model]:
    """All of them by name."""
    import test_fold_bombs as bombs

    found: dict[str, _Model] = {f"bomb_{name}": bombs.model(name) for name in bombs.BOMBS}
    return {**hostile_files.models(), **hostile_operators.models(), **found}


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    worker.close()


def problems(worker: Worker, path: Path, allowed: int) -> Iterator[str]:
    """What is wrong with how `inspect` and `optimize` end on the model at `path`."""
    out = path.parent / "out" / "o.onnx"
    out.parent.mkdir(exist_ok=True)
    for words in (("inspect", path), ("optimize", path, "-o", out)):
        ending = worker.run(*words)
        if ending.code not in CODES:
            yield f"{path.stem}, {words[0]}: {ending.code}, {ending.said}"
        if ending.memory > allowed:
            yield f"{path.stem}, {words[0]}: {ending.memory} KiB"
        if "Traceback" in ending.said:
            yield f"{path.stem}, {words[0]}: a traceback"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_none_does_harm(worker: Worker, tmp_path: Path) -> None:
    digits = REPO / "models" / "digits_cnn.onnx"
    honest = [
        worker.run("inspect", digits),
        worker.run("optimize", digits, "-o", tmp_path / "digits.onnx"),
    ]
    assert [ending.code for ending in honest] == [0, 0]
    allowed = max(ending.memory for ending in honest) + MEMORY
    found = models()
    assert len(found) > 200
    wrong = []
    for name, model in found.items():
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
        wrong += problems(worker, path, allowed)
        path.unlink()
    assert wrong == []


@pytest.mark.parametrize("location", ESCAPES)
def test_no_data_from_elsewhere(worker: Worker, tmp_path: Path, location: str) -> None:
    secret = tmp_path / "secret.bin"
    secret.write_bytes(b"secrets!")
    folder = tmp_path / "model"
    (folder / "folder").mkdir(parents=True)
    (folder / "w.bin").write_bytes(bytes(8))
    (folder / "symlink.bin").symlink_to(secret)
    (folder / "linked").symlink_to(tmp_path)
    (folder / "hardlink.bin").hardlink_to(secret)
    (folder / "zero").symlink_to("/dev/zero")
    model = hostile_files.base()
    tensor = TensorProto(name="w", dims=[2], data_type=1, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    model.graph.initializer[0].CopyFrom(tensor)
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    for words in (("inspect",), ("optimize", "-o", folder / "o.onnx")):
        ending = worker.run(*words[:1], folder / "m.onnx", *words[1:])
        assert ending.code == ModelError.exit_code
    assert not (folder / "o.onnx").exists()


def mutated(count: int) -> Iterator[tuple[str, bytes]]:
    """Models with bytes changed, put in or taken out, the same every time."""
    sources = [m if isinstance(m, bytes) else m.SerializeToString() for m in models().values()]
    sources = [source for source in sources if 20 < len(source) < 5000]
    sources += [p.read_bytes() for p in (REPO / "models").glob("*.onnx") if p.stat().st_size < 1e5]
    rng = np.random.default_rng(17)
    for number in range(count):
        data = bytearray(sources[number % len(sources)])
        for _ in range(rng.integers(1, 5)):
            place = int(rng.integers(len(data)))
            kind = rng.integers(4)
            if kind == 0:
                data[place : place + int(rng.integers(1, 9))] = b""
            elif kind == 1:
                data[place:place] = rng.bytes(int(rng.integers(1, 9)))
            else:
                data[place] = int(rng.integers(256))
            data = data or bytearray(b"\0")
        yield f"mutation{number}", bytes(data)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    "count", [300, pytest.param(20_000, marks=pytest.mark.nightly)], ids="{}".format
)
def test_changed_bytes(worker: Worker, tmp_path: Path, count: int) -> None:
    wrong = []
    for name, data in mutated(count):
        path = tmp_path / "m.onnx"
        path.write_bytes(data)
        ending = worker.run("inspect", path)
        if ending.code not in CODES:
            (tmp_path / f"{name}.onnx").write_bytes(data)
            wrong.append(f"{tmp_path / name}.onnx: {ending.code}, {ending.said}")
    assert wrong == []
