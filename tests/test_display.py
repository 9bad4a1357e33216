"""What the user sees while edgec works, on a terminal and elsewhere."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from terminal import on_terminal

from edgec import display as display_module
from edgec.display import Display
from edgec.errors import ModelError


def test_one_changing_line_on_a_terminal(digits: Path, session_cache: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "edgec.cli", "compile", str(digits), "--no-cache"]
    seen = on_terminal(
        [*command, "-o", str(tmp_path / "x.edgec")], {"EDGEC_CACHE_DIR": str(session_cache)}
    )
    assert re.search(r"\r\x1b\[Kkernels \.\.\.", seen)
    assert all(len(line) < 60 for line in re.findall(r"\x1b\[K([^\r\x1b]*)\r\x1b", seen))
    left = "".join(
        line.rpartition("\x1b[K")[2] + "\n" for line in seen.replace("\r\n", "\n").split("\n")
    )
    assert "kernels ..." not in left, "the line is gone at the end"
    assert left.startswith("note: batch dimension 'N' of image set to 1\n")
    assert left.rstrip().endswith("verified: device")


def test_a_trial_that_never_ran_has_no_threads(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(display_module, "SECONDS_BETWEEN_LINES", -1.0)
    display = Display(as_json=False, verbose=False)
    display.event({"event": "trial", "engine": "iree", "file": "as given", "error": "refused"})
    display.event({"event": "trial", "engine": "iree", "file": "as given", "threads": 2})
    said = capsys.readouterr().err.splitlines()
    assert said == ["trying iree as given", "trying iree as given x2"]


def test_plain_lines_elsewhere(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short step says nothing; a long one says where it is every few seconds."""
    now = [0.0]
    monkeypatch.setattr(display_module.time, "monotonic", lambda: now[0])
    display = Display(as_json=False, verbose=False)
    for done in range(1, 61):
        now[0] += 0.25
        event = {"event": "progress", "stage": "kernels", "done": done, "total": 60, "item": "k"}
        display.event(event)
    assert capsys.readouterr().err == "kernels 21/60 k\nkernels 42/60 k\n"


def test_verbose_times_stages(capsys: pytest.CaptureFixture[str]) -> None:
    display = Display(as_json=False, verbose=True)
    display.event({"event": "stage", "stage": "load", "state": "done", "seconds": 1.5})
    assert capsys.readouterr().err == "load         1.50 s\n"


def test_json_is_strict(capsys: pytest.CaptureFixture[str]) -> None:
    display = Display(as_json=True, verbose=False)
    display.result({"a": float("inf"), "b": [float("nan"), {"c": 1.5}]}, "ignored")
    out = capsys.readouterr().out
    assert json.loads(out) == {"event": "result", "a": None, "b": [None, {"c": 1.5}]}


def test_errors_have_three_parts(capsys: pytest.CaptureFixture[str]) -> None:
    display = Display(as_json=False, verbose=False)
    display.error(ModelError("no shape", where="node 'c' (Conv)", hint="give one"))
    display.error(ModelError("no shape"))
    assert capsys.readouterr().err == (
        "edgec: model error: node 'c' (Conv): no shape\n  give one\nedgec: model error: no shape\n"
    )
