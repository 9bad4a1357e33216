"""The options of `edgec records`, and those of other commands that take records."""

from __future__ import annotations

import argparse
from pathlib import Path

from edgec.commands.options import add_common

_ACTIONS = {
    "list": ("records:list_", "one line per tuned kernel"),
    "show": ("records:show", "the best of each kernel, in full"),
    "merge": ("exchange:merge", "add what other stores hold"),
    "export": ("exchange:export", "write the best to one file, or what MetaSchedule reads"),
    "prune": ("records:prune", "leave the best and the rule's own times"),
    "check": ("records:check", "say what in a store is damaged; exit 11 if anything is"),
}


def add_records(parser: argparse.ArgumentParser) -> None:
    """Add the actions of `edgec records`, and their options."""
    verbs = parser.add_subparsers(metavar="ACTION", required=True, parser_class=type(parser))
    for name, (command, about) in _ACTIONS.items():
        verb = verbs.add_parser(name, help=about)
        add_common(verb, command)
        verb.add_argument("store", type=Path, metavar="DIR", help="a store, or a file of records")
        if name in ("list", "show"):
            verb.add_argument("pattern", nargs="?", default="", help="of a kernel's key or label")
        elif name == "merge":
            _merge(verb)
        elif name == "export":
            _export(verb)


def add_choice(parser: argparse.ArgumentParser) -> None:
    """Add to `edgec compile` by which records it chooses schedules."""
    parser.add_argument(
        "--records", type=Path, metavar="DIR", help="choose schedules by what tuning found"
    )
    parser.add_argument(
        "--no-bundled-records",
        dest="bundled",
        action="store_false",
        help="not by the records that ship with edgec",
    )
    parser.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="by records of so many threads; by default of the most there are",
    )


def _merge(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sources", type=Path, nargs="*", metavar="SOURCE", help="as DIR")
    parser.add_argument(
        "--metaschedule",
        type=Path,
        metavar="FOLDER",
        help="add the records of this database of MetaSchedule",
    )
    parser.add_argument(
        "--target", metavar="NAME", help="that the database is for; by default as it says, host's"
    )
    parser.add_argument(
        "--threads", type=int, default=1, metavar="N", help="that ran the database's kernels"
    )


def _export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("output", type=Path, metavar="FILE")
    parser.add_argument(
        "--metaschedule",
        metavar="MODEL.onnx",
        help="make FILE a folder, a database of MetaSchedule with the kernels of this model",
    )
    parser.add_argument("--target", default="host", metavar="NAME", help="of the database")
    parser.add_argument("--shape", action="append", default=[], metavar="INPUT=1x3x224x224")
    parser.add_argument("--dim", action="append", default=[], metavar="NAME=SIZE")
    for number in range(4):
        parser.add_argument(
            f"-O{number}",
            dest="level",
            action="store_const",
            const=number,
            default=2,
            help="as the model is compiled",
        )
