"""Where compiling finds what tuning found: first in the user's store, then in what ships with edgec
for the processor at hand."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgec.peaks import processor_name
from edgec.tune import ranking
from edgec.tune.record import Record, encode
from edgec.tune.records import Store

BUNDLED = Path(__file__).with_name("bundled")
"""Records that ship with edgec, a file for each processor that they were measured on."""


def shipped(processor: str) -> Path:
    """The file of what was measured on a processor that the system calls so, if there is one.

    Processors of the same instructions differ in what is fast on them: a target does not say which
    of them it is.
    """
    return BUNDLED / f"{re.sub('[^a-z0-9]+', '-', processor.lower()).strip('-')}.jsonl"


@dataclass(frozen=True)
class Choice:
    """The record that a kernel is compiled by, and whether it is from "records" or "bundled"."""

    record: Record
    origin: str


@dataclass(frozen=True)
class Lookup:
    """Stores by the origin of their records, those first that come first; and the number of threads
    that a module is to be run with, None for the largest number there are records of."""

    stores: Sequence[tuple[str, Store]] = ()
    threads: int | None = None

    @staticmethod
    def of(records: Path | None, bundled: bool = True, threads: int | None = None) -> Lookup:
        """The user's store, if there is one, and what ships for this machine's processor.

        Raises:
            TuningError: there is nothing at `records`.
        """
        stores: list[tuple[str, Store]] = []
        if records is not None:
            mine = Store(records)
            mine.require()
            stores.append(("records", mine))
        if bundled and (file := shipped(processor_name())).is_file():
            stores.append(("bundled", Store(file)))
        return Lookup(stores, threads)

    def find(self, kernels: Collection[str], space: int, target: str) -> dict[str, Choice]:
        """What to compile by, of those of `kernels` for which something is faster than the rule's
        own choice.

        Depends on the records of these kernels alone, not on their order.

        Raises:
            TuningError: a store cannot be read.
        """
        left = set(kernels)
        found: dict[str, Choice] = {}
        for origin, store in self.stores:
            known = store.read(left).records
            fitting = [each for each in known if (each.space, each.target) == (space, target)]
            for kernel, record in self._best(fitting).items():
                left.discard(kernel)
                if record.decisions:
                    found[kernel] = Choice(record, origin)
        return found

    def _best(self, records: Sequence[Record]) -> dict[str, Record]:
        """The best of each kernel; of several numbers of threads, that of the largest."""
        found: dict[str, Record] = {}
        for key, group in sorted(ranking.by_key(records).items()):
            if self.threads is None or key[-1] == self.threads:
                best = ranking.best(group)
                if best is not None:
                    found[best.kernel] = best
        return found


@dataclass
class Chooser:
    """What one artifact's kernels are compiled by, looked up once for each: by space and target,
    then by kernel; None is the rule's own choice."""

    lookup: Lookup
    chosen: dict[tuple[int, str], dict[str, Choice | None]] = field(default_factory=dict)

    def choose(self, kernels: Collection[str], space: int, target: str) -> dict[str, Choice]:
        """As `Lookup.find`; the same again for a kernel that was asked for before."""
        known = self.chosen.setdefault((space, target), {})
        new = set(kernels) - known.keys()
        known |= dict.fromkeys(new) | self.lookup.find(new, space, target)
        return {kernel: choice for kernel in kernels if (choice := known[kernel]) is not None}

    def content(self) -> list[object]:
        """All that the artifact takes from records; empty where every choice is the rule's own."""
        return [
            (*place, kernel, choice.origin, encode(choice.record))
            for place, known in sorted(self.chosen.items())
            for kernel, choice in sorted(known.items())
            if choice is not None
        ]
