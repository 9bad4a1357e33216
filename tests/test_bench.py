"""The protocol's bookkeeping on a made-up clock, and real engines in real processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

from edgec import bench as bench_module
from edgec import graph, protocol
from edgec.bench import bench
from edgec.benchreport import BenchReport, Row
from edgec.cache import Cache
from edgec.compiler import compile_model
from edgec.errors import ArtifactError, UsageError
from edgec.peers import PEERS, EngineError, EngineProcess, Peer
from edgec.protocol import Ratio, Times, alternate
from edgec.trials import Setting, Started

REPO = Path(__file__).parents[1]


class Clockwork:
    """An engine whose calls take a known time, writing down all that happens to it."""

    def __init__(self, name: str, ns: int, log: list[str]) -> None:
        self.name, self.ns, self.log = name, ns, log
        self.running = True

    def stop(self) -> None:
        self.running = False
        self.log.append(f"{self.name} stops")

    def resume(self) -> None:
        self.running = True
        self.log.append(f"{self.name} goes on")

    def burst(self, calls: int, rest_s: float) -> list[int]:
        assert (calls, rest_s) == (20, 0.05)
        self.log.append(f"{self.name} runs")
        return [10**9] * 5 + [self.ns] * (calls - 5)


def test_one_engine_runs_at_a_time_the_others_stopped() -> None:
    log: list[str] = []
    engines = [Clockwork(name, 1000, log) for name in "abc"]
    running: list[list[str]] = []
    for engine in engines:
        original = engine.burst

        def watched(calls: int, rest_s: float, original: object = original) -> list[int]:
            running.append([e.name for e in engines if e.running])
            return original(calls, rest_s)  # type: ignore[operator]

        engine.burst = watched  # type: ignore[method-assign]
    alternate(engines, calls=60)
    assert running == [
        ["a"],
        ["b"],
        ["c"],
        ["b"],
        ["c"],
        ["a"],
        ["c"],
        ["a"],
        ["b"],
        ["a"],
        ["b"],
        ["c"],
    ]
    assert log[:3] == ["a stops", "b stops", "c stops"]
    assert not any(engine.running for engine in engines)


def test_enough_calls_are_counted_and_the_first_five_dropped() -> None:
    heard: list[tuple[int, int]] = []
    fast, slow = alternate(
        [Clockwork("fast", 1000, []), Clockwork("slow", 3000, [])],
        on_round=lambda done, rounds: heard.append((done, rounds)),
    )
    assert fast.calls == slow.calls == 210
    assert len(fast.rounds) == 14
    assert fast.median == fast.quantile(1) == pytest.approx(1e-6)
    assert Ratio.of(slow, fast).value == pytest.approx(3)
    assert heard == [(i, 14) for i in range(1, 15)]


def test_an_engine_that_dies_leaves_all_stopped() -> None:
    engines = [Clockwork("a", 1, []), Clockwork("b", 1, [])]

    def dies(calls: int, rest_s: float) -> list[int]:
        raise EngineError("gone")

    engines[1].burst = dies  # type: ignore[method-assign]
    with pytest.raises(EngineError):
        alternate(engines)
    assert not any(engine.running for engine in engines)


def test_ratio_is_of_medians_and_spreads_over_rounds() -> None:
    base = Times(((1.0, 1.0, 9.0), (2.0, 2.0, 2.0)))
    other = Times(((2.0, 2.0, 2.0), (4.0, 6.0, 8.0)))
    ratio = Ratio.of(other, base)
    assert ratio.value == 3.0 / 2.0
    assert (ratio.p10, ratio.p90) == (pytest.approx(2.1), pytest.approx(2.9))


def row(engine: str, ms: float) -> Row:
    times = Times(tuple((ms * 0.99e-3, ms * 1e-3, ms * 1.2e-3) for _ in range(4)))
    return Row(engine, engine.title(), "1.0", "as given", 2, times, 0.1, 0.2, 9 << 20, 5, 4, 3)


def report(twin_ms: float = 2.0) -> BenchReport:
    return BenchReport(
        model="m",
        machine={"processor": "P", "cores": "2 cores"},
        rows=[row("edgec", 1.0), row("onnxruntime", 2.0)],
        twin=row("onnxruntime", twin_ms).times,
        twin_of="onnxruntime",
        absent={"openvino": "pip install openvino"},
    )


def test_the_table_has_ratio_and_what_is_absent() -> None:
    text = report().table()
    assert "Onnxruntime 1.0" in text
    assert "2.00 (2.00 .. 2.00)" in text
    assert "A/A 1.00" in text
    assert "openvino: absent (pip install openvino)" in text
    assert "NOT BELIEVED" not in text


@pytest.mark.parametrize(
    ("twin_ms", "believed"), [(1.88, False), (1.92, True), (2.08, True), (2.12, False)]
)
def test_a_table_whose_aa_row_is_off_is_not_believed(twin_ms: float, believed: bool) -> None:
    measured = report(twin_ms)
    assert measured.believed is believed
    assert ("NOT BELIEVED" in measured.table()) is not believed
    assert measured.to_dict()["believed"] is believed


def test_report_as_json() -> None:
    facts = json.loads(json.dumps(report().to_dict(), allow_nan=False))
    assert facts["engines"][1]["ratio"]["value"] == pytest.approx(2)
    assert facts["engines"][0]["median_ms"] == pytest.approx(1)
    assert facts["engines"][0]["calls"] == 12
    assert facts["protocol"] == {"burst": 20, "dropped": 5, "rest_ms": 50}


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_plot(tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("matplotlib")
    report().plot(tmp_path / f"m.{suffix}")
    data = (tmp_path / f"m.{suffix}").read_bytes()
    assert data[:5] in (b"\x89PNG\r", b"<?xml")
    assert len(data) > 5000
    with pytest.raises(UsageError, match="not supported"):
        report().plot(tmp_path / "m.nonsense")


def test_without_matplotlib_the_pip_line_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UsageError) as caught:
        report().plot(tmp_path / "m.png")
    assert "edgec[bench]" in caught.value.hint


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network at opset 9, its weights also listed as inputs, its batch symbolic."""
    proto = parser.parse_model("""
        <ir_version: 4, opset_import: ["" : 9]>
        tiny (float[N,8] x, int64[N,2] ids, float[8,4] w, float[5,4] table) => (float[N,4] y)
        <float[8,4] w, float[5,4] table>
        { a = MatMul (x, w)  e = Gather (table, ids)  s = ReduceSum <axes = [1], keepdims = 0> (e)
          y = Add (a, s) }
    """)
    rng = np.random.default_rng(0)
    del proto.graph.initializer[:]
    for name, shape in (("w", (8, 4)), ("table", (5, 4))):
        proto.graph.initializer.append(
            onnx.numpy_helper.from_array(rng.standard_normal(shape, np.float32), name)
        )
    path = tmp_path_factory.mktemp("bench") / "tiny.onnx"
    onnx.save(proto, path)
    return path


