"""One measurement of one candidate, and how it is written.

A record is foreign data: it may come from another machine, another edgec or an enemy. What is read
is checked field by field, of bounded size, and holds numbers and short texts only.
"""

from __future__ import annotations

import json
import math
import operator
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, NoReturn

from edgec.tune import trace

if TYPE_CHECKING:
    from edgec.targets import Target

TEXT_LIMIT = 512
"""Characters of a field that is text."""

KNOB_LIMIT = 256
"""Decisions of one record, and characters of a knob's name."""

VALUE_LIMIT = 1 << 17
"""Characters of a decision: the trace of a large MetaSchedule candidate is text as well."""

RECORD_LIMIT = 250_000
"""Bytes of a record's JSON."""

_INTEGERS = range(-(2**63), 2**63)
_KERNEL = re.compile(r"[!#-\[\]-~ ]+")
_DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z")


class NotARecord(ValueError):
    """What was read is not a record; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A candidate of a kernel on a target, measured or failed.

    Attributes:
        kernel: structure of the unscheduled kernel (`edgec.lower.build.kernel_key`).
        space: version of the meaning of knobs (`edgec.targets.cpu.knobs.SPACE_VERSION`).
        target: what of the target matters to a kernel, as `features_key` writes it.
        threads: that ran the kernel.
        decisions: values of knobs; empty for the rule's own choice.
        seconds: of one run; None where the candidate failed.
        valid: whether it built and ran, and did not compute wrong values.
        confirmed: whether it was faster than the best before it, measured in alternation, and
            computed the right values: only then is it compiled by.
        spread: of the measurement, as a share of `seconds`.
        baseline: seconds of the rule's own choice in the same session, if it was measured.
        machine: that measured, for people and to tell machines apart.
        date: when, in UTC, as `timestamp` writes it.
        edgec, tvm: versions, not matched when a record is looked up.
        seed: of the search.
        label: operator and shapes, for people.
    """

    kernel: str
    space: int
    target: str
    threads: int
    decisions: Mapping[str, int | str] = field(default_factory=dict)
    seconds: float | None
    valid: bool
    confirmed: bool = False
    spread: float = 0.0
    baseline: float | None = None
    machine: str = ""
    date: str
    edgec: str = ""
    tvm: str = ""
    seed: int = 0
    label: str = ""

    @property
    def key(self) -> tuple[str, int, str, int]:
        """What a record is looked up by: kernel, space, target, threads."""
        return self.kernel, self.space, self.target, self.threads

    @property
    def gain(self) -> float | None:
        """How many times as fast as the rule's own choice of the same session; None if unknown."""
        return self.baseline / self.seconds if self.baseline and self.seconds else None


