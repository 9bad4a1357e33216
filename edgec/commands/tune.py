"""`edgec tune`."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from edgec.commands import arguments
from edgec.display import Display
from edgec.errors import UsageError
from edgec.options import Options
from edgec.tune.boards import Board, Local, board
from edgec.tune.plot import check_plot, plot
from edgec.tune.rpc import fleet
from edgec.tune.session import Budget
from edgec.tune.tune import Tuning
from edgec.tune.tune import tune as search
from edgec.tune.view import View

DEFAULT_TIME = "10m"


def tune(args: argparse.Namespace, display: Display) -> int:
    """Find faster kernels for a model, and keep them in a store of records."""
    if args.plot is not None:
        check_plot(args.plot)
    options = arguments.options(args, targets=(args.target,))
    tuning = Tuning(
        records=args.records or default_records(args.model),
        budget=_budget(args.time, args.trials),
        seed=args.seed,
        only=[operator for text in args.only for operator in text.split(",")],
        threads=args.threads,
        boards=_boards(args),
        build_s=arguments.seconds(args.build_limit, "--build-limit"),
    )
    tuned = search(args.model, options, tuning, on_event=View(display).event)
    if args.plot is not None:
        plot(tuned, args.plot)
    display.result(tuned.to_dict(), tuned.table())
    return 0


def tune_before(model: str, options: Options, time: str, display: Display) -> Options:
    """Tune for `edgec compile --tune`, say what it gained, and return the options to compile with:
    those given, with the records."""
    tuning = Tuning(
        records=options.records or default_records(model),
        budget=Budget(seconds=arguments.seconds(time, "--tune")),
        threads=options.threads or 0,
    )
    tuned = search(model, options, tuning, on_event=View(display).event)
    display.event({"event": "text", "text": tuned.table()})
    return replace(options, records=tuning.records)


def default_records(model: str) -> Path:
    """Where the records of a model are kept unless the user says otherwise."""
    return Path(Path(model).stem + ".records")


def _boards(args: argparse.Namespace) -> list[Board]:
    """Where kernels are measured: this machine unless others are named."""
    if bool(args.tracker) != bool(args.key):
        raise UsageError("a tracker and the key of its servers go together", where="--tracker")
    named = [board(text) for text in args.on]
    return [*named, *fleet(args.tracker, args.key)] if args.tracker else named or [Local()]


def _budget(time: str | None, trials: int | None) -> Budget:
    """The limits that were given; a time where there is none."""
    if time is None and trials is None:
        time = DEFAULT_TIME
    return Budget(None if time is None else arguments.seconds(time, "--for"), trials)
