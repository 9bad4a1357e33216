"""What the user sees of a tuning run while it goes on.

On a terminal a block of lines that changes: what is left of the budget, trials, the model's latency
so far, and the tasks by the time they take; elsewhere the first of these lines now and then.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgec.display import Display
from edgec.report import duration, table

TASKS_SHOWN = 12
LINES_OF_HEAD = 5
REDRAW_S = 0.1
"""The block changes no oftener than a reader can tell."""


@dataclass
class _Row:
    """One task: what its calls take of a run by the rule, and what is left by the best found."""

    label: str
    rule_ms: float
    share: float
    trials: int = 0
    ratio: float = 1.0


class View:
    """Receives the events of `edgec.tune.tune.tune` and shows them; passes on all others."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._rows: list[_Row] = []
        self._drawn = 0.0

    def event(self, event: dict[str, Any]) -> None:
        """Show one event."""
        if self._display.as_json or event["event"] not in ("tasks", "tuning"):
            self._display.event(event)
        elif event["event"] == "tasks":
            self._rows = [_Row(task["label"], task["ms"], task["share"]) for task in event["tasks"]]
            shares = sum(row.share for row in self._rows)
            self._display.event(
                {
                    "event": "note",
                    "text": f"{len(self._rows)} kernels, {100 * shares:.0f} % of the time, are "
                    "worth tuning",
                }
            )
        else:
            row = self._rows[event["task"]]
            row.trials, row.ratio = event["task_trials"], event["ratio"]
            if time.monotonic() - self._drawn > REDRAW_S:
                self._display.changing([headline(event), *self._tasks(event["task"])])
                self._drawn = time.monotonic()

    def _tasks(self, current: int) -> list[str]:
        """The costliest tasks as a table, the one that is tuned marked."""
        room = shutil.get_terminal_size().lines - LINES_OF_HEAD
        places = sorted(range(len(self._rows)), key=lambda place: -self._left(place))
        rows = [
            (
                ">" if place == current else "",
                f"{100 * row.share:.1f} %",
                str(row.trials),
                duration(1e-3 * row.rule_ms),
                duration(1e-3 * self._left(place)),
                f"{1 / row.ratio:.2f}x",
                row.label,
            )
            for place in places[: max(min(TASKS_SHOWN, room), 1)]
            for row in [self._rows[place]]
        ]
        header = ("", "share", "trials", "rule", "now", "gain", "kernel")
        return table(header, rows, text=(0, 6)).splitlines()

    def _left(self, place: int) -> float:
        return self._rows[place].rule_ms * self._rows[place].ratio


def headline(event: Mapping[str, Any]) -> str:
    """Budget, the model's latency, and trials, in one line of less than 80 columns."""
    left = f"{clock(event['seconds_left'])} left; " if event["seconds_left"] is not None else ""
    before, best = event["start_ms"], event["best_ms"]
    return (
        f"{left}{duration(1e-3 * before)} -> {duration(1e-3 * best)}, {before / best:.2f}x; "
        f"{event['valid']} valid, {event['failed']} failed, "
        f"{event['trials_per_second']:.1f} trials/s"
    )


def clock(seconds: float) -> str:
    """Minutes and seconds: "4:07"."""
    whole = max(round(seconds), 0)
    return f"{whole // 60}:{whole % 60:02}"
