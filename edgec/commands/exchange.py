"""`edgec records merge` and `export`: stores and databases of MetaSchedule, into and out of one."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

from edgec.cache import Cache
from edgec.commands import arguments
from edgec.commands.records import complaint
from edgec.display import Display
from edgec.errors import UsageError
from edgec.options import Options, combinations, winograd_sizes
from edgec.targets import Target, resolve
from edgec.tune.records import Store

if TYPE_CHECKING:
    from tvm import tirx


def merge(args: argparse.Namespace, display: Display) -> int:
    """Add what other stores hold, and what MetaSchedule found."""
    if not args.sources and args.metaschedule is None:
        raise UsageError("there is nothing to merge", hint="name other stores after DIR")
    sources = [Store(path) for path in args.sources]
    for source in sources:
        source.require()
    store = Store(args.store)
    skipped: Mapping[str, int] = {}
    done = store.merge(*sources)
    if args.metaschedule is not None:
        from edgec.tune.metaschedule import read_database

        target = resolve(args.target) if args.target else None
        database = read_database(args.metaschedule, target, args.threads)
        more = store.add(database.records)
        done = dataclasses.replace(
            done, added=done.added + more.added, known=done.known + more.known
        )
        skipped = database.skipped
    text = f"{done.added} records added, {done.known} known before{_why(skipped)}"
    facts = dataclasses.asdict(done) | {"skipped": dict(skipped)}
    display.result(facts, f"{text}{complaint(done)}")
    return 0


def export(args: argparse.Namespace, display: Display) -> int:
    """Write the best records to one file, or the valid ones as a database of MetaSchedule."""
    store = Store(args.store)
    store.require()
    skipped: Mapping[str, int] = {}
    if args.metaschedule is None:
        written = store.export(args.output)
    else:
        from edgec.tune.metaschedule import write_database

        target = resolve(args.target)
        kernels = _kernels(args, target, display)
        records = store.read(kernels).records
        database = write_database(records, kernels, target, args.output)
        written, skipped = len(database.records), database.skipped
    facts = {"path": str(args.output), "records": written, "skipped": dict(skipped)}
    display.result(facts, f"{args.output}: {written} records{_why(skipped)}")
    return 0


def _kernels(
    args: argparse.Namespace, target: Target, display: Display
) -> dict[str, tirx.PrimFunc]:
    """The kernels of the model that the options name, by their keys."""
    from edgec.compiler import Compilation
    from edgec.lower.build import kernel_key
    from edgec.lower.lowering import lower_graph

    options = Options(
        level=args.level, shapes=arguments.shapes(args.shape), dims=arguments.dims(args.dim)
    )
    compilation = Compilation(args.metaschedule, options, Cache.default(), display.event)
    lowered = [
        lower_graph(compilation.load(dims), "model", [], target, winograd)
        for dims in combinations(options.dims)
        for winograd in winograd_sizes(options)
    ]
    return {kernel_key(f): f for each in lowered for f in each.kernels.values()}


def _why(skipped: Mapping[str, int]) -> str:
    """What was passed over, and why."""
    return "".join(f"\n{count} passed over: {reason}" for reason, count in skipped.items())
