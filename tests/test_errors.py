"""Every failure a user can cause: its message, its exit code, and nothing left behind."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from command import Edgec

from edgec.cache import Cache
from edgec.graph import Graph
from edgec.passes import PASSES
from edgec.rewrite import Numerics, Rewrite, Skip
from edgec.tensors import Node


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder, and one for temporary files that must be empty at the end."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setenv("TMPDIR", str(temporary))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    yield work
    assert list(temporary.iterdir()) == []


def check(done: Any, code: int, *words: str) -> None:
    """A message in edgec's form that holds `words`, and nothing on stdout."""
    assert done.code == code, done.err
    assert done.out == ""
    last = done.err.splitlines()
    assert any(line.startswith("edgec: ") and " error: " in line for line in last)
    assert "Traceback" not in done.err
    for word in words:
        assert word in done.err


def test_no_such_model(edgec: Edgec, folder: Path) -> None:
    check(edgec("compile", "absent.onnx"), 3, "model error: absent.onnx: cannot be read")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"\x00" * 64, b"not a model", b"PK\x03\x04" + b"x" * 99])
def test_not_onnx(edgec: Edgec, folder: Path, content: bytes) -> None:
    (folder / "m.onnx").write_bytes(content)
    check(edgec("compile", "m.onnx"), 3, "model error: ")
    assert [path.name for path in folder.iterdir()] == ["m.onnx"]


def test_truncated_model(edgec: Edgec, folder: Path, digits: Path) -> None:
    (folder / "m.onnx").write_bytes(digits.read_bytes()[:-1000])
    check(edgec("compile", "m.onnx"), 3, "m.onnx: not an ONNX model, or a truncated one")


def test_unknown_target(edgec: Edgec, folder: Path, digits: Path) -> None:
    done = edgec("compile", digits, "--target", "aarch46")
    check(done, 4, "target error: unknown target 'aarch46'", "edgec targets")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--frobnicate"], "unrecognized arguments: --frobnicate"),
        (["--quantise", "w8a8"], "did you mean --quantize? `edgec compile --help` shows"),
        (["-O7"], "unrecognized arguments: -O7"),
        (["--shape", "image"], "cannot read 'image'"),
        (["--shape", "image=1x1x8xq"], "'q' in 'image=1x1x8xq' is no size"),
        (["--shape", "imagf=1x1x8x8"], "did you mean 'image'?"),
        (["--shape", "x=1x1x8x8"], "it has: image\n"),
        (["--shape", "image=1x1x8"], "the given shape rank 3"),
        (["--shape", "image=1x1x8x9"], "axis 3 is fixed to 8"),
        (["--shape", "image=1,1,8,8"], "write --shape INPUT=1x3x224x224"),
        (["--dim", "N=0"], "'0' in 'N=0' is no size"),
        (["--dim", "M=4"], "the model has no symbolic dimension 'M'"),
        (["--state", "logits"], "write --state OUT=IN"),
        (["--state", "scores=image"], "the model has no output 'scores'"),
        (["--state", "logits=image"], "an input of the same dtype and shape"),
        (["--passes", "fuse-conf-bn"], "there is no pass 'fuse-conf-bn'"),
        (["--disable", "fuse-conf-bn"], "there is no pass 'fuse-conf-bn'"),
        (["--print-after", "fuse-conf-bn"], "there is no pass 'fuse-conf-bn'"),
        (["--emit", "onnx,elf"], "there is no form 'elf'"),
        (["-j", "0"], "0 processes"),
        (["--stop-after", "-1"], "-1 is no number of rewrites"),
        (["--require", "faith"], "invalid choice: 'faith'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_usage(edgec: Edgec, folder: Path, digits: Path, words: list[str], message: str) -> None:
    check(edgec("compile", digits, *words), 2, "usage error: ", message)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("verb", ["run", "profile", "bench"])
def test_threads_are_not_negative(edgec: Edgec, digits_artifact: Path, verb: str) -> None:
    done = edgec(verb, digits_artifact, "--threads", "-3")
    check(done, 2, "argument --threads: -3 is less than 0")


def test_unknown_command(edgec: Edgec) -> None:
    check(edgec("frobnicate"), 2, "invalid choice: 'frobnicate'", "edgec --help")


def test_unbound_dimensions_are_listed(edgec: Edgec, folder: Path, digits: Path) -> None:
    import onnx

    model = onnx.load(digits)
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "H"
    onnx.save(model, "open.onnx")
    wanted = "image axis 0 (N), image axis 2 (H)"
    check(edgec("compile", "open.onnx"), 3, wanted, "--dim NAME=SIZE")
    assert f"unknown: these dimensions have no size: {wanted}" in edgec("inspect", "open.onnx").out
    assert edgec("inspect", "open.onnx", "--json").result["unsupported"] is None
    known = edgec("inspect", "open.onnx", "--dim", "H=8", "--json").result
    assert known["unsupported"] == []


def test_operators_that_cannot_be_lowered_are_listed_at_once(edgec: Edgec, folder: Path) -> None:
    import onnx
    from onnx import parser

    text = """<ir_version: 10, opset_import: ["" : 21]>
        odd (float[4] x) => (float[A] y, float[4] z) {
          i = NonZero(x)  j = Squeeze(i)  y = Gather(x, j)
          z = RandomUniformLike(x) }"""
    onnx.save(parser.parse_model(text), "odd.onnx")
    check(edgec("compile", "odd.onnx"), 6, "NonZero", "run time only")
    done = edgec("inspect", "odd.onnx")
    assert done.code == 0
    assert "NonZero" in done.out
    assert "RandomUniformLike" in done.out


def test_no_compiler(edgec: Edgec, folder: Path, digits: Path) -> None:
    check(edgec("compile", digits, "--cc", "/no/cc", "-o", "x.edgec"), 4, "/no/cc", "--cc")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("output", "message"),
    [("absent/x.edgec", "the folder 'absent' does not exist"), (".", "is a folder")],
)
def test_unwritable_output(
    edgec: Edgec, folder: Path, digits: Path, output: str, message: str
) -> None:
    started = time.monotonic()
    check(edgec("compile", digits, "-o", output), 9, "artifact error: ", message)
    assert time.monotonic() - started < 1, "found before the work, not after it"
    assert list(folder.iterdir()) == []


