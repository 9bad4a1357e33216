"""The loader: what it runs, and what it refuses."""

from __future__ import annotations

import ast
import ctypes
import json
import os
import shutil
import struct
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from edgec.errors import ArtifactError, DataError, DeviceError, VerifyError
from edgec.runtime import load as loader
from edgec.runtime.load import load

from .samples import MACHINE, Packed

X = (np.arange(-512, 512, dtype=np.float32) / 128).reshape(1, 1024)
Y = 2 * X + np.arange(1024, dtype=np.float32)
Pack = Callable[[str], Packed]


def test_runs_and_describes_itself(artifact: Path) -> None:
    with load(artifact, threads=2) as module:
        assert module.inputs == [loader.Tensor("x", "float32", (1, 1024), 4096)]
        assert module.outputs[0].name == "y"
        assert module.variant == "baseline"
        assert module.threads == 2
        np.testing.assert_array_equal(module.run({"x": X})["y"], Y)


def test_idle_threads_cost_nothing_between_runs(artifact: Path) -> None:
    """They sleep at once, or after the time that they may spin."""

    def idle_cpu_s(spin_us: int | None) -> float:
        with load(artifact, threads=3, spin_us=spin_us) as module:
            module.run({"x": X})
            time.sleep(0.02)
            before = time.process_time()
            time.sleep(0.2)
            return time.process_time() - before

    assert idle_cpu_s(0) < 0.02
    assert idle_cpu_s(50) < 0.02
    assert idle_cpu_s(None) < 0.02
    assert idle_cpu_s(10_000_000) > 0.02, "they do not spin at all"


def test_arrays_of_any_layout_run(artifact: Path) -> None:
    with load(artifact) as module:
        spread = np.zeros((1, 2048), np.float32)
        spread[:, ::2] = X
        np.testing.assert_array_equal(module.run({"x": spread[:, ::2]})["y"], Y)
        shifted = np.frombuffer(b"\0" + X.tobytes(), np.float32, offset=1, count=1024)
        np.testing.assert_array_equal(module.run({"x": shifted.reshape(1, 1024)})["y"], Y)


def test_bound_arrays_are_used_in_place(artifact: Path) -> None:
    with load(artifact) as module:
        x, y = X.copy(), np.zeros_like(X)
        call = module.bind({"x": x}, {"y": y})
        call()
        np.testing.assert_array_equal(y, Y)
        x[:] = 0
        call()
        np.testing.assert_array_equal(y[0], np.arange(1024))
    with pytest.raises(DeviceError, match="closed"):
        call()


def test_bind_refuses_what_it_cannot_use_in_place(artifact: Path) -> None:
    wide, y = np.zeros((1, 2048), np.float32), np.zeros_like(X)
    sealed = np.zeros_like(X)
    sealed.flags.writeable = False
    with load(artifact) as module:
        with pytest.raises(DataError, match="'x' is not C-contiguous"):
            module.bind({"x": wide[:, ::2]}, {"y": y})
        with pytest.raises(DataError, match="'y' cannot be written"):
            module.bind({"x": X}, {"y": sealed})
        with pytest.raises(DataError, match="output 'y' overlaps input 'x'"):
            module.bind({"x": y}, {"y": y})()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "input 'x' is missing"),
        ({"x": X, "z": X}, "there is no input 'z'"),
        ({"x": X.astype(np.float64)}, r"must be float32 \[1, 1024\], not float64 \[1, 1024\]"),
        ({"x": X[0]}, r"must be float32 \[1, 1024\], not float32 \[1024\]"),
        ({"x": X.astype(">f4")}, "must be float32"),
        ({"x": None}, "must be float32"),
    ],
)
def test_inputs_that_do_not_fit(artifact: Path, inputs: dict[str, Any], message: str) -> None:
    with load(artifact) as module, pytest.raises(DataError, match=message) as caught:
        module.run(inputs)
    assert "x float32 [1, 1024]" in caught.value.hint


def test_failures_carry_the_runtime_s_words(packed: Pack, tmp_path: Path) -> None:
    with load(packed("faults").write(tmp_path / "faults.edgec")) as module:
        with pytest.raises(DeviceError, match=r"kernel 'obey' .* failed with code -7"):
            module.run({"x": np.array([1], np.float32)})
        module.run({"x": np.array([0], np.float32)})


