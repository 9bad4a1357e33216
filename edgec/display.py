"""What the user sees while edgec works: diagnostics on stderr, results on stdout.

On a terminal a long step shows one line that changes; elsewhere a plain line per step. With
`--json` stdout carries one object per line, the last with "event": "result", or "error".
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from typing import Any

from edgec.errors import EXIT_INTERRUPTED, EdgecError


class Display:
    """Where events, tables and errors go."""

    def __init__(self, *, as_json: bool, verbose: bool) -> None:
        self.as_json = as_json
        self.verbose = verbose
        self._live = sys.stderr.isatty() and not as_json
        self._shown = False

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
            self._status(f"{event['stage']} {event['done']}/{event['total']} {event['item']}")
        elif kind == "stage" and event["state"] == "start":
            self._status(f"{event['stage']} ...")
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
        fault = EdgecError(
            f"{type(error).__name__}: {error}",
            hint="this is a fault of edgec; -v shows the traceback to report",
        )
        self.close()
        if self.as_json:
            self._object({"event": "error", "kind": fault.kind, "what": fault.what})
        print(f"edgec: internal error: {fault.what}\n  {fault.hint}", file=sys.stderr)

    def interrupted(self) -> None:
        """Say that the user stopped the command."""
        self.close()
        if self.as_json:
            self._object({"event": "error", "kind": "interrupted", "exit_code": EXIT_INTERRUPTED})
        print("edgec: interrupted", file=sys.stderr)

    def close(self) -> None:
        """Take the changing line away."""
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._shown = False

    def _object(self, event: Mapping[str, Any]) -> None:
        print(json.dumps(event), flush=True)

    def _line(self, text: str) -> None:
        self.close()
        print(text, file=sys.stderr, flush=True)

    def _status(self, text: str) -> None:
        if self._live:
            width = shutil.get_terminal_size().columns
            print(f"\r\x1b[K{text[: width - 1]}", end="", file=sys.stderr, flush=True)
            self._shown = True