def timestamp(nanoseconds: int | None = None) -> str:
    """A time, by default now, as records write it: 2026-01-31T12:00:00.000000Z.

    `nanoseconds` count from the beginning of 1970.
    """
    nanoseconds = time.time_ns() if nanoseconds is None else nanoseconds
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(nanoseconds // 10**9))
    return f"{seconds}.{nanoseconds // 1000 % 10**6:06}Z"


def features_key(target: Target) -> str:
    """What of `target` a kernel's schedule and its speed depend on, as text.

    Names, the C library and the emulator are left out: targets that differ in nothing else share
    their records.
    """
    return " ".join(
        [
            target.arch,
            target.mcpu,
            *sorted(target.features),
            f"vectors={target.vector_registers}x{target.vector_bits}",
            f"fma={target.fma_units}",
            f"l1={target.l1_bytes}",
            f"l2={target.l2_bytes}",
            f"block={target.channel_block}",
        ]
    )


def encode(record: Record) -> bytes:
    """The record as JSON without line breaks; numbers may be numpy's.

    Raises:
        NotARecord: a field holds what `decode` would refuse.
    """
    facts = {item.name: getattr(record, item.name) for item in fields(Record)}
    try:
        facts |= {name: int(operator.index(facts[name])) for name in _INTEGER_FIELDS}
        facts |= {name: float(facts[name]) for name in _FLOAT_FIELDS if facts[name] is not None}
        facts["decisions"] = {
            knob: value if isinstance(value, str) else int(operator.index(value))
            for knob, value in record.decisions.items()
        }
    except TypeError as error:
        raise NotARecord(str(error)) from error
    facts |= {name: _printable(facts[name]) for name in ("machine", "label")}
    facts["valid"] = bool(record.valid)
    _checked(facts)
    data = json.dumps(facts, separators=(",", ":")).encode("ascii")
    if len(data) > RECORD_LIMIT:
        raise NotARecord(f"{len(data)} bytes, more than {RECORD_LIMIT}")
    return data


def decode(data: bytes) -> Record:
    """The record in `data`, checked. Fields that are not known are passed over.

    Raises:
        NotARecord: it is none, or holds more or other than a record may.
    """
    try:
        facts = _DECODER.decode(data.decode())
    except (ValueError, RecursionError) as error:
        raise NotARecord(f"no JSON: {type(error).__name__}") from error
    if not isinstance(facts, dict):
        raise NotARecord("no JSON object")
    return _checked(facts)


def _checked(facts: Mapping[str, Any]) -> Record:
    """A record of the values in `facts`, checked; raises NotARecord."""
    try:
        record = Record(**{name: facts[name] for name in _NAMES})
    except KeyError as error:
        raise NotARecord(f"{error.args[0]}: missing") from error
    for name in _TEXTS:
        text = facts[name]
        if type(text) is not str or len(text) > TEXT_LIMIT or not text.isprintable():
            raise NotARecord(f"{name}: no short text")
    for name in _INTEGER_FIELDS:
        if type(facts[name]) is not int or facts[name] not in _INTEGERS:
            raise NotARecord(f"{name}: no integer")
    for name in ("seconds", "baseline"):
        if facts[name] is not None and not (_is_number(facts[name]) and facts[name] > 0):
            raise NotARecord(f"{name}: no positive number")
    if not _is_number(record.spread) or record.spread < 0:
        raise NotARecord("spread: no number from 0 on")
    if type(record.valid) is not bool or (record.valid and record.seconds is None):
        raise NotARecord("valid: no truth value, or no seconds with it")
    if type(record.confirmed) is not bool:
        raise NotARecord("confirmed: no truth value")
    if not _KERNEL.fullmatch(record.kernel):
        raise NotARecord("kernel: no key of one")
    if record.space < 0 or record.threads < 1:
        raise NotARecord("space or threads: none there can be")
    if not _DATE.fullmatch(record.date):
        raise NotARecord("date: not in the form 2026-01-31T12:00:00Z")
    _check_decisions(record.decisions)
    return record


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse)
_NAMES = tuple(item.name for item in fields(Record))
_INTEGER_FIELDS = ("space", "threads", "seed")
_FLOAT_FIELDS = ("seconds", "baseline", "spread")
_TEXTS = ("kernel", "target", "machine", "date", "edgec", "tvm", "label")


def _check_decisions(decisions: object) -> None:
    if type(decisions) is not dict or len(decisions) > KNOB_LIMIT:
        raise NotARecord("decisions: not an object of few knobs")
    for knob, value in decisions.items():
        if len(knob) > KNOB_LIMIT or not knob.isprintable():
            raise NotARecord("decisions: a knob's name is too long or cannot be printed")
        if type(value) is str:
            if len(value) > VALUE_LIMIT or not value.isprintable():
                raise NotARecord(f"decisions: the text of '{knob}' is too long or not printable")
        elif type(value) is not int or value not in _INTEGERS:
            raise NotARecord(f"decisions: '{knob}' is neither an integer nor a text")
    if trace.KNOB in decisions and (problem := trace.problem_of(str(decisions[trace.KNOB]))):
        raise NotARecord(f"decisions: {problem}")


def _is_number(value: object) -> bool:
    return (type(value) is float and math.isfinite(value)) or (
        type(value) is int and value in _INTEGERS
    )


def _printable(text: str) -> str:
    """A text for people, cut and cleaned: no measurement is to be lost for its label."""
    return "".join(each if each.isprintable() else "?" for each in text[:TEXT_LIMIT])
