"""The loader: what it runs."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgec.errors import ArtifactError, DataError, DeviceError, VerifyError
from edgec.runtime import load as loader
from edgec.runtime.load import load

from .samples import Packed, X, Y

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
