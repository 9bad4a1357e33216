"""`edgec bench` and the library behind it, with real engines."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from benched import SAMPLE, installed, save_tiny
from onnx import parser

from edgec import bench as bench_module
from edgec.bench import bench
from edgec.cache import Cache
from edgec.compiler import compile_model
from edgec.errors import ArtifactError, UsageError
from edgec.peers import PEERS, Peer
from edgec.trials import Setting, Started


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("bench"))


def test_bench_tries_every_file_and_thread_count(model: Path) -> None:
    events: list[dict[str, object]] = []
    found = bench(None, model, against=["onnxruntime"], calls=15, on_event=events.append)
    trials = [e for e in events if e["event"] == "trial"]
    assert [e["error"] for e in trials if "error" in e] == []
    assert {e["file"] for e in trials} == {"as given", "opset 17", "optimised"}
    assert {e["threads"] for e in trials} == set(bench_module._thread_counts())
    assert events[-1] == {"event": "round", "done": 1, "rounds": 1}
    best = min(trials, key=lambda e: e["median_s"])
    (only,) = found.rows
    assert (only.file, only.threads) == (best["file"], best["threads"])
    assert only.times.calls == 15
    assert found.twin_of == "onnxruntime"
    assert found.twin.calls == 15
    assert only.load_s > 0
    assert only.resident_bytes > only.engine_bytes > 0
    assert only.disk_bytes > 1 << 20
    assert found.warnings == []


def test_bench_of_two_engines_with_a_bad_optimised_file(model: Path, tmp_path: Path) -> None:
    installed("openvino")
    (tmp_path / "broken.onnx").write_bytes(b"\xff")
    found = bench(
        None,
        model,
        against=["openvino", "onnxruntime"],
        optimized=tmp_path / "broken.onnx",
        threads=1,
        calls=1,
        inputs=SAMPLE,
    )
    assert {row.engine for row in found.rows} == {"openvino", "onnxruntime"}
    errors = [facts for facts in found.tried if "error" in facts]
    assert [facts["file"] for facts in errors] == ["optimised", "optimised"]
    assert found.warnings == []
    assert found.ratio(found.base.engine).value == 1


def test_a_file_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    proto = parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]>'
        " m (float[2,8] x) => (float[2,8] y)"
        " { s = Constant <value = float[8] {1, 1, 1, 1, 1, 1, 1, 1}> ()"
        "   y = GroupNormalization <num_groups = 2> (x, s, s) }"
    )
    onnx.save(proto, tmp_path / "m.onnx")
    found = bench(None, tmp_path / "m.onnx", against=["onnxruntime"], threads=1, calls=1)
    (facts,) = [facts for facts in found.tried if "error" in facts]
    assert (facts["engine"], facts["file"]) == ("edgec", "opset 17")
    assert found.warnings == [f"no file 'opset 17' to try: {facts['error']}"]
    assert found.warnings[0] in found.table()


def test_outputs_that_differ_are_a_warning() -> None:
    started = [
        Started(None, 0, 0, {"y": np.float32([1, value])})  # type: ignore[arg-type]
        for value in (1, 1, 2)
    ]
    settings = [
        Setting(name, "as given", Path("m"), 1, {}) for name in ("edgec", "onnxruntime", "openvino")
    ]
    (warning,) = bench_module._disagreements(settings, started, {})
    assert warning.startswith("edgec and openvino differ in output 'y'")


def test_an_absent_peer_is_shown_and_alone_an_error(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ghost = Peer("ghost_engine", "Ghost", ("ghost_engine",), ("ghost-engine",))
    monkeypatch.setitem(PEERS, "ghost_engine", ghost)
    with pytest.raises(UsageError) as caught:
        bench(None, model, against=["ghost_engine"])
    assert caught.value.hint == "pip install ghost-engine"
    found = bench(None, model, against=["ghost_engine", "onnxruntime"], threads=1, calls=1)
    assert found.absent == {"ghost_engine": "pip install ghost-engine"}


def test_what_a_peer_compiles_is_kept(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peer that compiles: the copy it makes is what runs, and is found again."""
    compiled: list[str] = []

    def copy(source: Path, folder: Path) -> Path:
        compiled.append(source.name)
        return Path(shutil.copy(source, folder / "copy"))

    monkeypatch.setenv("EDGEC_CACHE_DIR", str(tmp_path))
    for options in (("-O1",), ("-O1",), ("-O2",)):
        peer = replace(PEERS["onnxruntime"], prepare=copy, options=options)
        monkeypatch.setitem(PEERS, "onnxruntime", peer)
        found = bench(None, model, against=["onnxruntime"], threads=1, calls=1, inputs=SAMPLE)
        assert found.failed == {}
        assert found.warnings == []
    assert compiled == ["tiny.onnx", "opset17.onnx", "optimised.onnx"] * 2


