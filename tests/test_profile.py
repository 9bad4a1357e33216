"""`edgec profile`: the steps' times, and that they add up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgec.cache import Cache
from edgec.compiler import compile_model
from edgec.errors import DataError
from edgec.options import Options
from edgec.profile import Profile, StepTime, profile

IMAGE = {"image": np.ones((1, 1, 8, 8), np.float32)}


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
    assert 0.8 < found.ratio < 1.2
    conv = next(step for step in found.steps if "conv2" in step.nodes)
    assert conv.macs > 0
    assert conv.gflops == pytest.approx(2e-9 * conv.macs / conv.seconds)


def test_the_wrong_input_is_refused(digits_artifact: Path) -> None:
    with pytest.raises(DataError, match="must be float32"):
        profile(digits_artifact, {"image": np.zeros(3)})


def test_table_is_sorted_and_skips_what_did_not_run() -> None:
    steps = (
        StepTime("short", ("a",), 1, 0, 1e-6),
        StepTime("long" * 20, ("b", "c"), 3, 500, 3e-6),
        StepTime("not_taken", (), 1, 100, 0.0),
    )
    lines = Profile("v", 2, 7, steps, 4e-6, 5e-6).table().splitlines()
    assert lines[2].split() == f"{'long' * 11}l... 3 3.00 us 75.0 % 1.0 b, c".split()
    assert lines[3].split() == ["short", "1", "1.00", "us", "25.0", "%", "a"]
    assert lines[-1] == (
        "7 runs, 2 threads: the steps take 4.00 us, a plain run 5.00 us (ratio 0.80)"
    )
    assert not any("not_taken" in line for line in lines)


def test_command(edgec: Callable[..., Any], digits_artifact: Path) -> None:
    done = edgec("profile", digits_artifact, "--runs", 5, "--threads", 1, "--spin-us", 0, "--json")
    facts = done.result
    assert facts.keys() >= {"variant", "threads", "runs", "steps", "steps_us", "run_us", "ratio"}
    assert (facts["threads"], facts["runs"]) == (1, 5)
    assert sum(step["share"] for step in facts["steps"]) == pytest.approx(1, abs=0.2)
    assert facts["steps"][0].keys() == {
        "kernel", "nodes", "calls", "macs", "us", "share", "gflops"
    }  # fmt: skip
    assert "GFLOP/s" in edgec("profile", digits_artifact, "--runs", 5).out
