"""The options of the commands that run artifacts."""

from __future__ import annotations

import argparse
from pathlib import Path

from edgec.commands.options import add_common, add_data, add_place, add_spin, count


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add the options of `edgec run`."""
    add_common(parser, "measure:run")
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--output", type=Path, metavar="DIR", help="write NAME.npy per output")
    parser.add_argument("--samples", type=int, default=1, metavar="N", help="of generated data")
    parser.add_argument("--selftest", action="store_true", help="reproduce the golden data")
    add_place(parser)
    add_data(parser)


def add_verify(parser: argparse.ArgumentParser) -> None:
    """Add the options of `edgec verify`."""
    add_common(parser, "measure:verify")
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--against", type=Path, required=True, metavar="MODEL.onnx")
    add_place(parser)
    parser.add_argument("--inputs", dest="input", action="append", default=[], metavar="SOURCE")
    parser.add_argument("--normalize", action="append", default=[], metavar="NAME=MEAN,STD")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=count, default=0, metavar="N")


def add_bench(parser: argparse.ArgumentParser) -> None:
    """Add the options of `edgec bench`."""
    add_common(parser, "measure:bench")
    parser.add_argument("artifact", type=Path)
    parser.add_argument(
        "--against", default="", metavar="ENGINE,...", help="onnxruntime,openvino,iree"
    )
    parser.add_argument(
        "--model", type=Path, help="what the others run; by default the ONNX file of the same name"
    )
    parser.add_argument("--threads", type=count, default=0, metavar="N", help="for every engine")
    add_spin(parser)
    parser.add_argument("--calls", type=int, default=200, metavar="N", help="counted per engine")
    add_place(parser)
    parser.add_argument("--native", action="store_true", help="call edgec and onnxruntime from C")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the result")


def add_profile(parser: argparse.ArgumentParser) -> None:
    """Add the options of `edgec profile`."""
    add_common(parser, "measure:profile")
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--runs", type=int, default=100, metavar="N", help="that are timed")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the result")
    parser.add_argument("--no-cache", action="store_true", help="measure the machine's peaks anew")
    add_data(parser)