SAMPLE = {"x": np.ones((1, 8), np.float32), "ids": np.int64([[0, 4]])}


def installed(engine: str) -> str:
    if not PEERS[engine].installed:
        pytest.skip(f"{engine} is not installed")
    return engine


@pytest.fixture(params=["onnxruntime", "openvino", "iree"])
def engine(request: pytest.FixtureRequest, model: Path, tmp_path: Path) -> Iterator[EngineProcess]:
    path, prepare = model, PEERS[installed(request.param)].prepare
    if prepare is not None:
        graph.load(model, dims={"N": 1}).save(tmp_path / "bound.onnx", opset=17)
        path = prepare(tmp_path / "bound.onnx", tmp_path)
    with EngineProcess(request.param) as process:
        facts = process.load(
            path,
            1,
            dims={"N": 1},
            shapes={"x": [1, 8], "ids": [1, 2]},
            inputs=["x", "ids"],
            outputs=["y"],
        )
        assert set(facts["inputs"]) == {"x", "ids"}
        assert facts["outputs"] == ["y"]
        yield process


def test_an_engine_runs_and_is_timed(engine: EngineProcess, model: Path) -> None:
    outputs, seconds = engine.timed_run(SAMPLE)
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(model).graph.initializer}
    expected = weights["w"].sum(0) + weights["table"][[0, 4]].sum(0)
    np.testing.assert_allclose(outputs["y"], expected[None], rtol=1e-5)
    assert seconds > 0
    engine.bind(SAMPLE)
    times = engine.burst(7, 0.0)
    assert len(times) == 7
    assert min(times) > 0
    resident, baseline = engine.memory()
    assert resident > baseline > 1 << 20


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


needs_proc = pytest.mark.skipif(not Path("/proc").exists(), reason="needs /proc")


@needs_proc
def test_stop_and_resume(engine: EngineProcess) -> None:
    engine.stop()
    assert state_of(engine.pid) == "T"
    engine.resume()
    assert engine.run(SAMPLE)["y"].shape == (1, 4)
    engine.stop()
    engine.close()
    assert not Path(f"/proc/{engine.pid}").exists()


def test_failures_of_an_engine_are_errors_and_do_not_end_it(
    engine: EngineProcess, tmp_path: Path
) -> None:
    with pytest.raises(EngineError) as caught:
        engine.load(tmp_path / "absent.onnx", 1)
    assert caught.value.where == engine.engine
    assert engine.run(SAMPLE)["y"].shape == (1, 4)


