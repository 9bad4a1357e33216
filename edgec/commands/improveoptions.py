"""The options of the commands that give ONNX models back."""

from __future__ import annotations

import argparse
from pathlib import Path

from edgec.commands.options import add_common, add_levels, add_sizes, add_watching


def _model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="the ONNX model")
    add_sizes(parser)
    add_levels(parser)
    parser.add_argument(
        "--pass",
        dest="own",
        action="append",
        default=[],
        metavar="FILE.py:NAME",
        help="also run this pass of yours; the file is executed",
    )
    parser.add_argument(
        "--opset", type=int, metavar="N", help="write the result at opset N; by default the model's"
    )
    parser.add_argument("--trusted", action="store_true", help="check the model in this process")


def add_optimize(parser: argparse.ArgumentParser) -> None:
    """Add the options of `edgec optimize`."""
    add_common(parser, "improve:optimize")
    _model_options(parser)
    parser.add_argument("-o", "--output", type=Path, help="by default MODEL.opt.onnx")
    parser.add_argument(
        "--report",
        nargs="?",
        const=True,
        type=Path,
        metavar="FILE.html",
        help="say in full what was done; with a file, also as a page",
    )
    parser.add_argument(
        "--verify",
        choices=("each",),
        help="run the model before and after each pass; undo a pass that changes a result",
    )
    add_watching(parser)


def add_bisect(parser: argparse.ArgumentParser) -> None:
    """Add the options of `edgec bisect`."""
    add_common(parser, "improve:bisect")
    _model_options(parser)
    parser.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="of the reproducer; MODEL.guilty"
    )


def add_diff(parser: argparse.ArgumentParser) -> None:
    """Add the options of `edgec diff`."""
    add_common(parser, "improve:diff")
    parser.add_argument("before", type=Path, help="an ONNX model")
    parser.add_argument("after", type=Path, help="another one")
