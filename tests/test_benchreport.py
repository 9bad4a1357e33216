"""What a measurement shows: tables, JSON and plots."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from edgec.benchreport import BenchReport, Row
from edgec.errors import UsageError
from edgec.protocol import Times


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
