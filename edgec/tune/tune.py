"""`tune`: measure a model's kernels under other choices than the rules', and keep what is faster.

compile by the rules -> time every kernel -> tasks -> trials -> compile by the records -> time every
kernel again, and correct the records -> compare
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import edgec
from edgec.cache import Cache
from edgec.compiler import available_cpus, compile_model
from edgec.errors import TuningError, UsageError
from edgec.options import Options
from edgec.peaks import processor_name
from edgec.protocol import Ratio
from edgec.targets import Target, resolve, runs_here
from edgec.tune import whole
from edgec.tune.boards import Board, Local
from edgec.tune.measure import BUILD_S, Measurer
from edgec.tune.origin import Origin
from edgec.tune.records import Store
from edgec.tune.report import Found, Tuned
from edgec.tune.session import Budget, OnEvent, Session
from edgec.tune.settle import Neighbours, settle
from edgec.tune.task import Tasks, tasks

REASONS = 3
"""Why candidates failed: so many reasons are told, the most frequent ones."""


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """How to tune.

    Attributes:
        records: folder of the store that the results go to, and known ones are taken from.
        budget: when to stop.
        seed: of the search.
        only: operators; kernels without any of them are not tuned.
        threads: that run a kernel, 0 for as many as the boards can run at once.
        boards: where kernels are measured.
        build_s: that building a candidate may take.
    """

    records: Path
    budget: Budget
    seed: int = 0
    only: Sequence[str] = ()
    threads: int = 0
    boards: Sequence[Board] = (Local(),)
    build_s: float = BUILD_S


def tune(
    model: str | os.PathLike[str],
    options: Options,
    tuning: Tuning,
    *,
    cache: Cache | None = None,
    on_event: OnEvent = lambda event: None,
) -> Tuned:
    """Tune the kernels of `model` as `options` would compile it, but for the records they name.

    Every result is in the store when `on_event` hears of it ("tuning"; "tasks" comes before them).
    Ctrl-C ends it at once: the same call goes on from what the store holds.

    Raises:
        UsageError: several targets or sizes of a dimension at once; `only` names no operator.
        TuningError: every candidate failed, no board is left, or the records cannot be kept.
        EdgecError: whatever compiling the model raises.
    """
    target = _only_target(options)
    cache = cache or Cache.default()
    measurer = partial(
        Measurer,
        target,
        tuning.boards,
        options.jobs,
        build_s=tuning.build_s,
        cache=cache,
        on_note=lambda text: on_event({"event": "note", "text": text}),
    )
    runs = runs_here(target) and all(board.is_here for board in tuning.boards)
    with tempfile.TemporaryDirectory(prefix="edgec-") as folder:
        before, after = Path(folder) / "before.edgec", Path(folder) / "after.edgec"
        by_rule = replace(options, records=None, bundled=False)
        made = compile_model(model, before, by_rule, cache=cache, reuse=False, on_event=on_event)
        [(lowered, planned)] = made.lowered.values()
        on_event({"event": "stage", "stage": "profile", "state": "start"})
        if runs:
            threads = tuning.threads or available_cpus()
            sample = whole.random_sample(before, Path(model))
            seconds = whole.kernel_seconds(before, sample, threads)
        else:
            with measurer() as started:
                threads = tuning.threads or started.threads()
                seconds = whole.kernel_seconds_on(started, lowered, planned, threads)
        chosen = tasks(lowered, planned, seconds, tuning.only)
        on_event(_described(chosen))
        origin = _origin(target, threads, tuning)
        found = _search(chosen, measurer, origin, tuning, on_event)
        by_records = replace(by_rule, records=tuning.records, threads=threads)

        def compiled() -> Path:
            compile_model(model, after, by_records, cache=cache, on_event=_without_notes(on_event))
            return after

        if runs:
            on_event({"event": "stage", "stage": "settle", "state": "start"})
            neighbours, store = Neighbours.of(lowered, planned), Store(tuning.records)
            if count := settle(compiled, before, sample, neighbours, origin, store):
                are = "kernel is" if count == 1 else "kernels are"
                text = f"{count} {are} faster alone, but not in the model: corrected"
                on_event({"event": "note", "text": text})
        compiled()
        if runs:
            old, new = whole.alternate(before, after, sample, threads, on_event)
            times, speedup = (old.median, new.median), Ratio.of(old, new)
        else:
            times = found.start_s, found.end_s
            speedup = Ratio(*[times[0] / times[1]] * 3)
    name = options.name or Path(model).stem
    return Tuned(name, target.name, threads, tuning.records, found, *times, speedup, runs)


def _search(
    chosen: Tasks,
    measurer: Callable[[], Measurer],
    origin: Origin,
    tuning: Tuning,
    on_event: OnEvent,
) -> Found:
    """The trials, timed from when every board is there. `TuningError` if no candidate was ever
    valid."""
    with measurer() as started:
        started.threads()
        store = Store(tuning.records)
        session = Session(chosen, origin, started, store, tuning.budget, on_event)
        try:
            session.run()
        except KeyboardInterrupt:
            text = (
                f"stopped after {session.found.trials} trials, which are kept in "
                f"{tuning.records}; the same command goes on from there"
            )
            on_event({"event": "note", "text": text})
            raise
        found = session.found
    if not found.valid + found.known_valid:
        counted = found.reasons.most_common(REASONS)
        raise TuningError(
            "; ".join(
                [
                    f"all {found.trials + found.known} candidates failed",
                    *(f"{count} of them: {reason}" for reason, count in counted),
                ]
            ),
            where=str(tuning.records),
            hint="the rules' own schedules are among them, so the target, the board or the limits "
            "do not fit",
        )
    return found


def _origin(target: Target, threads: int, tuning: Tuning) -> Origin:
    return Origin(
        target=target,
        threads=threads,
        machine=_machine(target, tuning.boards),
        edgec=edgec.__version__,
        tvm=metadata.version("apache-tvm"),
        seed=tuning.seed,
    )


def _machine(target: Target, boards: Sequence[Board]) -> str:
    """What records call the machine that measures."""
    if not all(board.is_here for board in boards):
        return ", ".join(board.name for board in boards)
    return processor_name() if runs_here(target) else f"QEMU on {processor_name()}"


def _only_target(options: Options) -> Target:
    if len(options.targets) != 1 or any(len(sizes) != 1 for sizes in options.dims.values()):
        raise UsageError(
            "only one target, and one size of each dimension, can be tuned at once",
            hint="tune one after the other with the same --records: they add up",
        )
    return resolve(options.targets[0])


def _described(found: Tasks) -> dict[str, Any]:
    """The event that says what is tuned."""
    whole_s = found.rest + sum(task.seconds for task in found.chosen)
    return {
        "event": "tasks",
        "tasks": [
            {
                "label": task.label,
                "kernel": task.kernel.name,
                "ms": 1e3 * task.seconds,
                "share": task.seconds / whole_s,
            }
            for task in found.chosen
        ],
        "rest_ms": 1e3 * found.rest,
    }


def _without_notes(on_event: OnEvent) -> OnEvent:
    """For what is compiled a second time: its notes were told the first time."""
    return lambda event: None if event["event"] == "note" else on_event(event)
