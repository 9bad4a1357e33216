"""The command line, as tests see it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def objects(self) -> list[dict[str, Any]]:
        """What it printed with --json."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def result(self) -> dict[str, Any]:
        """The last object, which must be the result of a command that succeeded."""
        assert self.code == 0, self.err
        assert self.objects[-1]["event"] == "result"
        return self.objects[-1]


Edgec = Callable[..., Done]
"""Runs `edgec` with these words."""
