"""The options of the commands that make artifacts and libraries."""

from __future__ import annotations

import argparse
from pathlib import Path

from edgec.commands import quantizeoptions, recordsoptions
from edgec.commands.options import (
    add_common,
    add_compilers,
    add_levels,
    add_sizes,
    add_states,
    add_toolkit,
    add_watching,
    count,
)


def add_compile(parser: argparse.ArgumentParser) -> None:
    """Add the options of `edgec compile`."""
    add_common(parser, "build:compile_")
    parser.add_argument("model", help="the ONNX model")
    parser.add_argument("-o", "--output", type=Path, help="the artifact; with --emit, see below")
    parser.add_argument(
        "--target",
        action="append",
        metavar="NAME",
        help="see `edgec targets`, or a board of your own: FILE.toml; may be repeated",
    )
    add_sizes(parser, "NAME=SIZE[,SIZE]", "; several sizes make several variants")
    add_states(parser)
    add_levels(parser)
    add_watching(parser)
    parser.add_argument(
        "--emit",
        metavar="KINDS",
        help="write these instead of an artifact: onnx,relax,tir,asm,c,so; with several, -o is a "
        "folder",
    )
    parser.add_argument("--save-temps", type=Path, metavar="DIR", help="keep every stage's output")
    parser.add_argument(
        "-MD", dest="dependencies", action="store_true", help="write OUTPUT.d for make"
    )
    recordsoptions.add_choice(parser)
    quantizeoptions.add_to_compile(parser)
    parser.add_argument("-j", "--jobs", type=int, metavar="N", help="processes that build kernels")
    parser.add_argument("--name", help="name of the model in C; by default the file's")
    add_compilers(parser)
    add_toolkit(parser)
    parser.add_argument(
        "--tf32",
        action="store_true",
        help="let the GPU round float32 to 10 bits of mantissa to multiply it by tensor cores",
    )
    parser.add_argument(
        "--require",
        choices=("none", "host-twin", "emulated", "device"),
        default="none",
        help="fail when the proof of correctness goes less far",
    )
    parser.add_argument("--runner", action="store_true", help="also write a static edgec-run")
    parser.add_argument("--trusted", action="store_true", help="check the model in this process")
    parser.add_argument("--no-cache", action="store_true", help="compile the model anew")
    parser.add_argument(
        "--tune", metavar="TIME", help="tune the kernels so long before, as `edgec tune` does: 10m"
    )


def add_tune(parser: argparse.ArgumentParser) -> None:
    """Add the options of `edgec tune`."""
    add_common(parser, "tune:tune")
    parser.add_argument("model", help="the ONNX model")
    parser.add_argument("--target", default="host", metavar="NAME", help="see `edgec targets`")
    parser.add_argument(
        "--for", dest="time", metavar="TIME", help="how long to try: 90s, 10m (the default), 1h30m"
    )
    parser.add_argument("--trials", type=count, metavar="N", help="how many candidates to try")
    parser.add_argument(
        "--records", type=Path, metavar="DIR", help="where results are kept; MODEL.records"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the search")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="OPERATOR,...",
        help="tune kernels with one of these: conv2d, depthwise, matmul, ...",
    )
    parser.add_argument(
        "--threads", type=count, default=0, metavar="N", help="that run a kernel; by default all"
    )
    parser.add_argument(
        "--on",
        action="append",
        default=[],
        metavar="BOARD",
        help="measure there: ssh:USER@HOST, or local; may be repeated",
    )
    parser.add_argument("--tracker", metavar="HOST:PORT", help="measure on a fleet of TVM servers")
    parser.add_argument("--key", metavar="NAME", help="of the fleet's servers")
    parser.add_argument(
        "--build-limit", default="30s", metavar="TIME", help="that building one kernel may take"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the latency over time")
    add_sizes(parser)
    add_states(parser)
    add_levels(parser)
    parser.add_argument("-j", "--jobs", type=int, metavar="N", help="processes that build kernels")
    add_compilers(parser)
    add_toolkit(parser)
    parser.add_argument("--trusted", action="store_true", help="check the model in this process")


def add_export(parser: argparse.ArgumentParser) -> None:
    """Add the options of `edgec export`."""
    add_common(parser, "build:export")
    parser.add_argument("artifact", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--variant", metavar="ID", help="by default the first")
    parser.add_argument("--runner", action="store_true", help="also a static edgec-run")
    add_compilers(parser)