def test_state_lasts_until_reset(packed: Pack, tmp_path: Path) -> None:
    inputs = {"x": np.zeros((4, 16), np.float32), "flags": np.zeros(4, bool)}
    with load(packed("steps").write(tmp_path / "steps.edgec")) as module:
        assert [int(module.run(inputs)["count"]) for _ in range(3)] == [1, 2, 3]
        module.reset()
        assert module.run(inputs)["count"] == 1


def test_another_thread_is_refused(packed: Pack, tmp_path: Path) -> None:
    with load(packed("faults").write(tmp_path / "faults.edgec")) as module:
        y = np.zeros(8, np.float32)
        call = module.bind({"x": np.array([4], np.float32)}, {"y": y})
        sleep = threading.Thread(target=call)
        sleep.start()
        while y[0] != -1:
            time.sleep(0.001)
        with pytest.raises(DeviceError, match="another thread"):
            module.reset()
        with pytest.raises(DeviceError, match="another thread"):
            module.close()
        sleep.join()
        module.run({"x": np.array([0], np.float32)})


def test_interrupt_arrives_after_the_run(packed: Pack, tmp_path: Path) -> None:
    path = packed("faults").write(tmp_path / "faults.edgec")
    script = f"""
import os, signal, threading, numpy as np
from edgec.runtime.load import load
module = load({str(path)!r})
threading.Timer(0.03, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    for _ in range(100):
        module.run({{"x": np.array([4], np.float32)}})
except KeyboardInterrupt:
    module.run({{"x": np.array([0], np.float32)}})
    module.close()
    print("interrupted")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("interrupted\n", "")


def test_outputs_of_the_size_a_run_gives_them(packed: Pack, tmp_path: Path) -> None:
    x = np.zeros((2000, 3), np.float32)
    x[[3, 5], 0] = 1, 2
    with load(packed("sift").write(tmp_path / "sift.edgec")) as module:
        assert module.outputs[0].shape == (2000, 3)
        outputs = module.run({"x": x})
        np.testing.assert_array_equal(outputs["kept"], [[1, 0, 0], [2, 0, 0]])
        np.testing.assert_array_equal(outputs["sum"], [3, 0, 0])
        assert module.run({"x": np.zeros_like(x)})["kept"].shape == (0, 3)
        bound = module.bind({"x": x})
        bound()
        assert bound.results()["kept"].shape == (2, 3)
        x[7, 0] = 3
        bound()
        np.testing.assert_array_equal(bound.results()["kept"][:, 0], [1, 2, 3])
        assert module.outputs[0].shape == (2000, 3)
    with pytest.raises(DeviceError, match="closed"):
        bound.results()


def test_profile(packed: Pack, tmp_path: Path) -> None:
    artifact = packed("steps")
    inputs = {"x": np.ones((4, 16), np.float32), "flags": np.zeros(4, np.bool_)}
    call: dict[str, object] = {"kernel": "k", "nodes": []}
    artifact.variant["steps"] = [
        call,
        {"repeat": 4, "body": [{"then": [call], "else": [call]}, call]},
        call,
        {"repeat": 2, "body": [{"repeat": 3, "body": [call]}]},
        call,
        {"repeat": 4, "body": [call]},
        call,
    ]
    with load(artifact.write(tmp_path / "steps.edgec")) as module:
        times = module.bind(inputs).profile()
    assert [index for index, time in enumerate(times) if not time] == [1, 2, 3, 7, 8, 11]
    assert len(times) == 14
    artifact.variant["steps"] = [call]
    with (
        load(artifact.write(tmp_path / "fewer.edgec")) as module,
        pytest.raises(DataError, match="times of 1 steps asked for, the model has 14"),
    ):
        module.bind(inputs).profile()
    del artifact.variant["steps"]
    with (
        load(artifact.write(tmp_path / "none.edgec")) as module,
        pytest.raises(ArtifactError, match="lists no steps"),
    ):
        module.bind(inputs).profile()


def test_selftest(packed: Pack, tmp_path: Path) -> None:
    artifact = packed("alpha")
    with load(artifact.write(tmp_path / "good.edgec")) as module:
        module.selftest()
    golden = bytearray(artifact.members["golden/baseline.bin"])
    golden[-2] ^= 1
    artifact.members["golden/baseline.bin"] = bytes(golden)
    with (
        load(artifact.write(tmp_path / "bad.edgec")) as module,
        pytest.raises(VerifyError, match=r"output 'y' is .* at element 1023"),
    ):
        module.selftest()
    artifact.variant["golden"] = None
    with (
        load(artifact.write(tmp_path / "none.edgec")) as module,
        pytest.raises(ArtifactError, match="no golden data"),
    ):
        module.selftest()


def test_models_with_kernels_of_equal_names(packed: Pack, tmp_path: Path) -> None:
    paths = [packed(name).write(tmp_path / f"{name}.edgec") for name in ("alpha", "beta")]
    with load(paths[0]) as alpha, load(paths[1]) as beta:
        np.testing.assert_array_equal(beta.run({"x": X})["y"], Y + X)
        np.testing.assert_array_equal(alpha.run({"x": X})["y"], Y)


def test_closing_leaves_nothing_mapped_or_open(artifact: Path) -> None:
    def traces() -> tuple[int, int]:
        maps = Path("/proc/self/maps").read_text()
        return len(os.listdir("/proc/self/fd")), maps.count("memfd:edgec") + maps.count(".edgec")

    before = traces()
    for _ in range(30):
        module = load(artifact, threads=2)
        np.testing.assert_array_equal(module.run({"x": X})["y"], Y)
        assert traces() > before
        module.close()
        module.close()
    assert traces() == before
    with pytest.raises(DeviceError, match="closed"):
        module.run({"x": X})


def test_manifest_and_members_can_be_read_anywhere(packed: Pack, tmp_path: Path) -> None:
    artifact = packed("alpha")
    artifact.variant["requires"]["arch"] = "riscv64"
    path = artifact.write(tmp_path / "alpha.edgec")
    assert loader.read_manifest(path)["variants"] == [artifact.variant]
    for name, content in artifact.members.items():
        assert loader.read_member(path, name) == content
    with pytest.raises(ArtifactError, match="'absent' is missing"):
        loader.read_member(path, "absent")


@pytest.mark.parametrize("share", [0, 1e-4, 1e-3, 0.01, 0.1, 0.5, 0.9, 0.999, 0.99999])
def test_truncated(artifact: Path, share: float) -> None:
    data = artifact.read_bytes()
    artifact.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ArtifactError, match=r"damaged|empty"):
        load(artifact)


def test_flipped_bits_are_found_or_harmless(artifact: Path) -> None:
    data = artifact.read_bytes()
    rng = np.random.default_rng(0)
    positions = [
        *range(0, 64),
        *range(len(data) - 600, len(data)),
        *rng.integers(len(data), size=300),
    ]
    found = 0
    for position in positions:
        flipped = bytearray(data)
        flipped[position] ^= 1 << rng.integers(8)
        artifact.write_bytes(flipped)
        try:
            with load(artifact, threads=1) as module:
                np.testing.assert_array_equal(module.run({"x": X})["y"], Y)
        except ArtifactError:
            found += 1
    assert found > len(positions) // 3


def foreign_files() -> dict[str, bytes]:
    central = b"PK\1\2" + bytes(42)
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 1, 1, len(central), 0, 0)
    return {
        "text": b"this is not an artifact\n" * 100,
        "elf": Path(sys.executable).read_bytes()[:100_000],
        "zeros": bytes(100_000),
        "directory of nothing": central + end,
        "huge counts": struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 65535, 65535, 2**31, 2**31, 0),
    }


@pytest.mark.parametrize("content", foreign_files().values(), ids=foreign_files())
def test_foreign(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "foreign.edgec"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="not an edgec artifact") as caught:
        load(path)
    assert caught.value.exit_code == 9
    assert caught.value.where == str(path)


def test_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="No such file"):
        load(tmp_path / "absent.edgec")
    with pytest.raises(ArtifactError, match="is not a file"):
        load(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ArtifactError, match="is not a file"):
        load(tmp_path / "fifo")


MANIFESTS = {
    "no json": b"{",
    "not utf-8": b'{"format": "\xff"}',
    "a list": b"[]",
    "deep": b"[" * 100_000,
    "other format": b'{"format": "other"}',
    "no version": b'{"format": "edgec"}',
    "odd version": b'{"format": "edgec", "version": "1"}',
    "no variants": b'{"format": "edgec", "version": [1, 0], "files": {}}',
    "odd variants": b'{"format": "edgec", "version": [1, 0], "files": {}, "variants": [[], 3]}',
}


@pytest.mark.parametrize("manifest", MANIFESTS.values(), ids=MANIFESTS)
def test_odd_manifest(tmp_path: Path, manifest: bytes) -> None:
    path = tmp_path / "odd.edgec"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("manifest.json", manifest)
    with pytest.raises(ArtifactError, match="not an edgec artifact"):
        load(path)


def test_compressed_members_are_refused(artifact: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed.edgec"
    with (
        zipfile.ZipFile(artifact) as source,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
    with pytest.raises(ArtifactError, match="compressed"):
        load(packed)


@pytest.mark.parametrize("member", ["library", "weights"])
def test_changed_member_is_refused(packed: Pack, tmp_path: Path, member: str) -> None:
    """Also where the ZIP file's own checksum was made to agree."""
    path = packed("alpha").write(tmp_path / "alpha.edgec")
    changed = packed("alpha")
    name = changed.variant[member]
    with zipfile.ZipFile(path) as archive:
        files = json.loads(archive.read("manifest.json"))["files"]
    content = bytearray(changed.members[name])
    content[len(content) // 2] ^= 1
    changed.members[name] = bytes(content)
    changed.write(path)
    with zipfile.ZipFile(path) as archive:
        manifest = json.loads(archive.read("manifest.json"))
        others = {key: archive.read(key) for key in archive.namelist() if key != "manifest.json"}
    manifest["files"] = files
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("manifest.json", json.dumps(manifest))
        for key, value in others.items():
            archive.writestr(key, value)
    with pytest.raises(ArtifactError, match=f"'{name}' has changed"):
        load(path)


def test_weights_of_another_library_are_refused(packed: Pack, tmp_path: Path) -> None:
    artifact = packed("alpha")
    artifact.members[artifact.variant["weights"]] = bytes(4160)
    with pytest.raises(ArtifactError, match="weights belong to another library"):
        load(artifact.write(tmp_path / "alpha.edgec"))


def test_library_without_its_symbol(packed: Pack, tmp_path: Path) -> None:
    artifact = packed("alpha")
    artifact.variant["symbol"] = "edgec_model_gamma"
    with pytest.raises(ArtifactError, match="no edgec_model_gamma"):
        load(artifact.write(tmp_path / "alpha.edgec"))


def test_library_that_is_none(packed: Pack, tmp_path: Path) -> None:
    artifact = packed("alpha")
    artifact.members[artifact.variant["library"]] = b"#!/bin/sh\n"
    with pytest.raises(ArtifactError, match="cannot be loaded"):
        load(artifact.write(tmp_path / "alpha.edgec"))


def test_versions(packed: Pack, tmp_path: Path) -> None:
    artifact = packed("alpha")
    artifact.manifest["version"] = [1, 7]
    artifact.manifest["a key of the future"] = artifact.variant["another"] = {"x": [1]}
    with load(artifact.write(tmp_path / "minor.edgec")) as module:
        module.run({"x": X})
    artifact.manifest["version"] = [2, 0]
    with pytest.raises(ArtifactError, match="format version 2") as caught:
        load(artifact.write(tmp_path / "major.edgec"))
    assert "load.py" in caught.value.hint


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("os", "windows", "it is for windows, this is linux"),
        ("arch", "riscv64", f"it is for riscv64, this is {MACHINE}"),
        ("features", ["fpu_of_tomorrow"], "this CPU has no fpu_of_tomorrow"),
        ("libc", "glibc 9.1", r"it needs glibc 9\.1, this is 2\."),
    ],
)
def test_requirements(packed: Pack, tmp_path: Path, key: str, value: Any, message: str) -> None:
    artifact = packed("alpha")
    artifact.variant["requires"][key] = value
    with pytest.raises(ArtifactError, match=message) as caught:
        load(artifact.write(tmp_path / "alpha.edgec"))
    assert "--target host" in caught.value.hint


