"""Options that several commands have."""

from __future__ import annotations

import argparse


def add_common(parser: argparse.ArgumentParser, command: str) -> None:
    """Name the function that runs the command, and add what all commands take."""
    parser.set_defaults(command=command, parser=parser)
    parser.add_argument("--json", action="store_true", help="one JSON object per line on stdout")
    parser.add_argument("-v", "--verbose", action="store_true", help="more detail; tracebacks")


def add_levels(parser: argparse.ArgumentParser) -> None:
    """Add which passes run."""
    level = parser.add_mutually_exclusive_group()
    for number, meaning in enumerate(
        ("as given", "cheap rewrites", "the default", "rewrites that change rounding more")
    ):
        level.add_argument(
            f"-O{number}", dest="level", action="store_const", const=number, help=meaning
        )
    parser.add_argument("--passes", metavar="LIST", help="run these passes: a,b{option=1}")
    parser.add_argument(
        "--disable", action="append", default=[], metavar="PASS", help="leave this pass out"
    )
    parser.add_argument("--stop-after", type=int, metavar="N", help="stop after N rewrites")


def add_watching(parser: argparse.ArgumentParser) -> None:
    """Add what shows passes at work."""
    parser.add_argument(
        "--print-after", action="append", default=[], metavar="PASS", help="show the graph"
    )
    parser.add_argument("--time-passes", action="store_true", help="show each pass's time")


def add_sizes(parser: argparse.ArgumentParser, dim: str = "NAME=SIZE", more: str = "") -> None:
    """Add what binds inputs and symbolic dimensions; `more` follows the help of --dim."""
    parser.add_argument(
        "--shape", action="append", default=[], metavar="INPUT=1x3x224x224", help="bind an input"
    )
    parser.add_argument(
        "--dim",
        action="append",
        default=[],
        metavar=dim,
        help=f"bind a symbolic dimension{more}",
    )


def add_states(parser: argparse.ArgumentParser) -> None:
    """Add outputs that are kept for the next run."""
    parser.add_argument(
        "--state",
        action="append",
        default=[],
        metavar="OUT=IN",
        help="keep this output as the next run's input",
    )


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add the data of runs, and their threads."""
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="[NAME=]SOURCE",
        help="random, zeros, an .npy, .npz or image file, or a folder of images; may be repeated",
    )
    parser.add_argument(
        "--normalize",
        action="append",
        default=[],
        metavar="NAME=MEAN,STD",
        help="applied to images: (pixel - MEAN) / STD",
    )
    parser.add_argument("--seed", type=int, default=0, help="for random data")
    parser.add_argument("--threads", type=count, default=0, metavar="N", help="by default all")
    add_spin(parser)


def add_place(parser: argparse.ArgumentParser) -> None:
    """Add where else to run."""
    parser.add_argument(
        "--on", metavar="PLACE", help="there instead: qemu, ssh:USER@HOST or rpc:HOST:PORT"
    )


def add_compilers(parser: argparse.ArgumentParser) -> None:
    """Add what links."""
    parser.add_argument("--cc", metavar="PATH", help="link with this C compiler")
    parser.add_argument("--ndk", metavar="DIR", help="link for Android with this NDK")


def add_toolkit(parser: argparse.ArgumentParser) -> None:
    """Add what compiles for GPUs."""
    parser.add_argument(
        "--cuda-path", metavar="DIR", help="compile for the GPU with the NVRTC of this toolkit"
    )


def count(text: str) -> int:
    """A number that is not negative."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{number} is less than 0")
    return number


def add_spin(parser: argparse.ArgumentParser) -> None:
    """Add how long threads spin."""
    parser.add_argument(
        "--spin-us",
        type=int,
        metavar="N",
        help="microseconds that idle threads spin before they sleep; by default 100, 0 for none",
    )
