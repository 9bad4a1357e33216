"""`edgec tune` and `edgec compile --tune`, from the command line, on a small trained model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command import Edgec
from terminal import on_terminal

from edgec.commands.arguments import seconds
from edgec.errors import UsageError
from edgec.graph import load
from edgec.lower.build import kernel_key
from edgec.lower.lowering import lower_graph
from edgec.passes import LEVELS
from edgec.rewrite import optimize
from edgec.targets import host
from edgec.tune import ranking
from edgec.tune.records import Store
from edgec.tune.trace import KNOB

TRIALS = 12


@pytest.fixture(scope="module")
def tuned(
    digits: Path, session_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[dict[str, Any]]]:
    """A store that a run has filled, and what the run said."""
    store = tmp_path_factory.mktemp("tuned") / "new" / "records"
    words = ["tune", str(digits), "--trials", str(TRIALS), "--records", str(store)]
    done = subprocess.run(
        [sys.executable, "-m", "edgec.cli", *words, "--only", "conv2d", "--json"],
        env=os.environ | {"EDGEC_CACHE_DIR": str(session_cache)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return store, [json.loads(line) for line in done.stdout.splitlines()]


def test_the_last_line_says_what_was_gained(tuned: tuple[Path, list[dict[str, Any]]]) -> None:
    _, said = tuned
    last = said[-1]
    assert last["event"] == "result"
    assert last["trials"] == TRIALS == last["valid"] + last["failed"]
    assert last["known"] == 0
    assert last["trials_per_second"] == pytest.approx(TRIALS / last["seconds"])
    assert last["measured"]
    assert 0 < last["after_ms"] < 1000
    assert last["speedup"] == pytest.approx(last["before_ms"] / last["after_ms"])
    assert sum(task["trials"] for task in last["tasks"]) == TRIALS
    assert all(task["gain"] >= 1 for task in last["tasks"]), "the rule's own choice is trial 0"
    latencies = [latency for _, latency in last["curve"]]
    assert latencies == sorted(latencies, reverse=True)


def test_every_trial_is_told_and_kept(tuned: tuple[Path, list[dict[str, Any]]]) -> None:
    store, said = tuned
    trials = [event for event in said if event["event"] == "tuning"]
    assert [event["trials"] for event in trials] == list(range(1, TRIALS + 1))
    records = Store(store).read().records
    tried = {(record.kernel, json.dumps(dict(record.decisions))) for record in records}
    assert len(tried) == TRIALS
    assert {record.threads for record in records} == {len(os.sched_getaffinity(0))}
    assert all(record.confirmed <= record.valid for record in records)


def test_only_what_was_asked_for_is_tuned(tuned: tuple[Path, list[dict[str, Any]]]) -> None:
    store, said = tuned
    [tasks] = (event["tasks"] for event in said if event["event"] == "tasks")
    assert tasks
    assert all("conv2d" in task["label"].split() for task in tasks)
    assert tasks == sorted(tasks, key=lambda task: -task["share"])
    assert all("conv2d" in record.label for record in Store(store).read().records)


def test_what_is_known_is_not_measured_again(
    edgec: Edgec, digits: Path, tuned: tuple[Path, list[dict[str, Any]]]
) -> None:
    store, _ = tuned
    before = Store(store).read().records
    words = ["--trials", TRIALS + 3, "--records", store, "--only", "conv2d"]
    done = edgec("tune", digits, *words, "--json")
    assert (done.result["known"], done.result["trials"]) == (TRIALS, 3)
    new = Store(store).read().records[len(before) :]
    known = {(record.kernel, json.dumps(dict(record.decisions))) for record in before}
    first_time = [r for r in new if (r.kernel, json.dumps(dict(r.decisions))) not in known]
    assert len({(r.kernel, json.dumps(dict(r.decisions))) for r in first_time}) == 3


def test_what_is_slower_in_the_model_is_corrected(
    edgec: Edgec, digits: Path, tuned: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    """A record that says twice as fast of a schedule that leaves everything as it was written."""
    graph = load(digits)
    optimize(graph, LEVELS[2])
    kernels = lower_graph(graph, "digits", [], host()).kernels
    [key] = [
        kernel_key(function)
        for name, function in kernels.items()
        if "conv2d" in name and [int(n) for n in function.params[0].shape[2:4]] == [4, 4]
    ]
    store = Store(tmp_path)
    known = [record for record in Store(tuned[0]).read().records if not record.confirmed]
    nothing_done = {KNOB: '[[["GetSBlock",[],["root","main"],["b0"]]],[]]'}
    lie = replace(known[0], kernel=key, decisions=nothing_done, valid=True, confirmed=True)
    lie = replace(lie, seconds=1e-6, baseline=2e-6)
    store.append(*(record for record in known if record.kernel != key), lie)
    words = ["--trials", 1, "--records", store.path, "--only", "conv2d", "--json"]
    done = edgec("tune", digits, *words)
    assert done.code == 0, done.err
    assert "faster alone, but not in the model" in done.out
    last = ranking.current(Store(tmp_path).read().records)
    [corrected] = [r for r in last if r.key == lie.key and r.decisions == lie.decisions]
    assert corrected.gain is not None
    assert corrected.gain < 1
    done = edgec("compile", digits, "-o", tmp_path / "a.edgec", "--records", store.path, "--json")
    assert done.result["variants"][0]["tuned"] == 0


def test_ctrl_c_ends_it_at_once_and_keeps_everything(
    start_edgec: Callable[..., subprocess.Popen[str]], digits: Path, tmp_path: Path
) -> None:
    store = tmp_path / "records"
    process = start_edgec("tune", digits, "--for", "10m", "--records", store, "--json")
    assert process.stdout is not None
    assert process.stderr is not None
    told = 0
    for line in process.stdout:
        told += json.loads(line)["event"] == "tuning"
        if told == 3:
            break
    os.kill(process.pid, signal.SIGINT)
    stopped = time.monotonic()
    rest = [json.loads(line) for line in process.stdout]
    assert process.wait(timeout=20) == 130
    assert time.monotonic() - stopped < 3
    told += sum(event["event"] == "tuning" for event in rest)
    reading = Store(store).read()
    assert (reading.torn, reading.foreign) == (0, 0)
    assert len({json.dumps([r.kernel, dict(r.decisions)]) for r in reading.records}) >= told
    note = next(event["text"] for event in rest if event["event"] == "note")
    kept = int(note.partition("stopped after ")[2].partition(" trials")[0])
    assert told <= kept <= told + 1
    assert str(store) in note
    assert rest[-1]["kind"] == "interrupted"


def test_where_every_candidate_fails_it_says_why(
    edgec: Edgec, digits: Path, tmp_path: Path
) -> None:
    words = ["--trials", 8, "--build-limit", "0.001s", "--only", "matmul", "--json"]
    done = edgec("tune", digits, "--records", tmp_path / "records", *words)
    assert done.code == 11
    error = done.objects[-1]
    assert error["kind"] == "tuning"
    assert "candidates failed" in error["what"]
    assert "build: took longer than 0" in error["what"]
    assert not any(record.valid for record in Store(tmp_path / "records").read().records)


def test_compile_and_tune_at_once_on_a_terminal(
    digits: Path, session_cache: Path, tmp_path: Path
) -> None:
    artifact, store = tmp_path / "x.edgec", tmp_path / "records"
    words = ["compile", str(digits), "-o", str(artifact), "--tune", "3s", "--records", str(store)]
    seen = on_terminal(
        [sys.executable, "-m", "edgec.cli", *words], {"EDGEC_CACHE_DIR": str(session_cache)}
    )
    assert artifact.exists()
    assert Store(store).read().records
    assert " left; " in seen
    assert "\x1b[J" in seen, "the block of lines changes in its place"
    shown = seen.replace("\r\n", "\n").split("\n")
    assert any(line.startswith("digits_cnn on ") for line in shown)
    assert f"records: {store}" in shown


def test_a_plot_that_cannot_be_drawn_is_refused_at_once(edgec: Edgec, tmp_path: Path) -> None:
    done = edgec("tune", "absent.onnx", "--plot", tmp_path / "curve.nothing")
    assert done.code == 2


def test_what_cannot_be_tuned_is_refused(edgec: Edgec, digits: Path, tmp_path: Path) -> None:
    for words in (
        ["--only", "nothing"],
        ["--dim", "N=1,2"],
        ["--for", "soon"],
        ["--on", "carrier pigeon"],
        ["--tracker", "127.0.0.1:9190"],
    ):
        done = edgec("tune", digits, "--records", tmp_path / "records", *words)
        assert done.code == 2, words
    assert not (tmp_path / "records").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90s", 90), ("10m", 600), ("1h30m", 5400), ("1h1m1.5s", 3661.5), ("45", 45), ("0.5s", 0.5)],
)
def test_times(text: str, expected: float) -> None:
    assert seconds(text, "--for") == expected


@pytest.mark.parametrize("text", ["", "0s", "-1s", "m", "ten minutes", "10 m", "5m1h", "1e3"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(UsageError, match="no time"):
        seconds(text, "--for")
