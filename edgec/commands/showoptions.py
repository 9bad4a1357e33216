"""The options of the commands that tell what there is."""

from __future__ import annotations

import argparse
from pathlib import Path

from edgec.commands.options import add_common, add_compilers, add_toolkit


def add_inspect(parser: argparse.ArgumentParser) -> None:
    """Add the options of `edgec inspect`."""
    add_common(parser, "show:inspect")
    parser.add_argument("file", type=Path, help="an ONNX model or an artifact")
    parser.add_argument("--shape", action="append", default=[], metavar="INPUT=1x3x224x224")
    parser.add_argument("--dim", action="append", default=[], metavar="NAME=SIZE")


def add_targets(parser: argparse.ArgumentParser) -> None:
    """Add the options of `edgec targets`."""
    add_common(parser, "targets:list_targets")
    parser.add_argument("name", nargs="?", help="or `probe`: find out what a machine is")
    parser.add_argument("--ssh", metavar="USER@HOST", help="probe this machine")
    parser.add_argument("--rpc", metavar="HOST:PORT", help="probe where a server of TVM's listens")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.toml", help="a target for it")
    parser.add_argument("--board", metavar="NAME", help="of that target; by default the model's")


def add_passes(parser: argparse.ArgumentParser) -> None:
    """Add the options of `edgec passes`."""
    add_common(parser, "show:list_passes")
    parser.add_argument("name", nargs="?")


def add_doctor(parser: argparse.ArgumentParser) -> None:
    """Add the options of `edgec doctor`."""
    add_common(parser, "show:doctor")
    parser.add_argument("--target", metavar="NAME", help="what compiling for it needs")
    add_compilers(parser)
    add_toolkit(parser)


def add_cache(parser: argparse.ArgumentParser) -> None:
    """Add the options of `edgec cache`."""
    add_common(parser, "show:cache")
    parser.add_argument("action", choices=("info", "clear"))
