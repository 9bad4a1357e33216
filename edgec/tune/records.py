"""The store of tuning records: one folder, written by any number of processes at once.

`edgec.tune.record` says what a record is, `edgec.tune.journal` how it is kept, and
`edgec.tune.ranking` which of them is used.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edgec.errors import TuningError
from edgec.tune import ranking
from edgec.tune.journal import PAYLOAD_AT, Journal, is_torn, payload_of
from edgec.tune.record import NotARecord, Record, decode, encode, features_key, timestamp

__all__ = ["Merged", "Problem", "Pruned", "Reading", "Record", "Store", "features_key", "timestamp"]

FILE = "records.jsonl"
"""The file of a store, in its folder."""

_PROBLEMS = 100
_BATCH = 4096
_KERNEL = b'{"kernel":"'
_KERNEL_AT = slice(PAYLOAD_AT, PAYLOAD_AT + len(_KERNEL))


@dataclass(frozen=True)
class Problem:
    """A line that is no record, and why."""

    line: int
    what: str


@dataclass(frozen=True)
class Reading:
    """What a store holds: records, in the order they were written; how many lines are damaged or
    cut (`torn`) or not records at all (`foreign`); the first of these, for people."""

    records: list[Record]
    torn: int
    foreign: int
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class Merged:
    """Records that were added, those that were there before, and lines that were no records."""

    added: int
    known: int
    torn: int
    foreign: int


@dataclass(frozen=True)
class Pruned:
    """Records that were kept and dropped, and lines that were no records."""

    kept: int
    dropped: int
    torn: int
    foreign: int


class Store:
    """The records in the folder `path`, or in a single file of them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path if os.path.isfile(path) else path / FILE
        self._journal = Journal(self.file)

    def require(self) -> None:
        """Raises TuningError where there is no such file, or none in the folder."""
        if not os.path.exists(self.file):
            raise TuningError(
                "there are no records", where=str(self.path), hint="`edgec tune` makes them"
            )

    def append(self, *records: Record) -> None:
        """Keep records; they are durable when this returns, and none is kept when it fails.

        Raises:
            TuningError: they cannot be kept, or one holds what a record may not.
        """
        try:
            payloads = [encode(record) for record in records]
        except NotARecord as error:
            raise TuningError(f"not a record: {error}", where=str(self.path)) from error
        self._journal.append(payloads)

    def read(self, kernels: Collection[str] | None = None) -> Reading:
        """Everything, or what is known of `kernels`: then lines about others are not looked into.

        Raises:
            TuningError: the file cannot be read. What is in it never raises anything.
        """
        scan = _Scan(self._journal, kernels)
        return Reading([record for record, _ in scan], scan.torn, scan.foreign, scan.problems)

    def best(self, kernel: str, space: int, target: str, threads: int) -> Record | None:
        """The record to compile `kernel` by, as `edgec.tune.ranking.best` chooses it."""
        wanted = (kernel, space, target, threads)
        return ranking.best(r for r in self.read([kernel]).records if r.key == wanted)

    def merge(self, *others: Store) -> Merged:
        """Add what `others` hold and this store does not; doing so again adds nothing.

        Raises:
            TuningError: one cannot be read, or this one not written.
        """
        known = {_identity(payload) for _, payload in _Scan(self._journal)}
        before, seen, torn, foreign = len(known), 0, 0, 0
        for other in others:
            scan = _Scan(other._journal)
            batch: list[bytes] = []
            for _, payload in scan:
                seen += 1
                if (identity := _identity(payload)) not in known:
                    known.add(identity)
                    batch.append(payload)
                if len(batch) == _BATCH:
                    self._journal.append(batch)
                    batch = []
            if batch:
                self._journal.append(batch)
            torn, foreign = torn + scan.torn, foreign + scan.foreign
        added = len(known) - before
        return Merged(added, seen - added, torn, foreign)

    def add(self, records: Iterable[Record]) -> Merged:
        """Keep those of `records` that are not there yet. Raises TuningError as `append` does."""
        known = {_identity(payload) for _, payload in _Scan(self._journal)}
        new: dict[bytes, Record] = {}
        seen = 0
        for record in records:
            seen += 1
            if (identity := _identity(encode(record))) not in known:
                new[identity] = record
        if new:
            self.append(*new.values())
        return Merged(len(new), seen - len(new), 0, 0)

    def prune(self) -> Pruned:
        """Leave of each key the best, and each machine's time of the rule's own choice.

        Raises:
            TuningError: the file cannot be rewritten; it is as it was.
        """
        with self._journal.locked():
            scan = _Scan(self._journal)
            pairs = list(scan)
            kept = {id(record) for record in ranking.kept(record for record, _ in pairs)}
            self._journal.rewrite(payload for record, payload in pairs if id(record) in kept)
        return Pruned(len(kept), len(pairs) - len(kept), scan.torn, scan.foreign)

    def export(self, path: Path) -> int:
        """Write to the file `path` the best of each key that is not the rule's own choice, and say
        how many those are.

        Raises:
            TuningError: this store cannot be read, or `path` not written.
        """
        records = ranking.winners(record for record, _ in _Scan(self._journal))
        Journal(path).rewrite(encode(record) for record in records)
        return len(records)

    def check(self) -> Reading:
        """`read`, while no other process is writing; where none can, at once."""
        if not os.access(self.path, os.W_OK):
            return self.read()
        with self._journal.locked():
            return self.read()


class _Scan:
    """Records of a journal with their bytes, one at a time; counts the lines that are none."""

    def __init__(self, journal: Journal, kernels: Collection[str] | None = None) -> None:
        self.torn = 0
        self.foreign = 0
        self.problems: tuple[Problem, ...] = ()
        self._journal = journal
        self._kernels = None if kernels is None else frozenset(kernels)
        self._encoded = {kernel.encode() for kernel in kernels or ()}

    def __iter__(self) -> Iterator[tuple[Record, bytes]]:
        skip = None if self._kernels is None else self._is_of_another
        for number, line in self._journal.lines(skip):
            payload = payload_of(line)
            if payload is None:
                torn = is_torn(line)
                self.torn += torn
                self.foreign += not torn
                self._note(number, "torn or damaged" if torn else "no line of a store")
                continue
            try:
                record = decode(payload)
            except NotARecord as error:
                self.foreign += 1
                self._note(number, f"no record: {error}")
                continue
            if self._kernels is None or record.kernel in self._kernels:
                yield record, payload

    def _is_of_another(self, line: bytes) -> bool:
        """Whether a line, as this edgec writes it, is of a kernel that nobody asked for."""
        key = line[_KERNEL_AT.stop : line.find(b'"', _KERNEL_AT.stop)]
        return line[_KERNEL_AT] == _KERNEL and key not in self._encoded

    def _note(self, number: int, what: str) -> None:
        if len(self.problems) < _PROBLEMS:
            self.problems += (Problem(number, what),)


def _identity(payload: bytes) -> bytes:
    """What tells records apart that are not the same: 16 bytes."""
    return hashlib.sha256(payload).digest()[:16]
