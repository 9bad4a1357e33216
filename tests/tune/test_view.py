"""What is seen of a tuning run, on a terminal and elsewhere."""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest
from terminal import on_terminal

from edgec import display as display_module
from edgec.display import Display
from edgec.tune.view import View, clock, headline

TASKS: dict[str, Any] = {
    "event": "tasks",
    "tasks": [
        {"label": "conv2d add", "kernel": "k0", "ms": 2.0, "share": 0.5},
        {"label": "matmul", "kernel": "k1", "ms": 1.0, "share": 0.25},
    ],
    "rest_ms": 1.0,
}
TRIAL: dict[str, Any] = {
    "event": "tuning",
    "task": 1,
    "task_trials": 9,
    "us": 100.0,
    "error": "",
    "ratio": 0.5,
    "trials": 12,
    "valid": 11,
    "failed": 1,
    "trials_per_second": 3.21,
    "seconds_left": 247.2,
    "start_ms": 4.0,
    "best_ms": 3.5,
}


def shown(*events: Any, last: str = "", lines: int = 40) -> list[str]:
    """What a terminal of so many lines shows after `events`, the statement `last`, and "end"."""
    script = f"""
import time
from edgec.display import Display
from edgec.tune.view import View
display = Display(as_json=False, verbose=False)
view = View(display)
for event in {events}:
    time.sleep(0.11)
    view.event(event)
{last}
print("end", flush=True)
"""
    written = on_terminal([sys.executable, "-c", script], {"LINES": str(lines)})
    return [line.rstrip() for line in screen(written) if line]


def screen(written: str) -> list[str]:
    """The lines that a terminal shows after `written`."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[\d*[A-Z]|\r|\n|[^\x1b\r\n]+", written):
        if part == "\r":
            column = 0
        elif part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part == "\x1b[K":
            lines[row] = lines[row][:column]
        elif part == "\x1b[J":
            lines[row:] = [lines[row][:column]]
        elif part.startswith("\x1b") and part.endswith("F"):
            row, column = row - int(part[2:-1]), 0
        else:
            assert not part.startswith("\x1b"), part
            lines[row] = lines[row][:column] + part + lines[row][column + len(part) :]
            column += len(part)
    return lines


def test_a_block_of_lines_that_changes_in_its_place() -> None:
    later = TRIAL | {"task": 0, "task_trials": 3, "ratio": 1.0}
    note, head, names, rule, first, second = shown(TASKS, TRIAL, TRIAL, later)
    assert note == "note: 2 kernels, 75 % of the time, are worth tuning"
    assert head == headline(TRIAL)[:59].rstrip(), "cut where the line ends"
    assert names.split() == ["share", "trials", "rule", "now", "gain", "kernel"]
    assert set(rule) == {"-"}
    assert first.split()[:3] == [">", "50.0", "%"]
    assert first.endswith("  conv2d add")
    assert second.removesuffix("end").split() == [
        *("25.0", "%", "9", "1.00", "ms", "500", "us", "2.00x", "matmul")
    ]


def test_no_line_is_broken() -> None:
    wide = TASKS | {"tasks": [{"label": "x" * 99, "kernel": "k", "ms": 1.0, "share": 1.0}] * 2}
    lines = shown(wide, TRIAL, last="print(flush=True)")
    assert all(len(line) < 60 for line in lines)
    assert len(lines) == 7


def test_the_block_is_gone_at_the_end() -> None:
    lines = shown(TASKS, TRIAL, TRIAL, last="display.close()")
    assert lines == ["note: 2 kernels, 75 % of the time, are worth tuning", "end"]


def test_the_terminals_height_is_not_exceeded() -> None:
    many = TASKS | {"tasks": [*TASKS["tasks"]] * 20}
    lines = shown(many, TRIAL, lines=9)
    assert sum("conv2d" in line or "matmul" in line for line in lines) == 4


def test_plain_lines_elsewhere(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(display_module, "SECONDS_BETWEEN_LINES", -1.0)
    view = View(Display(as_json=False, verbose=False))
    view.event(TASKS)
    view.event(TRIAL)
    view.event({"event": "note", "text": "board lost"})
    assert capsys.readouterr().err.splitlines() == [
        "note: 2 kernels, 75 % of the time, are worth tuning",
        headline(TRIAL),
        "note: board lost",
    ]


def test_json_has_every_event(capsys: pytest.CaptureFixture[str]) -> None:
    view = View(Display(as_json=True, verbose=False))
    for event in (TASKS, TRIAL, TRIAL):
        view.event(event)
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_headline_without_a_time() -> None:
    text = headline(TRIAL | {"seconds_left": None})
    assert text == "4.00 ms -> 3.50 ms, 1.14x; 11 valid, 1 failed, 3.2 trials/s"


def test_the_headline_of_a_long_run_has_room() -> None:
    numbers = {"trials": 12345, "valid": 12300, "seconds_left": 599.0, "start_ms": 24.3}
    assert len(headline(TRIAL | numbers)) < 80


def test_clock() -> None:
    assert [clock(s) for s in (-1.0, 0.4, 59.6, 247.2, 3600.0)] == [
        *("0:00", "0:00", "1:00", "4:07", "60:00")
    ]
