"""MetaSchedule's databases: records written as one, and one read as records.

A database is a folder of two files with a line of JSON per item: `database_workload.json`, where a
workload is [hash, IRModule as base64], and `database_tuning_record.json`, where a record is
[workload's number, [trace, seconds of runs, target, types of arguments]].

MetaSchedule knows a candidate by the trace of its schedule, so that is what is written: the steps
that the rule took under the record's decisions. What is read comes back as such a trace, too, for
a trace does not say which decisions led to it.
"""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgec import __version__
from edgec.emit.archive import write_file
from edgec.errors import ArtifactError, TuningError
from edgec.targets import Target, host
from edgec.tune import trace
from edgec.tune.ranking import by_key
from edgec.tune.record import NotARecord, Record, encode, features_key, timestamp
from edgec.tune.workloads import kernel_keys

if TYPE_CHECKING:
    from tvm import s_tir, tirx

WORKLOADS = "database_workload.json"
RECORDS = "database_tuning_record.json"

_LINE_LIMIT = 1 << 26
_BASE64 = re.compile("[A-Za-z0-9+/=]*")
_FAILED_SECONDS = 1e9
"""MetaSchedule writes 1e10 for a candidate that failed."""


@dataclass(frozen=True)
class Database:
    """What became of a database: its records, and why others were passed over, counted."""

    records: list[Record]
    skipped: Counter[str]


def read_database(folder: Path, target: Target | None, threads: int) -> Database:
    """The records of a database that was made for `target`, measured with so many threads.

    Without a target, those that say they were made for this machine's. The fastest of each kernel
    counts as confirmed.

    Raises:
        TuningError: a file cannot be read. What is in it never raises anything.
    """
    from edgec.targets.cpu.knobs import SPACE_VERSION

    skipped: Counter[str] = Counter()
    kernels = list(kernel_keys(map(_workload, _lines(folder / WORKLOADS))))
    same: dict[str, Any] = {
        "space": SPACE_VERSION,
        "target": features_key(target or host()),
        "threads": threads,
        "date": timestamp(_modified(folder / RECORDS)),
        "machine": "MetaSchedule",
        "edgec": __version__,
        "tvm": metadata.version("apache-tvm"),
    }
    found: list[Record] = []
    for line in _lines(folder / RECORDS):
        try:
            number, seconds, steps, made_for = _parsed(line)
            key, why = kernels[number] if number in range(len(kernels)) else (None, "absent")
            if key is None:
                raise NotARecord(f"workload {number}: {why}")
            if target is None and not _is_of(made_for, host()):
                raise NotARecord("made for another target")
            decisions = {trace.KNOB: steps}
            valid = seconds is not None
            record = Record(kernel=key, decisions=decisions, seconds=seconds, valid=valid, **same)
            encode(record)
        except NotARecord as error:
            skipped[str(error)] += 1
            continue
        found.append(record)
    fastest = {
        key: min((r for r in group if r.valid), key=lambda r: r.seconds or math.inf, default=None)
        for key, group in by_key(found).items()
    }
    return Database([replace(r, confirmed=r is fastest[r.key]) for r in found], skipped)


def write_database(
    records: Iterable[Record], kernels: Mapping[str, tirx.PrimFunc], target: Target, folder: Path
) -> Database:
    """Write the valid records for `target` of `kernels`, which are known by their keys.

    Raises:
        TuningError: the folder cannot be written.
    """
    import tvm
    from tvm.s_tir.meta_schedule.arg_info import ArgInfo
    from tvm.s_tir.meta_schedule.database import JSONDatabase, TuningRecord

    from edgec.lower.kernels import tvm_target
    from edgec.targets.cpu.knobs import SPACE_VERSION

    written: list[Record] = []
    skipped: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="edgec-") as temporary:
        database = JSONDatabase(work_dir=temporary)
        for record in records:
            function = kernels.get(record.kernel)
            if function is None:
                skipped["of no kernel of the model"] += 1
            elif record.target != features_key(target):
                skipped["for another target"] += 1
            elif record.space != SPACE_VERSION:
                skipped["of another version of the knobs"] += 1
            elif not record.valid:
                skipped["failed"] += 1
            elif (schedule := _schedule(function, target, record.decisions)) is None:
                skipped["of a schedule that does not fit"] += 1
            else:
                module = tvm.IRModule({"main": function})
                workload = database.commit_workload(module)
                types = ArgInfo.from_entry_func(module)
                seconds = [float(record.seconds or 0)]
                database.commit_tuning_record(
                    TuningRecord(schedule.trace, workload, seconds, tvm_target(target), types)
                )
                written.append(record)
        _move(Path(temporary), folder, len(written))
    return Database(written, skipped)


