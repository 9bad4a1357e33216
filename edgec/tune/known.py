"""What the records say of one task, for a run on this machine to go on from.

Times of another session are only used as shares of the rule's time in that session.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence

from edgec.tune import ranking
from edgec.tune.records import Record

Decisions = Mapping[str, int | str]


def as_text(decisions: Decisions) -> str:
    """Decisions as text that is the same for the same decisions."""
    return json.dumps(dict(decisions), sort_keys=True)


class Known:
    """The records of one kernel, space, target and number of threads."""

    def __init__(self, records: Sequence[Record], machine: str) -> None:
        latest = ranking.current(records)
        self._best = ranking.best(records)
        self._rules = {r.machine: r.seconds for r in latest if not r.decisions and r.seconds}
        latest.sort(key=lambda record: record.machine == machine)
        self._of = {as_text(record.decisions): record for record in latest}

    def __len__(self) -> int:
        """How many candidates were tried."""
        return len(self._of)

    @property
    def valid(self) -> int:
        """How many of them ran."""
        return sum(record.valid for record in self._of.values())

    def incumbent(self) -> tuple[Decisions, float]:
        """The best decisions, and their time over the rule's; the rule where nothing is better."""
        if self._best is None or not self._best.decisions:
            return {}, 1.0
        ratio = self._ratio(self._best)
        return (self._best.decisions, ratio) if ratio < 1.0 else ({}, 1.0)

    def outcomes(self) -> Iterable[tuple[Decisions, float | None]]:
        """Decisions that were tried, and their time over the rule's; None where they failed."""
        for record in self._of.values():
            ratio = self._ratio(record)
            if not record.valid or math.isfinite(ratio):
                yield record.decisions, ratio if record.valid else None

    def _ratio(self, record: Record) -> float:
        rule = record.baseline or self._rules.get(record.machine)
        return record.seconds / rule if record.seconds and rule else math.inf
