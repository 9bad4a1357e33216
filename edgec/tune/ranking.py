"""Which of many measurements of a kernel is to be believed and used.

A later measurement of the same decisions on the same machine replaces an earlier one: that is how a
lucky time is corrected and a candidate found wrong is taken back. Times of different machines are
not compared, only their gains over the rule's own choice; decisions measured on several machines
count with the geometric mean, and not at all where they failed on one of them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping

from edgec.tune.record import Record


def current(records: Iterable[Record]) -> list[Record]:
    """The latest record of each key, decisions and machine; of equal dates, the slower one."""
    latest: dict[tuple[object, ...], Record] = {}
    for record in records:
        place = _place(record)
        if place not in latest or _is_later(record, latest[place]):
            latest[place] = record
    return list(latest.values())


def best(records: Iterable[Record]) -> Record | None:
    """The record to use among those of one key; None where nothing valid is known to be as fast as
    the rule's own choice.

    Only what was confirmed is used. It does not depend on their order. Of decisions measured on
    several machines it is the record with the largest gain.
    """
    latest = current(filter(_counts, records))
    rules = {r.machine: r.seconds for r in latest if not r.decisions}
    failed = {_text(r.decisions) for r in latest if not r.valid}
    found: dict[str, list[tuple[float, Record]]] = {}
    for record in latest:
        text = _text(record.decisions)
        if text in failed or record.seconds is None:
            continue
        rule = record.baseline or rules.get(record.machine)
        ratio = 1.0 if not record.decisions else record.seconds / rule if rule else math.inf
        found.setdefault(text, []).append((ratio, record))
    scores = {text: _score(measured) for text, measured in found.items()}
    slower = {text for text, (mean, _) in scores.items() if 0 < mean < math.inf}
    if not found.keys() - slower:
        return None
    chosen = min(found.keys() - slower, key=lambda text: (*scores[text], text))
    return min(found[chosen], key=lambda pair: (pair[0], pair[1].seconds, pair[1].machine))[1]


def winners(records: Iterable[Record]) -> list[Record]:
    """The best of each key, where that is not the rule's own choice."""
    found = [best(group) for group in by_key(records).values()]
    return [each for each in found if each is not None and each.decisions]


def by_key(records: Iterable[Record]) -> dict[tuple[str, int, str, int], list[Record]]:
    """Records of the same kernel, space, target and number of threads."""
    groups: dict[tuple[str, int, str, int], list[Record]] = {}
    for record in records:
        groups.setdefault(record.key, []).append(record)
    return groups


def kept(records: Iterable[Record]) -> list[Record]:
    """What is worth keeping: the records that `best` of each key depends on, each machine's time of
    the rule's own choice, and what failed: an older copy that was valid may be merged again."""
    result = []
    for group in by_key(current(filter(_counts, records))).values():
        winner = best(group)
        result += [
            each
            for each in group
            if not (each.valid and each.decisions)
            or (winner is not None and each.decisions == winner.decisions)
        ]
    return result


def _counts(record: Record) -> bool:
    """Whether a choice may depend on the record: the trial of a candidate never decides."""
    return record.confirmed or not record.valid or not record.decisions


def _score(measured: list[tuple[float, Record]]) -> tuple[float, float]:
    """Mean logarithm of known ratios to the rule, then of seconds: less is better."""
    known = [ratio for ratio, _ in measured if ratio != math.inf]
    seconds = [record.seconds or math.inf for _, record in measured]
    return _mean_log(known) if known else math.inf, _mean_log(seconds)


def _mean_log(values: list[float]) -> float:
    return math.fsum(map(math.log, values)) / len(values)


def _is_later(record: Record, other: Record) -> bool:
    """By date; of one date a failure is later, then the slower; then anything that is decided."""
    mine, its = (
        (each.date, not each.valid, each.seconds or 0.0, each.baseline or 0.0)
        for each in (record, other)
    )
    return mine > its if mine != its else repr(record) > repr(other)


def _place(record: Record) -> tuple[object, ...]:
    """What a later record replaces an earlier one of."""
    return (*record.key, record.machine, _text(record.decisions))


def _text(decisions: Mapping[str, int | str]) -> str:
    return json.dumps(decisions, sort_keys=True)
