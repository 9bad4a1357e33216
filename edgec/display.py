"""What the user sees while edgec works: diagnostics on stderr, results on stdout.

On a terminal a long step shows one line that changes; elsewhere it adds a plain line now and then.
With `--json` stdout carries one object per line, the last with "event": "result", or "error".
"""

from __future__ import annotations

import json
import math
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from edgec.errors import EXIT_INTERRUPTED, EdgecError

SECONDS_BETWEEN_LINES = 5.0
"""How often a long step says where it is when that cannot be one changing line."""


class Display:
    """Where events, tables and errors go."""

    def __init__(self, *, as_json: bool, verbose: bool) -> None:
        self.as_json = as_json
        self.verbose = verbose
        self._live = sys.stderr.isatty() and not as_json
        self._shown = 0
        self._said = time.monotonic()

    def event(self, event: Mapping[str, Any]) -> None:
        """Show something that happened; see `edgec.compiler.OnEvent`."""
        if self.as_json:
            self._object(event)
            return
        kind = event["event"]
        if kind == "note":
            self._line(f"note: {event['text']}")
        elif kind == "warning":
            self._line(f"warning: {event['text']}")
        elif kind == "text":
            self._line(event["text"])
        elif kind == "progress":
            self.changing([f"{event['stage']} {event['done']}/{event['total']} {event['item']}"])
        elif kind == "trial":
            threads = f" x{event['threads']}" if "threads" in event else ""
            self.changing([f"trying {event['engine']} {event['file']}{threads}"])
        elif kind == "round":
            self.changing([f"round {event['done']}/{event['rounds']}"])
        elif kind == "stage" and event["state"] == "start":
            self.changing([f"{event['stage']} ..."])
        elif kind == "stage" and self.verbose:
            self._line(f"{event['stage']:<10} {event['seconds']:6.2f} s")

    def result(self, result: Mapping[str, Any], text: str) -> None:
        """Show what the command was asked for: `text`, or `result` with --json."""
        self.close()
        if self.as_json:
            self._object({"event": "result", **result})
        elif text:
            print(text)

    def error(self, error: EdgecError) -> None:
        """Show an error."""
        self.close()
        if self.as_json:
            self._object(
                {
                    "event": "error",
                    "kind": error.kind,
                    "what": error.what,
                    "where": error.where,
                    "hint": error.hint,
                    "exit_code": error.exit_code,
                }
            )
        place = f"{error.where}: " if error.where else ""
        print(f"edgec: {error.kind} error: {place}{error.what}", file=sys.stderr)
        if error.hint:
            print(f"  {error.hint}", file=sys.stderr)

    def internal(self, error: Exception) -> None:
        """Show a fault of edgec's own."""
        self.error(
            EdgecError(
                f"{type(error).__name__}: {error}",
                hint="this is a fault of edgec; -v shows the traceback to report",
            )
        )

    def interrupted(self) -> None:
        """Say that the user stopped the command."""
        self.close()
        if self.as_json:
            self._object(
                {
                    "event": "error",
                    "kind": "interrupted",
                    "what": "interrupted",
                    "where": "",
                    "hint": "",
                    "exit_code": EXIT_INTERRUPTED,
                }
            )
        print("edgec: interrupted", file=sys.stderr)

    def changing(self, lines: Sequence[str]) -> None:
        """Show lines in the place of those that this showed before; where that cannot be done, the
        first of them now and then."""
        if self._live:
            width = shutil.get_terminal_size().columns
            text = "\n".join(line[: width - 1] for line in lines)
            print(f"{self._erase()}\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
            self._shown = len(lines)
        elif time.monotonic() - self._said > SECONDS_BETWEEN_LINES:
            self._line(lines[0])
            self._said = time.monotonic()

    def close(self) -> None:
        """Take the changing lines away."""
        if self._shown:
            print(f"{self._erase()}\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._shown = 0

    def _erase(self) -> str:
        """What moves a terminal back to the first of the changing lines, and clears the others."""
        return f"\x1b[{self._shown - 1}F\x1b[J" if self._shown > 1 else ""

    def _object(self, event: Mapping[str, Any]) -> None:
        print(json.dumps(_finite(event)), flush=True)

    def _line(self, text: str) -> None:
        self.close()
        print(text, file=sys.stderr, flush=True)


def _finite(value: Any) -> Any:
    """`value` with None for the numbers that JSON cannot write."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