def test_abi(packed: Pack, tmp_path: Path) -> None:
    artifact = packed("alpha")
    artifact.variant["abi"] = 2
    with pytest.raises(ArtifactError, match="ABI version 2, this loader speaks 1"):
        load(artifact.write(tmp_path / "alpha.edgec"))


def test_a_library_with_fewer_functions(
    packed: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Longer(loader._CModel):
        _fields_: ClassVar = [("later", ctypes.c_void_p)]

    path = packed("alpha").write(tmp_path / "alpha.edgec")
    monkeypatch.setattr(loader, "_CModel", Longer)
    with pytest.raises(ArtifactError, match="of an older edgec"):
        load(path)


def test_the_library_checks_the_cpu_as_well(packed: Pack, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no 'fpu_of_tomorrow'"):
        load(packed("alien").write(tmp_path / "alien.edgec"))


def test_first_variant_that_fits_is_chosen(packed: Pack, tmp_path: Path) -> None:
    artifact = packed("alpha")
    artifact.variant["dims"] = {"N": 1}
    better = json.loads(json.dumps(artifact.variant))
    better["id"] = "better"
    better["requires"]["features"] = ["fpu_of_tomorrow"]
    batch = {**artifact.variant, "id": "batch", "dims": {"N": 8}}
    artifact.manifest["variants"] = [better, artifact.variant, batch]
    path = artifact.write(tmp_path / "alpha.edgec")
    for options, expected in [({}, "baseline"), ({"dims": {"N": 8}}, "batch")]:
        with load(path, **options) as module:
            assert module.variant == expected
    with load(path, variant="batch") as module:
        assert module.variant == "batch"
    with pytest.raises(ArtifactError, match="variant 'better': this CPU has no fpu_of_tomorrow"):
        load(path, variant="better")
    with pytest.raises(ArtifactError, match="holds no variant 'worse'") as caught:
        load(path, variant="worse")
    assert "better, baseline, batch" in caught.value.hint
    with pytest.raises(ArtifactError, match="holds no dims"):
        load(path, dims={"N": 3})


def test_without_memfd(artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> int:
        raise PermissionError("not in this sandbox")

    monkeypatch.setattr(os, "memfd_create", forbidden)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for _ in range(2):
        with load(artifact) as module, load(artifact) as another:
            np.testing.assert_array_equal(module.run({"x": X})["y"], Y)
            np.testing.assert_array_equal(another.run({"x": X})["y"], Y)
        (copy,) = (tmp_path / "cache").rglob("*.so*")
        copy.write_bytes(b"changed by somebody")


ALONE = """
import sys
sys.modules["edgec"] = None
import numpy as np, load
with load.load(sys.argv[1]) as module:
    print(module.run({"x": np.ones((1, 1024), np.float32)})["y"][0, 5])
    try:
        module.run({})
    except load.DataError as error:
        print(error.exit_code, error)
try:
    load.load("absent")
except load.ArtifactError as error:
    print(error.exit_code, error)
del sys.modules["edgec"]
names = {name.split(".")[0] for name in sys.modules if not name.startswith("_")}
print(sorted(names - set(sys.stdlib_module_names)))
"""


def test_one_file_and_numpy_are_enough(artifact: Path, tmp_path: Path) -> None:
    shutil.copy(loader.__file__, tmp_path / "load.py")
    done = subprocess.run(
        [sys.executable, "-c", ALONE, artifact],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0] == "7.0"
    assert lines[1] == "12 input 'x' is missing"
    assert lines[3] == "9 absent: cannot be read: No such file or directory"
    assert lines[4] == "['load', 'numpy']"


def test_is_python_3_8() -> None:
    ast.parse(Path(loader.__file__).read_text(), feature_version=(3, 8))