def test_read_only_folder(
    start_edgec: Edgec, folder: Path, digits: Path, digits_artifact: Path
) -> None:
    """Also as root, who may write to everything but a file system that is read-only."""
    if not os.access("/proc", os.W_OK):
        (folder / "locked").mkdir(mode=0o500)
    place = Path("/proc") if os.access("/proc", os.W_OK) else folder / "locked"
    process = start_edgec("compile", digits, "-o", place / "x.edgec")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 9, err
    assert "cannot be written" in err


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="needs to mount a tmpfs")
@pytest.mark.parametrize("full", ["output", "temporary", "cache"])
def test_full_disk(
    start_edgec: Edgec, digits: Path, digits_artifact: Path, tmp_path: Path, full: str
) -> None:
    """A full disk below the output or the temporary files is an error; one below the cache is
    not."""
    disk = tmp_path / "disk"
    disk.mkdir()
    options = ["-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if subprocess.run(["mount", *options], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        places = {"output": tmp_path, "temporary": tmp_path, "cache": None} | {full: disk}
        environment = {"TMPDIR": str(places["temporary"])}
        if places["cache"]:
            environment["EDGEC_CACHE_DIR"] = str(disk)
            (disk / "zig").symlink_to(Cache.default().folder("zig").resolve())
        output = places["output"] / "x.edgec"
        fresh = [] if full == "output" else ["--no-cache"]
        process = start_edgec("compile", digits, *fresh, "-o", output, env=environment)
        _, err = process.communicate(timeout=120)
        if full == "cache":
            assert process.returncode == 0, err
            assert output.stat().st_size == digits_artifact.stat().st_size
        else:
            assert process.returncode == 9, err
            assert "No space left on device" in err
            assert "Traceback" not in err
            assert list(disk.iterdir()) == []
            assert not output.exists()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_file_too_large(folder: Path) -> None:
    """A file cut short by the limit of a file's size does not appear at all."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    output = folder / "out"
    output.mkdir()
    code = (
        "import sys\n"
        "from edgec.emit.archive import write_file\n"
        "from edgec.errors import ArtifactError\n"
        "try:\n    write_file(sys.argv[1], [bytes(10_000)] * 3)\n"
        "except ArtifactError as error:\n    print(error); sys.exit(error.exit_code)\n"
    )
    command = [sys.executable, "-c", code, str(output / "x.edgec")]
    done = subprocess.run(command, preexec_fn=limit, capture_output=True, text=True)
    assert done.returncode == 9
    assert "File too large" in done.stdout
    assert list(output.iterdir()) == []


def damaged(artifact: Path) -> dict[str, bytes]:
    """The artifact, spoilt in several ways."""
    whole = artifact.read_bytes()
    middle = len(whole) // 2
    flipped = bytearray(whole)
    with zipfile.ZipFile(artifact) as archive:
        for member in archive.infolist():
            if member.filename.endswith((".so", ".zip")):
                flipped[member.header_offset + 2 * 4096] ^= 0x10
    return {
        "empty": b"",
        "truncated": whole[:middle],
        "last byte gone": whole[:-1],
        "bit flipped": bytes(flipped),
        "foreign zip": (
            b"PK\x05\x06" + bytes(18)  # an empty ZIP file
        ),
        "text": b"hello\n" * 1000,
    }


KINDS = ["empty", "truncated", "last byte gone", "bit flipped", "foreign zip", "text"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("command", ["run", "export", "verify"])
def test_damaged_artifact(
    edgec: Edgec, folder: Path, digits: Path, digits_artifact: Path, kind: str, command: str
) -> None:
    (folder / "x.edgec").write_bytes(damaged(digits_artifact)[kind])
    words: list[object] = {"run": [], "export": ["out"], "verify": ["--against", digits]}[command]
    check(edgec(command, "x.edgec", *words), 9, "artifact error: x.edgec: ")
    assert [path.name for path in folder.iterdir()] == ["x.edgec"]


def test_absent_artifact(edgec: Edgec, folder: Path) -> None:
    check(edgec("run", "absent.edgec"), 9, "absent.edgec: cannot be read: No such file")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        ({"x": np.zeros((1, 1, 8, 8), np.float32)}, "'x'"),
        ({}, "image"),
        ({"image": np.zeros((1, 1, 8, 9), np.float32)}, "[1, 1, 8, 8]"),
        ({"image": np.full((1, 1, 8, 8), "a")}, "image"),
    ],
    ids=["unknown", "missing", "shape", "dtype"],
)
def test_wrong_data(
    edgec: Edgec,
    folder: Path,
    digits_artifact: Path,
    array: dict[str, np.ndarray],
    message: str,
) -> None:
    np.savez(folder / "data.npz", **array)
    check(edgec("run", digits_artifact, "--input", "data.npz"), 12, "data error: ", message)


def test_wrong_inputs_in_python(digits_artifact: Path) -> None:
    import edgec

    module = edgec.load(digits_artifact)
    image = np.zeros((1, 1, 8, 8), np.float32)
    for inputs, message in [
        ({}, "input 'image' is missing"),
        ({"image": image[0]}, r"must be float32 \[1, 1, 8, 8\], not float32 \[1, 8, 8\]"),
        ({"image": image.astype(np.float64)}, "not float64"),
        ({"image": image, "x": image}, "'x'"),
    ]:
        with pytest.raises(edgec.EdgecError, match=message) as caught:
            module.run(inputs)
        assert caught.value.exit_code == 12


def test_module_for_another_machine(edgec: Edgec, folder: Path, digits: Path) -> None:
    other = "aarch64" if os.uname().machine == "x86_64" else "x86-64-v3"
    assert edgec("compile", digits, "--target", other, "-o", "x.edgec").code == 0
    check(edgec("run", "x.edgec"), 9, "this machine cannot run it", "edgec compile MODEL")


@dataclass(frozen=True)
class ShiftBias(Rewrite):
    """A pass with a fault."""

    name: ClassVar[str] = "shift-bias"
    numerics: ClassVar[Numerics] = "exact"
    roots: ClassVar[tuple[str, ...]] = ("Gemm",)

    def rewrite(self, node: Node, graph: Graph) -> None:
        bias = node.inputs[2]
        if bias.name.startswith("shifted"):
            raise Skip("done")
        node.inputs[2] = graph.constant(bias.values + np.float32(0.01), "shifted")


def test_mismatch_keeps_the_evidence(
    edgec: Edgec, folder: Path, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass that changes what the model computes is found before an artifact is written."""
    monkeypatch.setitem(PASSES, ShiftBias.name, ShiftBias)
    for _ in range(2):
        done = edgec("compile", digits, "--passes", "shift-bias", "-o", "x.edgec")
        check(done, 7, "verification error: ", "logits", "x.mismatch")
        assert [path.name for path in folder.iterdir()] == ["x.mismatch"]
    evidence = folder / "x.mismatch"
    expected, actual = (np.load(evidence / f"{n}.npz")["logits"] for n in ("expected", "actual"))
    np.testing.assert_allclose(actual - expected, 0.01, rtol=0.1)
    assert "image" in np.load(evidence / "inputs.npz")
    assert "logits" in (evidence / "report.txt").read_text()


def test_another_model_is_refused(
    edgec: Edgec, folder: Path, digits: Path, digits_artifact: Path
) -> None:
    """Even one with the same inputs and outputs: it is not what was compiled."""
    import onnx

    model = onnx.load(digits)
    bias = next(t for t in model.graph.initializer if t.name == "fc.bias")
    values = onnx.numpy_helper.to_array(bias) + np.float32(0.5)
    bias.CopyFrom(onnx.numpy_helper.from_array(values, "fc.bias"))
    onnx.save(model, "other.onnx")
    shutil.copy(digits_artifact, "x.edgec")
    done = edgec("verify", "x.edgec", "--against", "other.onnx")
    check(done, 7, "verification error: ")


def descendants(pid: int) -> set[int]:
    """All living processes below `pid`."""
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        for task in Path(f"/proc/{waiting.pop()}/task").glob("*/children"):
            children = {int(word) for word in task.read_text().split()}
            waiting += children - found
            found |= children
    return found


def alive(pids: set[int]) -> set[int]:
    """Those of `pids` that run; a zombie does not."""

    def runs(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    return set(filter(runs, pids))


def all_gone(pids: set[int], within: float) -> bool:
    deadline = time.monotonic() + within
    while alive(pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def at_work(process: subprocess.Popen[str]) -> set[int]:
    """Wait until `process` builds kernels; its descendants then."""
    assert process.stdout is not None
    for line in process.stdout:
        if '"stage": "kernels"' in line and '"start"' in line:
            return descendants(process.pid)
    raise AssertionError(process.communicate()[1])


@pytest.fixture
def compiling(
    start_edgec: Edgec, folder: Path, digits: Path, tmp_path: Path
) -> tuple[subprocess.Popen[str], set[int]]:
    """A compilation in the midst of building kernels, none of them cached, and its children."""
    cache = tmp_path / "cold"
    cache.mkdir()
    words = ["compile", digits, "-o", folder / "x.edgec", "--json", "-j", "2"]
    process = start_edgec(*words, env={"EDGEC_CACHE_DIR": str(cache)})
    return process, at_work(process)


@pytest.mark.parametrize(
    ("number", "code", "group"),
    [(signal.SIGINT, 130, True), (signal.SIGINT, 130, False), (signal.SIGTERM, 143, False)],
    ids=["Ctrl-C", "SIGINT", "SIGTERM"],
)
def test_interrupted(
    compiling: tuple[subprocess.Popen[str], set[int]],
    folder: Path,
    number: int,
    code: int,
    group: bool,
) -> None:
    process, children = compiling
    assert len(children) >= 2
    (os.killpg if group else os.kill)(process.pid, number)
    _, err = process.communicate(timeout=10)
    assert process.returncode == code, err
    assert err == ("edgec: interrupted\n" if code == 130 else "")
    assert all_gone(children, within=0.5)
    assert list(folder.iterdir()) == []


def test_killed(
    compiling: tuple[subprocess.Popen[str], set[int]], folder: Path, tmp_path: Path
) -> None:
    """Nobody can clean up after SIGKILL, but no worker works on for nobody."""
    process, children = compiling
    process.kill()
    process.communicate(timeout=10)
    assert all_gone(children, within=3)
    assert list(folder.iterdir()) == []
    shutil.rmtree(tmp_path / "temporary")
    (tmp_path / "temporary").mkdir()


def test_internal_fault(edgec: Edgec, digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of edgec's own is one line, and a traceback where it was asked for."""

    def fault(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr("edgec.commands.build.compile_model", fault)
    done = edgec("compile", digits)
    check(done, 1, "internal error: ZeroDivisionError: by nothing", "-v shows the traceback")
    assert "Traceback" in edgec("compile", digits, "-v").err


def test_closed_pipe(digits: Path) -> None:
    """`edgec passes | head -0` is no error."""
    command = f"{sys.executable} -m edgec.cli passes | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr == ""
