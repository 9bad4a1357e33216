"""`edgec profile`: the steps' times, that they add up, and what the machine allows."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import parser

from edgec.cache import Cache
from edgec.compiler import compile_model
from edgec.errors import DataError, UsageError
from edgec.options import Options
from edgec.peaks import Peaks
from edgec.profile import MOST_CLOCK_S, clock_s, profile
from edgec.profileplot import plot
from edgec.profilereport import Profile, StepTime
from edgec.roofline import Bounds

IMAGE = {"image": np.ones((1, 1, 8, 8), np.float32)}
PEAKS = Peaks("P", 2, 1e9, ((1 << 15, 4e9), (1 << 30, 1e9)))
STEPS = (
    StepTime("fused_conv2d3_add_relu1_over_2", ("a",), 1, 500, 1e-6, 4000, Bounds(5e-7, 1e-7)),
    StepTime("long" * 20, ("b", "c"), 3, 0, 3e-6, 2000, Bounds(0.0, 6e-7)),
    StepTime("not_taken", (), 1, 100, 0.0, 4000, Bounds(1e-7, 1e-6)),
)


def report(*steps: StepTime, peaks: Peaks | None = PEAKS) -> Profile:
    return Profile("m", "v", 2, 7, steps, 4e-6, 5e-6, peaks)


def test_steps_are_those_of_the_plan_and_add_up(
    digits: Path, session_cache: Path, tmp_path: Path
) -> None:
    """A batch that takes long enough for Python's own time not to matter."""
    path = tmp_path / "many.edgec"
    manifest = compile_model(
        digits, path, Options(dims={"N": (256,)}), cache=Cache(session_cache)
    ).manifest
    image = {"image": np.ones((256, 1, 8, 8), np.float32)}
    found = profile(path, image, threads=1, runs=30)
    assert [step.kernel for step in found.steps] == [
        step["kernel"] for step in manifest["variants"][0]["steps"]
    ]
    assert all(step.seconds > 0 and step.calls == 1 for step in found.steps)
    assert 0.5 < found.ratio < 2.0
    conv = next(step for step in found.steps if "conv2" in step.nodes)
    assert conv.macs > 0
    assert conv.gflops == pytest.approx(2e-9 * conv.macs / conv.seconds)


def test_the_wrong_input_is_refused(digits_artifact: Path) -> None:
    with pytest.raises(DataError, match="must be float32"):
        profile(digits_artifact, {"image": np.zeros(3)})


def test_the_clock_takes_its_share_of_timed_runs() -> None:
    assert clock_s(10e-6, 8e-6, calls=50) == pytest.approx(40e-9)
    assert clock_s(8e-6, 10e-6, calls=50) == 0
    assert clock_s(10e-6, 8e-6, calls=2) == MOST_CLOCK_S, "so much no clock takes"
    assert clock_s(0.0, 1e-6, calls=0) == 0


def test_many_small_steps_add_up(session_cache: Path, tmp_path: Path) -> None:
    """Of two hundred calls inside a loop, each of which the clock makes longer."""
    model = parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]>'
        " m (float[50,1,8] x, float[1,24,8] w, float[1,24,8] r) => (float[50,1,1,8] y)"
        " { y = GRU <hidden_size = 8> (x, w, r) }"
    )
    onnx.save(model, tmp_path / "gru.onnx")
    path = tmp_path / "gru.edgec"
    compile_model(tmp_path / "gru.onnx", path, cache=Cache(session_cache))
    inputs = {
        name: np.ones(shape, np.float32)
        for name, shape in (("x", (50, 1, 8)), ("w", (1, 24, 8)), ("r", (1, 24, 8)))
    }
    found = profile(path, inputs, threads=1, runs=50)
    assert max(step.calls for step in found.steps) == 50
    assert 0 < found.clock_s <= MOST_CLOCK_S
    assert 0.5 < found.ratio < 2.0


