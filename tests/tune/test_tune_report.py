"""The outcome of a tuning run, as data, text and picture."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

from edgec.errors import UsageError
from edgec.protocol import Ratio
from edgec.tune.plot import check_plot, plot
from edgec.tune.report import Found, TaskReport, Tuned

FOUND = Found(
    tasks=[
        TaskReport("conv2d add", "k0", 2e-3, 1e-3, 40),
        TaskReport("matmul", "k1", 1e-3, 1e-3, 8),
    ],
    rest_s=1e-3,
    trials=40,
    failed=4,
    known=8,
    known_valid=8,
    seconds=10.0,
    curve=[(0.0, 4e-3), (4.0, 3.5e-3), (9.0, 3e-3)],
    reasons=Counter({"build: took longer than 30 s": 3, "crash: SIGSEGV": 1}),
)
TUNED = Tuned(
    *("m", "x86-64-v3", 2, Path("records"), FOUND),
    before_s=4e-3,
    after_s=3.2e-3,
    speedup=Ratio(1.25, 1.2, 1.3),
    measured=True,
)


def test_numbers_agree() -> None:
    facts = TUNED.to_dict()
    assert (facts["trials"], facts["valid"], facts["failed"], facts["known"]) == (40, 36, 4, 8)
    assert facts["trials_per_second"] == 4.0
    assert (facts["before_ms"], facts["after_ms"], facts["speedup"]) == (4.0, 3.2, 1.25)
    assert FOUND.start_s == pytest.approx(FOUND.curve[0][1])
    assert FOUND.end_s == pytest.approx(FOUND.curve[-1][1])
    assert facts["curve"][-1] == [9.0, 3.0]
    assert [task["gain"] for task in facts["tasks"]] == [2.0, 1.0]


def test_nothing_was_tried() -> None:
    found = Found([], 1e-3, 0, 0, 0, 0, 0.0, [(0.0, 1e-3)])
    assert (found.valid, found.trials_per_second, found.end_s) == (0, 0.0, 1e-3)


def test_text() -> None:
    lines = TUNED.table().splitlines()
    assert lines[2].split() == ["conv2d", "add", "40", "2.00", "ms", "1.00", "ms", "2.00x"]
    assert "40 trials in 10 s (4.0 a second): 36 valid, 4 failed; 8 known before" in lines
    assert "  3 failed: build: took longer than 30 s" in lines
    assert lines[-2] == (
        "m on x86-64-v3, 2 threads: 4.00 ms before, 3.20 ms after, 1.25x (1.20 to 1.30)"
    )


def test_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plot(TUNED, tmp_path / "curve.svg")
    assert len((tmp_path / "curve.svg").read_bytes()) > 5000
    with pytest.raises(UsageError, match="no picture"):
        check_plot(tmp_path / "curve.nonsense")
    with pytest.raises(UsageError, match="folder"):
        check_plot(tmp_path / "absent" / "curve.svg")


def test_without_matplotlib_the_pip_line_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.backend_bases", None)
    with pytest.raises(UsageError) as caught:
        check_plot(tmp_path / "curve.png")
    assert "edgec[bench]" in caught.value.hint