def _move(source: Path, folder: Path, records: int) -> None:
    """Put a database in its place, once it is known to be whole: TVM does not say if it is not."""
    files = {name: (source / name).read_bytes() for name in (WORKLOADS, RECORDS)}
    if files[RECORDS].count(b"\n") != records or not files[WORKLOADS].endswith((b"\n", b"")):
        raise TuningError(
            "TVM could not write its database",
            where=str(source),
            hint="temporary files need room; the environment variable TMPDIR names another folder",
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            write_file(folder / name, [data])
    except (ArtifactError, OSError) as error:
        raise TuningError(f"cannot be written: {error}", where=str(folder)) from error


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of a file; those that are too long are empty."""
    try:
        with open(path, "rb") as stream:
            while line := stream.readline(_LINE_LIMIT):
                long = len(line) == _LINE_LIMIT and not line.endswith(b"\n")
                while long and stream.readline(_LINE_LIMIT)[-1:] not in (b"\n", b""):
                    pass
                yield b"" if long else line
    except OSError as error:
        raise TuningError(
            f"cannot be read: {error.strerror}",
            where=str(path),
            hint=f"a database of MetaSchedule is a folder with {WORKLOADS} and {RECORDS}",
        ) from error


def _modified(path: Path) -> int:
    """When a file was changed last; the beginning of time where it is gone by now."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _workload(line: bytes) -> str:
    """The base64 of a line's IRModule; empty where there is none."""
    try:
        _, text = json.loads(line)
    except (ValueError, TypeError, RecursionError):
        return ""
    return text if type(text) is str and _BASE64.fullmatch(text) else ""


def _is_of(made_for: object, target: Target) -> bool:
    """Whether the description of a target that MetaSchedule kept is that of `target`."""
    if type(made_for) is not dict:
        return False
    features = made_for.get("mattr", [])
    return (
        made_for.get("mcpu") == target.mcpu
        and type(features) is list
        and sorted(map(str, features)) == sorted(target.features)
    )


def _schedule(
    function: tirx.PrimFunc, target: Target, decisions: Mapping[str, int | str]
) -> s_tir.Schedule | None:
    """The schedule that `decisions` lead to, or None where they do not fit."""
    from tvm import s_tir

    from edgec.targets.cpu import RULES
    from edgec.targets.cpu.blocks import inline_cheap_producers
    from edgec.targets.cpu.knobs import Decided

    try:
        if trace.KNOB in decisions:
            schedule = s_tir.Schedule(function)
            steps = json.loads(str(decisions[trace.KNOB]))
            s_tir.schedule.Trace.apply_json_to_schedule(steps, schedule)
            return schedule
        for rule in RULES:
            schedule = s_tir.Schedule(function)
            inline_cheap_producers(schedule)
            if rule(schedule, target, Decided(decisions)):
                return schedule
    except Exception:  # TVM raises bare Exception subclasses of many kinds
        return None
    return None


def _parsed(line: bytes) -> tuple[int, float | None, str, object]:
    """A record's workload, mean seconds (None where it failed), trace and target."""
    try:
        number, (steps, seconds, made_for, _) = json.loads(line)
        times = [float(each) for each in seconds or ()]
    except (ValueError, TypeError, RecursionError) as error:
        raise NotARecord("no record of MetaSchedule") from error
    if type(number) is not int:
        raise NotARecord("no record of MetaSchedule")
    mean = math.fsum(times) / len(times) if times else math.inf
    text = json.dumps(steps, separators=(",", ":"))
    return number, mean if mean < _FAILED_SECONDS else None, text, made_for