def test_table_is_sorted_and_skips_what_did_not_run() -> None:
    lines = report(*STEPS).table().splitlines()
    assert "share  GFLOP/s  of FMA  GB/s  of memory  bound by" in lines[0]
    assert lines[2].split() == f"{'long' * 9}l... 3 3.00 us 75.0 % 2.0 60 % memory b, c".split()
    shown = ["1.00", "us", "25.0", "%", "1.0", "50", "%", "4.0", "10", "%", "fma", "a"]
    assert lines[3].split() == ["conv2d", "add", "relu", "1", *shown]
    assert lines[5:] == [
        "7 runs, 2 threads: the steps take 4.00 us, a plain run 5.00 us (ratio 0.80)",
        "at the peaks of this machine they would take 2.30 us (58 %)",
        "peaks: 2 GFLOP/s; 4 GB/s from the nearest cache, 1.0 GB/s from memory",
    ]


def test_a_kernel_that_multiplies_less_than_its_definition() -> None:
    """As Winograd's convolution does."""
    step = StepTime("winograd", ("a",), 1, 9000, 4e-6, 400, Bounds(9e-6, 1e-7))
    lines = report(step).table().splitlines()
    assert "225 %" in lines[2]
    assert lines[-1] == "above 100 % of FMA: fewer multiplications than by definition"


def test_without_peaks_there_are_no_shares() -> None:
    """As on a machine without a C compiler, or with an artifact that does not say what it
    touches."""
    text = report(StepTime("softmax", ("a",), 1, 0, 4e-6), peaks=None).table()
    assert "of FMA" not in text
    assert "of memory" not in text
    assert len(text.splitlines()) == 5


@pytest.mark.parametrize("peaks", [PEAKS, None])
def test_plot(tmp_path: Path, peaks: Peaks | None) -> None:
    pytest.importorskip("matplotlib")
    many = (*STEPS, *(StepTime("k", ("n",), 1, 9, 1e-7, 8, Bounds(1e-8, 1e-8)),) * 20)
    whole, bars = tmp_path / "m.svg", tmp_path / "bars.svg"
    plot(report(*many, peaks=peaks), whole)
    plot(report(StepTime("softmax", (), 1, 0, 4e-6), peaks=peaks), bars)
    assert len(whole.read_bytes()) > len(bars.read_bytes()) > 5000
    with pytest.raises(UsageError, match="not supported"):
        plot(report(*STEPS), tmp_path / "m.nonsense")


def test_without_matplotlib_the_pip_line_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UsageError) as caught:
        plot(report(*STEPS), tmp_path / "m.png")
    assert "edgec[bench]" in caught.value.hint


def test_command(edgec: Callable[..., Any], digits_artifact: Path) -> None:
    done = edgec("profile", digits_artifact, "--runs", 5, "--threads", 1, "--spin-us", 0, "--json")
    facts = done.result
    assert facts.keys() >= {"variant", "threads", "runs", "steps", "steps_us", "run_us", "ratio"}
    assert (facts["threads"], facts["runs"]) == (1, 5)
    assert sum(step["share"] for step in facts["steps"]) == pytest.approx(1, abs=0.2)
    assert facts["steps"][0].keys() == {
        "kernel", "nodes", "calls", "macs", "bytes", "us", "share", "gflops", "gbytes",
        "fma_share", "memory_share", "bound",
    }  # fmt: skip
    assert all(step["bound"] in ("fma", "memory") for step in facts["steps"])
    assert facts["peaks"]["threads"] == 1
    assert facts["least_us"] > 0
    assert "of FMA" in edgec("profile", digits_artifact, "--runs", 5).out


def test_a_machine_whose_peaks_cannot_be_measured(
    edgec: Callable[..., Any], digits_artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgec.peaks.LIMIT_S", 0.001)
    done = edgec("profile", digits_artifact, "--runs", 5, "--threads", 1, "--no-cache", "--json")
    assert "cannot be measured" in done.objects[-2]["text"]
    assert done.result["peaks"] is None
    assert done.result["steps"][0]["bound"] is None
    assert done.result["steps"][0]["gbytes"] > 0
