"""`tune`: measure a model's kernels under other choices than the rules', and keep what is faster.

    compile by the rules -> time every kernel -> tasks -> trials -> compile by the records -> compare
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import edgec
from edgec.cache import Cache
from edgec.compiler import available_cpus, compile_model
from edgec.errors import TuningError, UsageError
from edgec.options import Options
from edgec.peaks import processor_name
from edgec.targets import Target, resolve
from edgec.tune import whole
from edgec.tune.measure import Measurer
from edgec.tune.records import Store
from edgec.tune.report import Found, Tuned
from edgec.tune.session import Budget, OnEvent, Origin, Session
from edgec.tune.task import Tasks, tasks


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """How to tune.

    Attributes:
        records: folder of the store that the results go to, and known ones are taken from.
        budget: when to stop.
        seed: of the search.
        only: operators; kernels without any of them are not tuned.
        threads: that run a kernel, 0 for all processors available.
        on: where kernels are measured, as `edgec.tune.boards.board` reads it; none for here.
        tracker: HOST:PORT of an RPC tracker, with the `key` of its servers.
    """

    records: Path
    budget: Budget
    seed: int = 0
    only: Sequence[str] = ()
    threads: int = 0
    on: Sequence[str] = ()
    tracker: str = ""
    key: str = ""


def tune(
    model: str | os.PathLike[str],
    options: Options,
    tuning: Tuning,
    *,
    cache: Cache | None = None,
    on_event: OnEvent = lambda event: None,
) -> Tuned:
    """Tune the kernels of `model` as `options` would compile it.

    Every result is in the store when `on_event` hears of it ("tuning"; "tasks" comes before them).
    Ctrl-C ends it at once: the same call goes on from what the store holds.

    Raises:
        UsageError: several targets or sizes of a dimension at once; `only` names no operator.
        TuningError: every candidate failed, or the records cannot be kept.
        DeviceError: no board can be reached.
        EdgecError: whatever compiling the model raises.
    """
    target = _only_target(options)
    threads = tuning.threads or available_cpus()
    cache = cache or Cache.default()
    store = Store(tuning.records)
    with tempfile.TemporaryDirectory(prefix="edgec-") as folder:
        before, after = Path(folder) / "before.edgec", Path(folder) / "after.edgec"
        plain = replace(options, records=None)
        made = compile_model(model, before, plain, cache=cache, reuse=False, on_event=on_event)
        [(lowered, planned)] = made.lowered.values()
        sample = whole.random_sample(before, Path(model))
        chosen = tasks(
            lowered, planned, whole.kernel_seconds(before, sample, threads), tuning.only
        )
        origin = Origin(
            target=target,
            threads=threads,
            machine=processor_name(),
            edgec=edgec.__version__,
            tvm=metadata.version("apache-tvm"),
            seed=tuning.seed,
        )
        on_event(_described(chosen))
        with Measurer(target, ()) as measurer:
            session = Session(chosen, origin, measurer, store, tuning.budget, on_event)
            try:
                session.run()
            except KeyboardInterrupt:
                on_event({"event": "note", "text": _kept(session.found, tuning.records)})
                raise
        found = session.found
        if not found.valid + found.known_valid:
            raise _all_failed(found)
        tuned = replace(options, records=tuning.records)
        compile_model(model, after, tuned, cache=cache, on_event=on_event)
        old, new = whole.alternate(before, after, sample, threads, on_event)
    return Tuned(Path(model).stem, target.name, threads, tuning.records, found, old, new)


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


def _kept(found: Found, records: Path) -> str:
    return (
        f"stopped after {found.trials} trials, all of them kept in {records}; "
        "the same command goes on from there"
    )


def _all_failed(found: Found) -> TuningError:
    reasons = "; ".join(
        f"{count} of them: {reason}" for reason, count in found.reasons.most_common(3)
    )
    return TuningError(
        f"every candidate failed ({found.trials + found.known}): {reasons}",
    )
