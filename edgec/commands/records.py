"""`edgec records list`, `show`, `prune` and `check`."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from edgec.display import Display
from edgec.errors import TuningError
from edgec.report import duration, table
from edgec.tune.records import Reading, Store
from edgec.tune.summary import Entry, entries

_DAMAGED = TuningError.exit_code


def list_(args: argparse.Namespace, display: Display) -> int:
    """One line per kernel, target and number of threads."""
    reading, found = _entries(args)
    rows = [
        (
            entry.label or "?",
            entry.kernel[:12],
            entry.target,
            str(entry.threads),
            str(entry.records),
            str(entry.failed),
            duration(entry.best.seconds) if entry.best and entry.best.seconds else "",
            f"{entry.gain:.2f}" if entry.gain else "",
        )
        for entry in found
    ]
    header = ("kernel", "key", "target", "threads", "records", "failed", "best", "gain")
    text = table(header, rows, text=(0, 1, 2)) if rows else "no records"
    display.result(_facts(args, reading, found), f"{text}{complaint(reading)}")
    return 0


def show(args: argparse.Namespace, display: Display) -> int:
    """The best of each kernel with its decisions and where it comes from."""
    reading, found = _entries(args)
    text = "\n\n".join(_card(entry) for entry in found) or "no records"
    display.result(_facts(args, reading, found), f"{text}{complaint(reading)}")
    return 0


def prune(args: argparse.Namespace, display: Display) -> int:
    """Leave the best of each kernel, and each machine's time of the rule's own choice."""
    store = Store(args.store)
    store.require()
    done = store.prune()
    text = f"{done.kept} records kept, {done.dropped} dropped"
    display.result(dataclasses.asdict(done), f"{text}{complaint(done)}")
    return 0


def check(args: argparse.Namespace, display: Display) -> int:
    """Say what in a store is no record."""
    store = Store(args.store)
    store.require()
    reading = store.check()
    lines = [f"line {problem.line}: {problem.what}" for problem in reading.problems]
    lines.append(f"{len(reading.records)} records")
    facts = {
        "records": len(reading.records),
        "torn": reading.torn,
        "foreign": reading.foreign,
        "problems": [dataclasses.asdict(problem) for problem in reading.problems],
    }
    display.result(facts, "\n".join(lines) + complaint(reading))
    return _DAMAGED if reading.torn or reading.foreign else 0


def _entries(args: argparse.Namespace) -> tuple[Reading, list[Entry]]:
    store = Store(args.store)
    store.require()
    reading = store.read()
    found = entries(reading.records)
    return reading, [
        e for e in found if e.kernel.startswith(args.pattern) or args.pattern in e.label
    ]


def _facts(args: argparse.Namespace, reading: Reading, found: list[Entry]) -> dict[str, Any]:
    return {
        "path": str(args.store),
        "records": len(reading.records),
        "torn": reading.torn,
        "foreign": reading.foreign,
        "kernels": [entry.to_dict() for entry in found],
    }


def _card(entry: Entry) -> str:
    rows = [
        ("kernel", entry.label or "?"),
        ("key", entry.kernel),
        ("target", entry.target),
        ("threads", str(entry.threads)),
        ("space", str(entry.space)),
        ("records", f"{entry.records}, {entry.failed} of them failures"),
    ]
    if entry.best and entry.best.seconds:
        best = entry.best
        gain = f", {entry.gain:.2f} times as fast as the rule" if entry.gain else ""
        rows += [
            ("best", f"{duration(entry.best.seconds)} +- {100 * best.spread:.1f} %{gain}"),
            (
                "measured",
                f"{best.date} on {best.machine or '?'}, edgec {best.edgec}, TVM {best.tvm}",
            ),
            *((f"  {knob}", _shortened(str(value))) for knob, value in best.decisions.items()),
        ]
        if not best.decisions:
            rows.append(("decisions", "the rule's own"))
    return "\n".join(f"{name:<10} {value}" for name, value in rows)


def _shortened(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}... ({len(text)} characters)"


def complaint(counts: Any) -> str:
    """What of the lines were no records, if any."""
    if not counts.torn and not counts.foreign:
        return ""
    return f"\n{counts.torn} lines are torn or damaged, {counts.foreign} are not of a store"
