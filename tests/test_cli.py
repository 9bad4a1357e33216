"""The command line's contract: what each command prints, writes and returns."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from command import Edgec

from edgec import __version__
from edgec.emit.forms import KINDS

REPO = Path(__file__).parents[1]
DOCUMENT = REPO / "docs" / "json.md"
COMMANDS = [
    *("optimize", "bisect", "diff"),
    *("compile", "tune", "run", "verify", "bench", "export"),
    *("inspect", "targets", "passes", "doctor", "cache"),
]


def test_help_and_version(edgec: Edgec) -> None:
    assert edgec("--version").out == f"edgec {__version__}\n"
    done = edgec("--help")
    assert done.code == 0
    for command in COMMANDS:
        assert f"\n    {command} " in done.out
        described = edgec(command, "--help")
        assert described.code == 0
        assert "--json" in described.out


def test_heavy_modules_are_imported_where_they_are_needed(
    digits: Path, digits_artifact: Path, session_cache: Path, tmp_path: Path
) -> None:
    """Asking for help and running an artifact import no compiler, compiling what is cached no TVM,
    compiling no torch."""
    again = tmp_path / "again.edgec"
    environment = {**os.environ, "EDGEC_CACHE_DIR": str(session_cache)}
    runs = {
        "import edgec": ("tvm", "onnx", "onnxruntime", "torch"),
        "import edgec.cli\ntry: edgec.cli.main(['--help'])\nexcept SystemExit: pass": (
            *("tvm", "onnx", "onnxruntime", "torch", "numpy.testing"),
        ),
        "import edgec, numpy\n"
        f"edgec.load({str(digits_artifact)!r})"
        ".run({'image': numpy.zeros((1, 1, 8, 8), 'float32')})": (
            *("tvm", "onnx", "onnxruntime", "torch"),
        ),
        f"import edgec.cli\nedgec.cli.main(['compile', {str(digits)!r}, '-o', {str(again)!r}])": (
            *("tvm", "onnxruntime", "torch"),
        ),
        "import edgec.compiler, edgec.lower.build, edgec.lower.lowering": ("torch", "onnxruntime"),
    }
    for code, banned in runs.items():
        check = f"{code}\nimport sys\nsys.exit(repr([n for n in {banned} if n in sys.modules]))"
        command = [sys.executable, "-c", check]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.stderr.splitlines()[-1:] == ["[]"], code


def test_run_prints_and_writes_outputs(edgec: Edgec, digits_artifact: Path, tmp_path: Path) -> None:
    images = np.load(REPO / "models" / "digits_test.npz")["image"][:5]
    np.savez(tmp_path / "five.npz", image=images)
    out = tmp_path / "out"
    done = edgec("run", digits_artifact, "--input", tmp_path / "five.npz", "--output", out)
    assert done.code == 0
    assert "logits  float32[1,10]" in done.out
    logits = np.load(out / "logits.npy")
    assert logits.shape == (5, 1, 10)
    labels = np.load(REPO / "models" / "digits_labels.npy")[:5]
    assert logits.reshape(5, 10).argmax(1).tolist() == labels.tolist()
    np.save(tmp_path / "one.npy", images[0])
    edgec("run", digits_artifact, "--input", f"image={tmp_path / 'one.npy'}", "--output", out)
    assert np.array_equal(np.load(out / "logits.npy")[0], logits[0])


def test_selftest(edgec: Edgec, digits_artifact: Path) -> None:
    assert edgec("run", digits_artifact, "--selftest").out == "self-test passed\n"


def test_runner(edgec: Edgec, digits: Path, tmp_path: Path) -> None:
    artifact = tmp_path / "x.edgec"
    assert edgec("compile", digits, "-o", artifact, "--runner").code == 0
    runner = tmp_path / "x.run"
    assert runner.stat().st_size < 200 * 1024
    done = subprocess.run([runner, artifact, "--selftest"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "self-test passed\n")


@pytest.mark.parametrize("kind", KINDS)
def test_emit_one(edgec: Edgec, digits: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "form"
    done = edgec("compile", digits, "--emit", kind, "-o", path)
    assert (done.code, done.out) == (0, "")
    data = path.read_bytes()
    expected = {
        "onnx": b"digits_cnn",
        "relax": b"conv2d",
        "tir": b"T.prim_func",
        "asm": b".globl",
        "c": b"EDGEC_EXPORT_MODEL(digits_cnn, ",
        "so": b"\x7fELF",
    }
    assert expected[kind] in data
    if kind == "onnx":
        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=True)
        assert model.opset_import[0].version == 17, "as the model was written"
        assert "BatchNormalization" not in {node.op_type for node in model.graph.node}


def test_emit_several_and_save_temps(edgec: Edgec, digits: Path, tmp_path: Path) -> None:
    done = edgec("compile", digits, "--emit", "onnx,c", "-o", tmp_path / "forms", "--json")
    assert [Path(name).name for name in done.result["written"]] == [
        "digits_cnn.onnx",
        "digits_cnn.c",
    ]
    assert {path.name for path in (tmp_path / "forms").iterdir()} == {
        *("digits_cnn.onnx", "digits_cnn.c"),
    }
    words = ["-o", tmp_path / "x.edgec", "--save-temps", tmp_path / "temps"]
    assert edgec("compile", digits, *words).code == 0
    [variant] = (tmp_path / "temps").iterdir()
    names = {path.name for path in variant.iterdir()}
    assert names == {f"digits_cnn{suffix}" for suffix in KINDS.values()}
    same = (tmp_path / "forms" / "digits_cnn.onnx").read_bytes()
    assert (variant / "digits_cnn.onnx").read_bytes() == same


def test_stop_after(edgec: Edgec, digits: Path, tmp_path: Path) -> None:
    left = []
    for limit in (0, 1, 3):
        words = ["--emit", "onnx", "-o", tmp_path / "x.onnx", "--stop-after", limit]
        assert edgec("compile", digits, *words).code == 0
        nodes = onnx.load(tmp_path / "x.onnx").graph.node
        left.append(sum(node.op_type == "BatchNormalization" for node in nodes))
    assert left == [3, 2, 0]


def test_levels_and_pass_lists(edgec: Edgec, digits: Path, tmp_path: Path) -> None:
    def count(*words: object) -> int:
        done = edgec("compile", digits, "--emit", "onnx", "-o", tmp_path / "x.onnx", *words)
        assert done.code == 0, done.err
        return len(onnx.load(tmp_path / "x.onnx").graph.node)

    assert count("-O0") == count("-O2", "--disable", "fuse-conv-bn") == 13
    assert count("-O2") == count("--passes", "fuse-conv-bn") == 10


def test_watching_passes(edgec: Edgec, digits: Path, tmp_path: Path) -> None:
    words = ["-o", tmp_path / "x.edgec", "--time-passes", "--print-after", "fuse-conv-bn"]
    done = edgec("compile", digits, *words)
    assert done.code == 0
    shown = done.err.partition("after fuse-conv-bn:")[2]
    assert "conv1 = Conv" in shown
    assert "BatchNormalization" not in shown
    assert all(len(line) < 4000 for line in shown.splitlines()), "weights are shortened"
    assert "left alone" in shown
    assert re.search(r"^fuse-conv-bn +3 ", shown, re.MULTILINE)


def test_two_sizes_of_a_dimension(edgec: Edgec, digits: Path, tmp_path: Path) -> None:
    """Two variants in one artifact, one copy of the weights, chosen by size."""
    import edgec as library

    path = tmp_path / "x.edgec"
    done = edgec("compile", digits, "--dim", "N=1,4", "-o", path, "--json")
    assert [each["id"].rpartition("-")[2] for each in done.result["variants"]] == ["N1", "N4"]
    from edgec.runtime.load import read_manifest

    manifest = read_manifest(path)
    assert len([name for name in manifest["files"] if name.startswith("weights/")]) == 1
    images = np.load(REPO / "models" / "digits_test.npz")["image"][:4]
    one, four = library.load(path), library.load(path, dims={"N": 4})
    assert (one.inputs[0].shape[0], four.inputs[0].shape[0]) == (1, 4)
    together = four.run({"image": images.reshape(4, 1, 8, 8)})["logits"]
    alone = [one.run({"image": image.reshape(1, 1, 8, 8)})["logits"][0] for image in images]
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-4)
    with pytest.raises(library.EdgecError, match="N"):
        library.load(path, dims={"N": 3})


def test_require(edgec: Edgec, digits: Path, tmp_path: Path) -> None:
    """Less proof than asked for is an error, found in the cache or not."""
    path = tmp_path / "x.edgec"
    done = edgec("compile", digits, "-o", path, "--require", "device", "--json")
    assert done.result["variants"][0]["verified"] == "device"
    other = "aarch64" if os.uname().machine == "x86_64" else "x86-64-v3"
    for _ in range(2):
        assert edgec("compile", digits, "-o", path, "--target", other).code == 0
        refused = edgec("compile", digits, "-o", path, "--target", other, "--require", "device")
        assert refused.code == 7
        assert "edgec doctor --target" in refused.err


def test_proof_without_an_emulator(
    edgec: Edgec, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine's module is proved by its twin on this one; both leave the twin out."""
    monkeypatch.setattr("edgec.targets.shutil.which", lambda name: None)
    other = "aarch64" if os.uname().machine == "x86_64" else "x86-64-v3"
    done = edgec("compile", digits, "-o", tmp_path / "x.edgec", "--target", other, "--json")
    [variant] = done.result["variants"]
    assert (variant["id"], variant["verified"]) == (other, "host-twin")


