"""The table of `make bench`, from reports as `edgec bench --json` makes them."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))

import speed
from speedtable import Row, broken, geometric_mean, markdown


def engine(name: str, ms: float, base: float = 1.0) -> dict[str, Any]:
    ratio = {"value": ms / base, "p10": 0.8 * ms / base, "p90": 1.25 * ms / base}
    return {"engine": name, "median_ms": ms, "threads": 2, "file": "opset 17", "ratio": ratio}


def row(name: str, *engines: dict[str, Any], aa: float = 1.0, **failed: str) -> Row:
    report = {"engines": list(engines), "aa": {"value": aa}, "failed": failed}
    return Row.of(name, report, "conv2d 80 % (at 70 %)")


def test_the_ratio_is_of_edgec_over_the_fastest_peer() -> None:
    found = row("m", engine("edgec", 1), engine("openvino", 4), engine("onnxruntime", 2))
    assert found.best == "onnxruntime"
    assert found.ratio == (0.5, pytest.approx(0.4), pytest.approx(0.625))


@pytest.mark.parametrize(("aa", "believed"), [(0.94, False), (0.95, True), (1.06, False)])
def test_a_row_is_believed_by_its_aa(aa: float, believed: bool) -> None:
    found = row("m", engine("edgec", 1), engine("openvino", 4), aa=aa)
    assert found.believed is believed
    assert ("not believed" in markdown([found], ["openvino"])) is not believed


def test_what_was_kept_is_what_was_measured() -> None:
    found = row("m", engine("edgec", 1), engine("openvino", 4), iree="crashes")
    assert Row.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_the_table() -> None:
    """Geometric means are over the models that a peer runs."""
    rows = [
        row("a", engine("edgec", 1), engine("openvino", 2), engine("onnxruntime", 4)),
        row("b", engine("edgec", 1), engine("openvino", 8), onnxruntime="no such operator"),
    ]
    lines = markdown(rows, ["onnxruntime", "openvino", "iree"]).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert [len(line) for line in cells] == [8] * 5
    assert cells[0][:5] == ["model", "edgec", "ONNX Runtime", "OpenVINO", "IREE"]
    assert cells[2][1:6] == [
        "1.00 ms (2)", "4.00 ms (2, opset 17)", "2.00 ms (2, opset 17)", "",
        "**0.50** (0.40 .. 0.62)",
    ]  # fmt: skip
    assert cells[3][2] == "fails"
    assert cells[4][2:6] == ["edgec / it: 0.25", "edgec / it: 0.25", "", "**0.25**"]


@pytest.mark.parametrize(("one", "two", "used"), [(1.0, 0.95, 1), (1.0, 0.6, 2), (1.0, 1.4, 1)])
def test_a_thread_without_work_does_not_count(one: float, two: float, used: int) -> None:
    tried = [
        {"engine": "edgec", "file": "optimised", "error": "lacking"},
        {"engine": "edgec", "file": "artifact", "threads": 1, "median_s": one},
        {"engine": "edgec", "file": "artifact", "threads": 2, "median_s": two},
        {"engine": "onnxruntime", "file": "as given", "threads": 3, "median_s": 0.1},
    ]
    assert speed.threads_used({"tried": tried}) == used


def test_bounds() -> None:
    rows = [
        row(f"at {ms}", engine("edgec", ms), engine("openvino", 1, base=ms)) for ms in (0.5, 0.72)
    ]
    assert broken(rows, mean=0.61, worst=0.73) == []
    assert broken(rows, mean=0.59, worst=0.71) == [
        "at 0.72: 0.72, above 0.71",
        "geometric mean 0.60, above 0.59",
    ]
    doubtful = row("m", engine("edgec", 1), engine("openvino", 4), aa=1.06)
    assert broken([doubtful], mean=1, worst=1) == ["m: A/A 1.06"]


def test_geometric_mean() -> None:
    assert geometric_mean([0.5, 2.0, 8.0]) == pytest.approx(2.0)


def test_an_interrupted_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits: Path, session_cache: Path
) -> None:
    """What was measured is found again, unless it was asked for in another way."""
    monkeypatch.setattr(speed, "KEPT", tmp_path)
    monkeypatch.setattr(speed, "ATTEMPTS", 1)
    monkeypatch.setenv("EDGEC_CACHE_DIR", str(session_cache))
    run = speed.Run(level=2, peers=("onnxruntime",), calls=1, fresh=False, native=False)
    measured = run.row("digits_cnn", digits)
    assert measured.best == "onnxruntime"
    assert "conv2d" in measured.parts

    def stop(*_: object, **__: object) -> None:
        raise InterruptedError

    monkeypatch.setattr(speed, "bench", stop)
    assert run.row("digits_cnn", digits) == measured
    for other in (replace(run, calls=2), replace(run, fresh=True), replace(run, native=True)):
        with pytest.raises(InterruptedError):
            other.row("digits_cnn", digits)