def test_peers_may_have_files_of_several_levels(model: Path) -> None:
    found = bench(None, model, against=["onnxruntime"], threads=1, calls=1, levels=(2, 3))
    labels = [facts["file"] for facts in found.tried]
    assert labels == ["as given", "opset 17", "optimised", "optimised -O3"]
    assert not any("error" in facts for facts in found.tried)


@pytest.fixture(scope="module")
def artifact(model: Path, session_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("artifact") / "tiny.edgec"
    compile_model(model, path, cache=Cache(session_cache))
    return path


def test_edgec_is_an_engine_like_the_others(model: Path, artifact: Path) -> None:
    found = bench(artifact, model, against=["onnxruntime"], threads=2, spin_us=0, calls=1)
    assert [row.engine for row in found.rows] == ["edgec", "onnxruntime"]
    assert found.base.file_bytes == artifact.stat().st_size
    assert found.twin_of == "onnxruntime"
    assert found.warnings == []
    assert "times edgec" in found.table()


def test_calls_from_c(model: Path, artifact: Path) -> None:
    found = bench(artifact, model, native=True, threads=1, calls=1)
    assert [row.engine for row in found.rows] == ["edgec", "onnxruntime"]
    assert found.failed == {}
    assert all(row.times.calls == 15 and row.times.median > 0 for row in found.rows)
    assert found.to_dict()["native"] is True
    assert "from C" in found.table()
    with pytest.raises(UsageError, match="called from C: edgec, onnxruntime"):
        bench(artifact, model, against=["onnxruntime", "openvino"], native=True)


def test_the_model_is_found_beside_the_artifact(
    model: Path, artifact: Path, tmp_path: Path
) -> None:
    alone = tmp_path / "tiny.edgec"
    shutil.copy(artifact, alone)
    with pytest.raises(UsageError, match="need the model"):
        bench(alone, against=["onnxruntime"])
    (tmp_path / "tiny.onnx").write_bytes(model.read_bytes() + b"\x00")
    with pytest.raises(UsageError, match="need the model"):
        bench(alone, against=["onnxruntime"])
    shutil.copy(model, tmp_path / "tiny.onnx")
    assert bench(alone, against=["onnxruntime"], threads=1, calls=1).model == "tiny"


def test_a_damaged_artifact_is_an_error(model: Path, artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "m.edgec").write_bytes(artifact.read_bytes()[:1000])
    with pytest.raises(ArtifactError):
        bench(tmp_path / "m.edgec", model, against=["onnxruntime"])


def test_an_unknown_engine(model: Path) -> None:
    with pytest.raises(UsageError, match="unknown engine 'tflite'"):
        bench(None, model, against=["tflite"])


def test_a_model_no_engine_can_run(tmp_path: Path) -> None:
    proto = parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21, "mine" : 1]>'
        " m (float[2] x) => (float[2] y) { y = mine.Op (x) }"
    )
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(UsageError, match="no engine can run the model: onnxruntime"):
        bench(None, tmp_path / "m.onnx", against=["onnxruntime"], threads=1)