def test_requests_out_of_order() -> None:
    with EngineProcess("onnxruntime") as process, pytest.raises(EngineError, match="too early"):
        process.burst(1, 0)
    with pytest.raises(EngineError, match="was ended"):
        process.memory()


def test_an_engine_that_takes_too_long_is_ended(model: Path) -> None:
    with EngineProcess("onnxruntime") as process:
        process.load(model, 1)
        process.bind(SAMPLE)
        process.limit_s = 0.2
        with pytest.raises(EngineError, match=r"ran past its limit of 0\.2 s in burst"):
            process.burst(1, 60.0)


def test_an_engine_that_dies_says_how(engine: EngineProcess) -> None:
    os.kill(engine.pid, signal.SIGSEGV)
    with pytest.raises(EngineError, match="SIGSEGV"):
        engine.run(SAMPLE)


ORPHANS = """
import os, sys, time
sys.path.insert(0, {repo!r})
from edgec.peers import EngineProcess
with EngineProcess("onnxruntime") as stopped, EngineProcess("onnxruntime") as running:
    for engine in (stopped, running):
        engine.memory()
    stopped.stop()
    print(stopped.pid, running.pid, flush=True)
    time.sleep(60)
"""


@needs_proc
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_engines_end_with_their_parent(number: signal.Signals) -> None:
    script = ORPHANS.format(repo=str(REPO))
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert state_of(pids[0]) == "T"
        parent.send_signal(number)
        parent.wait(10)
    deadline = time.monotonic() + 10
    alive = set(pids)
    while alive and time.monotonic() < deadline:
        alive = {p for p in alive if Path(f"/proc/{p}").exists() and state_of(p) != "Z"}
        time.sleep(0.02)
    assert not alive


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


def test_what_iree_cannot_compile_is_said(tmp_path: Path) -> None:
    prepare = PEERS[installed("iree")].prepare
    assert prepare is not None
    (tmp_path / "m.onnx").write_bytes(b"\xff")
    with pytest.raises(EngineError, match="import_onnx"):
        prepare(tmp_path / "m.onnx", tmp_path)


@pytest.fixture(scope="module")
def artifact(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifact")
    compile_model(model, folder / "tiny.edgec", cache=Cache(folder / "cache"))
    return folder / "tiny.edgec"


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


FROM_C = """
import json, sys
import numpy as np
sys.path.insert(0, {folder!r})
import fromc, load
x, y = np.float32([[1, 2, 3]]), np.zeros((1, 3), np.float32)
if {engine!r} == "edgec":
    with load.load({path!r}) as module:
        times = fromc.edgec({library!r}, module.bind({{"x": x}}, {{"y": y}}))(4)
else:
    burst = fromc.onnxruntime({library!r}, {path!r}, 1, {{"x": x[:, :{width}]}}, {{"y": y}})
    times = burst(4)
print(json.dumps([len(times), min(times), y.tolist()]))
"""


def from_c(folder: Path, engine: str, width: int) -> subprocess.CompletedProcess[str]:
    """Four calls that add 1 to each of 1, 2, 3, in a process with nothing else of edgec."""
    proto = parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]> m (float[1,3] x) => (float[1,3] y)'
        " { one = Constant <value_float = 1.0> () y = Add (x, one) }"
    )
    onnx.save(proto, folder / "m.onnx")
    compile_model(folder / "m.onnx", folder / "m.edgec", cache=Cache(folder / "cache"))
    for source in (REPO / "edgec" / "fromc.py", REPO / "edgec" / "runtime" / "load.py"):
        shutil.copy(source, folder)
    path = folder / ("m.edgec" if engine == "edgec" else "m.onnx")
    script = FROM_C.format(
        folder=str(folder),
        engine=engine,
        path=str(path),
        library=bench_module._burst_library(folder),
        width=width,
    )
    command = [sys.executable, "-c", script]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("engine", ["edgec", "onnxruntime"])
def test_calls_from_c_compute(tmp_path: Path, engine: str) -> None:
    done = from_c(tmp_path, engine, width=3)
    assert done.returncode == 0, done.stderr
    count, least, outputs = json.loads(done.stdout)
    assert count == 4
    assert least > 0
    assert outputs == [[2, 3, 4]]


def test_what_onnxruntime_says_when_called_from_c(tmp_path: Path) -> None:
    done = from_c(tmp_path, "onnxruntime", width=2)
    assert done.returncode == 1
    assert "RuntimeError: Got invalid dimensions for input: x" in done.stderr


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


def test_the_protocol_is_what_is_promised() -> None:
    assert (protocol.BURST, protocol.DROPPED, protocol.REST_S) == (20, 5, 0.05)
    assert protocol.CALLS >= 200
    assert protocol.BELIEVED == (0.95, 1.05)
