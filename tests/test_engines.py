"""Engines in processes of their own: what they compute, and how they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from benched import SAMPLE, installed, save_tiny

from edgec import graph
from edgec.peers import PEERS, EngineError, EngineProcess

REPO = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("bench"))


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


def test_what_iree_cannot_compile_is_said(tmp_path: Path) -> None:
    prepare = PEERS[installed("iree")].prepare
    assert prepare is not None
    (tmp_path / "m.onnx").write_bytes(b"\xff")
    with pytest.raises(EngineError, match="import_onnx"):
        prepare(tmp_path / "m.onnx", tmp_path)