def test_make_rebuilds_when_the_model_changes(
    edgec: Edgec, digits: Path, tmp_path: Path, session_cache: Path
) -> None:
    """A rule with the dependency file of -MD runs when, and only when, an input changed."""
    if not shutil.which("make"):
        pytest.skip("needs make")
    model = onnx.load(digits)
    onnx.save(
        model,
        tmp_path / "my model.onnx",
        save_as_external_data=True,
        location="my weights.bin",
        size_threshold=0,
    )
    (tmp_path / "Makefile").write_text(
        "x.edgec:\n"
        f"\t{sys.executable} -m edgec.cli compile 'my model.onnx' -o $@ -MD 2>/dev/null\n"
        "-include x.edgec.d\n"
    )

    def make() -> bool:
        """Whether make had anything to do."""
        environment = {**os.environ, "EDGEC_CACHE_DIR": str(session_cache)}
        command = ["make", "-C", str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        return "compile" in done.stdout

    made = (tmp_path / "x.edgec").stat
    assert make()
    assert not make()
    for name in ("my model.onnx", "my weights.bin"):
        now = made().st_mtime_ns + 10**9
        os.utime(tmp_path / name, ns=(now, now))
        assert make(), f"{name} changed"
        later = now + 10**9
        os.utime(tmp_path / "x.edgec", ns=(later, later))
        assert not make()


def test_targets(edgec: Edgec) -> None:
    listed = edgec("targets").out
    assert {line.split()[0] for line in listed.splitlines()} >= {"host", "x86-64-v3", "aarch64"}
    assert "aarch64-linux-gnu" in edgec("targets", "aarch64").out
    assert edgec("targets", "nope").code == 4


def test_passes(edgec: Edgec) -> None:
    from edgec.passes import PASSES

    assert {line.split()[0] for line in edgec("passes").out.splitlines()} == set(PASSES)
    for name in PASSES:
        assert "*Numerics*" in edgec("passes", name).out
    assert edgec("passes", "nope").code == 2


def test_inspect(edgec: Edgec, digits: Path, digits_artifact: Path) -> None:
    model = edgec("inspect", digits)
    assert "Conv 3" in model.out
    assert "every node can be lowered" in model.out
    artifact = edgec("inspect", digits_artifact)
    assert "verified   device" in artifact.out
    assert "input      image float32[1, 1, 8, 8]" in artifact.out


def test_doctor(edgec: Edgec, monkeypatch: pytest.MonkeyPatch) -> None:
    done = edgec("doctor", "--json")
    assert done.code == 0
    assert done.result["healthy"]
    from edgec import doctor

    monkeypatch.setitem(doctor.PINS, "apache-tvm", "0.1")
    monkeypatch.setattr(doctor, "_TVM_TRIAL", "import os; os.abort()")
    broken = edgec("doctor")
    assert broken.code == 4
    assert "pip install 'apache-tvm==0.1'" in broken.out
    assert "TVM at work: exit -6" in broken.out


# The keys of --json, as docs/json.md documents them. They are only ever added to.


def documented() -> dict[str, set[str]]:
    """Keys by the heading in docs/json.md that their table stands under."""
    keys: dict[str, set[str]] = {}
    heading = ""
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            heading = line[3:].strip("`")
            keys[heading] = set()
        elif line.startswith("| `"):
            keys[heading].add(line.split("`")[1])
    return keys


@pytest.fixture
def command_lines(digits: Path, digits_artifact: Path, tmp_path: Path) -> dict[str, list[object]]:
    """One use of every command, by its heading in docs/json.md."""
    store = tmp_path / "store"
    store.mkdir()
    (store / "records.jsonl").touch()
    bench = ["--model", digits, "--calls", "20", "--against", "onnxruntime"]
    return {
        "compile": ["compile", digits, "-o", tmp_path / "x.edgec"],
        "tune": ["tune", digits, "--trials", "3", "--records", tmp_path / "tuned"],
        "compile --emit": ["compile", digits, "--emit", "c", "-o", tmp_path / "x.c"],
        "optimize": ["optimize", digits, "-o", tmp_path / "x.onnx"],
        "bisect": ["bisect", digits, "--passes", "fuse-conv-bn"],
        "diff": ["diff", digits, digits],
        "quantize": ["quantize", digits, "--scheme", "w8a16", "-o", tmp_path / "q.onnx"],
        "run": ["run", digits_artifact],
        "run --selftest": ["run", digits_artifact, "--selftest"],
        "verify": ["verify", digits_artifact, "--against", digits],
        "bench": ["bench", digits_artifact, *bench],
        "profile": ["profile", digits_artifact, "--runs", "3"],
        "export": ["export", digits_artifact, tmp_path / "out"],
        "inspect MODEL": ["inspect", digits],
        "inspect ARTIFACT": ["inspect", digits_artifact],
        "records list`, `records show": ["records", "list", store],
        "records merge": ["records", "merge", tmp_path / "merged", store],
        "records export": ["records", "export", store, tmp_path / "best.jsonl"],
        "records prune": ["records", "prune", store],
        "records check": ["records", "check", store],
        "targets": ["targets"],
        "targets NAME": ["targets", "aarch64"],
        "targets probe": ["targets", "probe"],
        "passes": ["passes"],
        "passes NAME": ["passes", "fuse-conv-bn"],
        "doctor": ["doctor"],
        "cache": ["cache", "info"],
    }


def test_json_results(edgec: Edgec, command_lines: dict[str, list[object]]) -> None:
    expected = documented()
    assert set(command_lines) <= set(expected)
    events = {name.removeprefix("event ") for name in expected if name.startswith("event ")}
    for heading, words in command_lines.items():
        done = edgec(*words, "--json")
        result = done.result
        assert set(result) - {"event"} == expected[heading], heading
        for event in done.objects[:-1]:
            assert event["event"] in events
            assert set(event) - {"event"} <= expected[f"event {event['event']}"]


def test_json_errors(edgec: Edgec) -> None:
    done = edgec("compile", "absent.onnx", "--json")
    assert done.code == 3
    error = done.objects[-1]
    assert error.pop("event") == "error"
    assert set(error) == documented()["event error"]
    assert error["kind"] == "model"
    assert error["exit_code"] == 3


def test_json_has_no_infinity(edgec: Edgec, digits: Path, digits_artifact: Path) -> None:
    """Not every parser of JSON takes what Python's writes for numbers that are not finite."""

    def refuse(text: str) -> None:
        raise AssertionError(text)

    done = edgec("verify", digits_artifact, "--against", digits, "--inputs", "zeros", "--json")
    for line in done.out.splitlines():
        json.loads(line, parse_constant=refuse)
