"""What a store knows, kernel by kernel."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from edgec.tune import ranking
from edgec.tune.record import Record


@dataclass(frozen=True)
class Entry:
    """Of one kernel, space, target and number of threads: how many records there are, how many of
    them failures, and the one that would be used."""

    kernel: str
    space: int
    target: str
    threads: int
    label: str
    records: int
    failed: int
    best: Record | None

    @property
    def gain(self) -> float | None:
        """See `Record.gain`, of the best."""
        return self.best.gain if self.best else None

    def to_dict(self) -> dict[str, Any]:
        """For --json."""
        return dataclasses.asdict(self) | {"gain": self.gain}


def entries(records: Iterable[Record]) -> list[Entry]:
    """An entry per key, ordered by label and key."""
    found = [
        Entry(
            *key,
            label=max(record.label for record in group),
            records=len(group),
            failed=sum(not record.valid for record in group),
            best=ranking.best(group),
        )
        for key, group in ranking.by_key(records).items()
    ]
    return sorted(found, key=lambda entry: (entry.label, entry.kernel, entry.target, entry.threads))
