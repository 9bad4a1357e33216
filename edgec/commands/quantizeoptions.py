"""The options of the commands that quantize; names are checked where they are used, so that
showing the help imports nothing."""

from __future__ import annotations

import argparse
from pathlib import Path

from edgec.commands.options import add_common, add_sizes, count


def add_quantize(parser: argparse.ArgumentParser) -> None:
    """Add the options of `edgec quantize`."""
    add_common(parser, "quantize:quantize")
    parser.add_argument("model", help="the float ONNX model")
    parser.add_argument("-o", "--output", type=Path, help="by default MODEL.int8.onnx")
    parser.add_argument(
        "--calib",
        action="append",
        default=[],
        metavar="SOURCE",
        help="samples: an .npz or image file, a folder of them, FILE.py:NAME; may be repeated",
    )
    add_scheme(parser)
    parser.add_argument("--normalize", action="append", default=[], metavar="NAME=MEAN,STD")
    parser.add_argument("--samples", type=count, metavar="N", help="calibrate with N at most")
    parser.add_argument(
        "--profile", default="portable", metavar="NAME", help="portable, x86, or a target's name"
    )
    parser.add_argument(
        "--exclude", action="append", default=[], metavar="NODE|OP", help="leave it in floats"
    )
    parser.add_argument(
        "--recover",
        choices=("auto", "none"),
        default="auto",
        help="win accuracy back by what serves the model best on samples apart, which is the "
        "default unless one of the next four is given, or by nothing",
    )
    parser.add_argument(
        "--equalize", action="store_true", help="equalize the weights of layers that follow another"
    )
    parser.add_argument(
        "--smooth", type=float, metavar="ALPHA", help="move sizes of channels into weights, by 0..1"
    )
    parser.add_argument(
        "--rounding",
        choices=("nearest", "adaround", "gptq"),
        default="nearest",
        help="of weights: to the nearest, or so that results change least",
    )
    parser.add_argument(
        "--bias-correction", action="store_true", help="fold the layers' mean errors into biases"
    )
    parser.add_argument(
        "--max-drop",
        type=float,
        metavar="D",
        help="raise layers to more bits, or floats, until it costs no more",
    )
    parser.add_argument(
        "--eval", metavar="FILE.py:NAME", help="what --max-drop is of; the file is executed"
    )
    add_gate(parser, "the target that --profile names; off for other profiles")
    parser.add_argument("--report", action="store_true", help="say why nodes stay in floats")
    add_sizes(parser)
    parser.add_argument("--trusted", action="store_true", help="check the model in this process")


def add_debug_quant(parser: argparse.ArgumentParser) -> None:
    """Add the options of `edgec debug-quant`."""
    add_common(parser, "debugquant:debug")
    parser.add_argument("model", help="the float ONNX model")
    parser.add_argument("quantized", help="what was made of it, with QuantizeLinear")
    parser.add_argument(
        "--calib",
        action="append",
        required=True,
        metavar="SOURCE",
        help="samples: an .npz or image file, a folder of them, FILE.py:NAME; may be repeated",
    )
    parser.add_argument("--normalize", action="append", default=[], metavar="NAME=MEAN,STD")
    parser.add_argument("--samples", type=count, metavar="N", help="run N at most")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with plots")
    parser.add_argument(
        "--worst", type=count, metavar="N", help="show the N tensors that lose most in their layer"
    )
    add_sizes(parser)
    parser.add_argument("--trusted", action="store_true", help="check the models in this process")


def add_scheme(parser: argparse.ArgumentParser) -> None:
    """Add bits, formulas, calibration, and what the user decides."""
    parser.add_argument(
        "--scheme",
        default="w8a8",
        metavar="NAME",
        help="bits of weights and activations: w8a8 (the default), w8a16, w4a16, w2a16, fp16, "
        "bf16, dynamic; only w8a8 is calibrated",
    )
    parser.add_argument(
        "--formula",
        default="linear",
        metavar="NAME",
        help="of weights alone: linear, power-of-two, logarithmic, float8e4m3fn, float8e5m2",
    )
    parser.add_argument(
        "--calibrator",
        default="minmax",
        metavar="NAME",
        help="of ranges: minmax (the default), moving-average, percentile, entropy, mse",
    )
    symmetry = parser.add_mutually_exclusive_group()
    for word, value in (("symmetric", True), ("asymmetric", False)):
        symmetry.add_argument(
            f"--{word}",
            dest="symmetric",
            action="store_const",
            const=value,
            help="zero points of activations " + ("are 0" if value else "fit the range"),
        )
    scales = parser.add_mutually_exclusive_group()
    for word, value in (("channel", True), ("tensor", False)):
        scales.add_argument(
            f"--per-{word}",
            dest="per_channel",
            action="store_const",
            const=value,
            help=f"a scale for each {word} of weights" + (" (the default)" if value else ""),
        )
    parser.set_defaults(per_channel=True)
    parser.add_argument(
        "--io-dtype",
        choices=("float", "int8", "uint8"),
        default="float",
        help="type of inputs and outputs that are quantized: a camera's bytes, say",
    )
    parser.add_argument(
        "--overrides", type=Path, metavar="FILE", help="ranges and layers in floats, as JSON"
    )


def add_gate(parser: argparse.ArgumentParser, what: str) -> None:
    """Add what leaves layers in floats that are no faster in integers; `what` names the target."""
    parser.add_argument(
        "--gate",
        choices=("auto", "measure", "model", "off"),
        default="auto",
        help=f"leave layers in floats that integers make no faster on {what}: measured on this "
        "machine, or by a model of the target; auto measures where the target's code runs here, "
        "and takes the model for boards and other processors",
    )


def add_to_compile(parser: argparse.ArgumentParser) -> None:
    """Add to `edgec compile` what quantizes the model before."""
    parser.add_argument(
        "--quantize", metavar="SCHEME", help="as `edgec quantize --scheme` does, for the target"
    )
    parser.add_argument(
        "--calib",
        action="append",
        default=[],
        metavar="SOURCE",
        help="samples for --quantize: an .npz or image file, a folder of them, FILE.py:NAME",
    )
    parser.add_argument(
        "--normalize",
        action="append",
        default=[],
        metavar="NAME=MEAN,STD",
        help="applied to images of --calib: (pixel - MEAN) / STD",
    )
    add_gate(parser, "the target, with --quantize w8a8")
