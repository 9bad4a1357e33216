"""The command line: arguments in, exit codes out, nothing else."""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from edgec import __version__
from edgec.commands import quantizeoptions, recordsoptions
from edgec.display import Display
from edgec.errors import EXIT_INTERRUPTED, EdgecError, UsageError

Command = Callable[[argparse.Namespace, Display], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `edgec` with `arguments` (by default the process's) and return its exit code.

    As a process of its own it ends on SIGTERM as it does on an error: nothing is left behind.
    """
    parser = _parser()
    given = list(sys.argv[1:] if arguments is None else arguments)
    display = Display(as_json="--json" in given, verbose="-v" in given or "--verbose" in given)
    if arguments is None:
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        parsed, unknown = parser.parse_known_args(given)
        if unknown:
            parsed.parser.refuse(unknown)
        if parsed.command is None:
            parser.print_help()
            return UsageError.exit_code
        module, _, function = parsed.command.partition(":")
        run: Command = getattr(importlib.import_module(f"edgec.commands.{module}"), function)
        return run(parsed, display)
    except EdgecError as error:
        display.error(error)
        if display.verbose:
            traceback.print_exc()
        return error.exit_code
    except KeyboardInterrupt:
        display.interrupted()
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        display.internal(error)
        if display.verbose:
            traceback.print_exc()
        return EdgecError.exit_code
    finally:
        display.close()


class _Parser(argparse.ArgumentParser):
    """argparse, with edgec's errors."""

    def error(self, message: str) -> None:  # type: ignore[override]
        raise UsageError(message, hint=f"`{self.prog} --help` shows the options")

    def refuse(self, words: list[str]) -> None:
        """Words that are no arguments of this command; the nearest option is told.

        Raises:
            UsageError: always.
        """
        option = words[0].partition("=")[0]
        close = difflib.get_close_matches(option, self._option_string_actions, n=1)
        raise UsageError(
            f"unrecognized arguments: {' '.join(words)}",
            hint=(f"did you mean {close[0]}? " if close else "")
            + f"`{self.prog} --help` shows the options",
        )


def _parser() -> _Parser:
    parser = _Parser(
        prog="edgec",
        description="Optimise ONNX models and compile them to modules that run on edge devices.",
    )
    parser.add_argument("--version", action="version", version=f"edgec {__version__}")
    parser.set_defaults(command=None, parser=parser)
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=_Parser)
    _compile(verbs.add_parser("compile", help="compile a model to an artifact"))
    _tune(verbs.add_parser("tune", help="find faster kernels for a model by measuring"))
    _optimize(verbs.add_parser("optimize", help="optimise a model, as ONNX"))
    _bisect(verbs.add_parser("bisect", help="find the rewrite that makes a model wrong"))
    _diff(verbs.add_parser("diff", help="show what changed between two models"))
    _quantize(verbs.add_parser("quantize", help="make integers of few bits of a model"))
    _debug_quant(
        verbs.add_parser("debug-quant", help="show where a quantized model's error comes from")
    )
    _run(verbs.add_parser("run", help="run an artifact on data"))
    _verify(verbs.add_parser("verify", help="compare an artifact with its model"))
    _bench(verbs.add_parser("bench", help="time an artifact beside other runtimes"))
    _profile(verbs.add_parser("profile", help="show where the time of a run goes"))
    _export(verbs.add_parser("export", help="write libraries and headers for C and C++"))
    _inspect(verbs.add_parser("inspect", help="show what a model or an artifact is"))
    records = verbs.add_parser("records", help="show and keep what tuning found")
    recordsoptions.add_actions(records, _Parser, _common)
    _targets(verbs.add_parser("targets", help="list the targets, or describe one"))
    _passes(verbs.add_parser("passes", help="list the passes, or describe one"))
    _doctor(verbs.add_parser("doctor", help="check this installation"))
    _cache(verbs.add_parser("cache", help="show or clear the cache of compiled code"))
    return parser


def _common(parser: argparse.ArgumentParser, command: str) -> None:
    parser.set_defaults(command=command, parser=parser)
    parser.add_argument("--json", action="store_true", help="one JSON object per line on stdout")
    parser.add_argument("-v", "--verbose", action="store_true", help="more detail; tracebacks")


def _passes_options(parser: argparse.ArgumentParser) -> None:
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


def _watching(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--print-after", action="append", default=[], metavar="PASS", help="show the graph"
    )
    parser.add_argument("--time-passes", action="store_true", help="show each pass's time")


def _sizes(parser: argparse.ArgumentParser, dim: str = "NAME=SIZE", more: str = "") -> None:
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


def _states(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--state",
        action="append",
        default=[],
        metavar="OUT=IN",
        help="keep this output as the next run's input",
    )


def _compile(parser: argparse.ArgumentParser) -> None:
    _common(parser, "build:compile_")
    parser.add_argument("model", help="the ONNX model")
    parser.add_argument("-o", "--output", type=Path, help="the artifact; with --emit, see below")
    parser.add_argument(
        "--target",
        action="append",
        metavar="NAME",
        help="see `edgec targets`, or a board of your own: FILE.toml; may be repeated",
    )
    _sizes(parser, "NAME=SIZE[,SIZE]", "; several sizes make several variants")
    _states(parser)
    _passes_options(parser)
    _watching(parser)
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
    _compilers(parser)
    _toolkit(parser)
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


def _tune(parser: argparse.ArgumentParser) -> None:
    _common(parser, "tune:tune")
    parser.add_argument("model", help="the ONNX model")
    parser.add_argument("--target", default="host", metavar="NAME", help="see `edgec targets`")
    parser.add_argument(
        "--for", dest="time", metavar="TIME", help="how long to try: 90s, 10m (the default), 1h30m"
    )
    parser.add_argument("--trials", type=_count, metavar="N", help="how many candidates to try")
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
        "--threads", type=_count, default=0, metavar="N", help="that run a kernel; by default all"
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
    _sizes(parser)
    _states(parser)
    _passes_options(parser)
    parser.add_argument("-j", "--jobs", type=int, metavar="N", help="processes that build kernels")
    _compilers(parser)
    _toolkit(parser)
    parser.add_argument("--trusted", action="store_true", help="check the model in this process")


def _model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="the ONNX model")
    _sizes(parser)
    _passes_options(parser)
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


def _optimize(parser: argparse.ArgumentParser) -> None:
    _common(parser, "improve:optimize")
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
    _watching(parser)


def _bisect(parser: argparse.ArgumentParser) -> None:
    _common(parser, "improve:bisect")
    _model_options(parser)
    parser.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="of the reproducer; MODEL.guilty"
    )


def _diff(parser: argparse.ArgumentParser) -> None:
    _common(parser, "improve:diff")
    parser.add_argument("before", type=Path, help="an ONNX model")
    parser.add_argument("after", type=Path, help="another one")


def _quantize(parser: argparse.ArgumentParser) -> None:
    _common(parser, "quantize:quantize")
    parser.add_argument("model", help="the float ONNX model")
    parser.add_argument("-o", "--output", type=Path, help="by default MODEL.int8.onnx")
    parser.add_argument(
        "--calib",
        action="append",
        default=[],
        metavar="SOURCE",
        help="samples: an .npz or image file, a folder of them, FILE.py:NAME; may be repeated",
    )
    quantizeoptions.add_scheme(parser)
    parser.add_argument("--normalize", action="append", default=[], metavar="NAME=MEAN,STD")
    parser.add_argument("--samples", type=_count, metavar="N", help="calibrate with N at most")
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
    quantizeoptions.add_gate(parser, "the target that --profile names; off for other profiles")
    parser.add_argument("--report", action="store_true", help="say why nodes stay in floats")
    _sizes(parser)
    parser.add_argument("--trusted", action="store_true", help="check the model in this process")


def _debug_quant(parser: argparse.ArgumentParser) -> None:
    _common(parser, "debugquant:debug")
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
    parser.add_argument("--samples", type=_count, metavar="N", help="run N at most")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with plots")
    parser.add_argument(
        "--worst", type=_count, metavar="N", help="show the N tensors that lose most in their layer"
    )
    _sizes(parser)
    parser.add_argument("--trusted", action="store_true", help="check the models in this process")


def _data_options(parser: argparse.ArgumentParser) -> None:
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
    parser.add_argument("--threads", type=_count, default=0, metavar="N", help="by default all")
    _spin_option(parser)


def _on(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--on", metavar="PLACE", help="there instead: qemu, ssh:USER@HOST or rpc:HOST:PORT"
    )


def _compilers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cc", metavar="PATH", help="link with this C compiler")
    parser.add_argument("--ndk", metavar="DIR", help="link for Android with this NDK")


def _toolkit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cuda-path", metavar="DIR", help="compile for the GPU with the NVRTC of this toolkit"
    )


def _count(text: str) -> int:
    """A number that is not negative."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{number} is less than 0")
    return number


def _spin_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--spin-us",
        type=int,
        metavar="N",
        help="microseconds that idle threads spin before they sleep; by default 100, 0 for none",
    )


def _run(parser: argparse.ArgumentParser) -> None:
    _common(parser, "measure:run")
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--output", type=Path, metavar="DIR", help="write NAME.npy per output")
    parser.add_argument("--samples", type=int, default=1, metavar="N", help="of generated data")
    parser.add_argument("--selftest", action="store_true", help="reproduce the golden data")
    _on(parser)
    _data_options(parser)


def _verify(parser: argparse.ArgumentParser) -> None:
    _common(parser, "measure:verify")
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--against", type=Path, required=True, metavar="MODEL.onnx")
    _on(parser)
    parser.add_argument("--inputs", dest="input", action="append", default=[], metavar="SOURCE")
    parser.add_argument("--normalize", action="append", default=[], metavar="NAME=MEAN,STD")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=_count, default=0, metavar="N")


def _bench(parser: argparse.ArgumentParser) -> None:
    _common(parser, "measure:bench")
    parser.add_argument("artifact", type=Path)
    parser.add_argument(
        "--against", default="", metavar="ENGINE,...", help="onnxruntime,openvino,iree"
    )
    parser.add_argument(
        "--model", type=Path, help="what the others run; by default the ONNX file of the same name"
    )
    parser.add_argument("--threads", type=_count, default=0, metavar="N", help="for every engine")
    _spin_option(parser)
    parser.add_argument("--calls", type=int, default=200, metavar="N", help="counted per engine")
    _on(parser)
    parser.add_argument("--native", action="store_true", help="call edgec and onnxruntime from C")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the result")


def _profile(parser: argparse.ArgumentParser) -> None:
    _common(parser, "measure:profile")
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--runs", type=int, default=100, metavar="N", help="that are timed")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the result")
    parser.add_argument("--no-cache", action="store_true", help="measure the machine's peaks anew")
    _data_options(parser)


def _export(parser: argparse.ArgumentParser) -> None:
    _common(parser, "build:export")
    parser.add_argument("artifact", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--variant", metavar="ID", help="by default the first")
    parser.add_argument("--runner", action="store_true", help="also a static edgec-run")
    _compilers(parser)


def _inspect(parser: argparse.ArgumentParser) -> None:
    _common(parser, "show:inspect")
    parser.add_argument("file", type=Path, help="an ONNX model or an artifact")
    parser.add_argument("--shape", action="append", default=[], metavar="INPUT=1x3x224x224")
    parser.add_argument("--dim", action="append", default=[], metavar="NAME=SIZE")


def _targets(parser: argparse.ArgumentParser) -> None:
    _common(parser, "targets:list_targets")
    parser.add_argument("name", nargs="?", help="or `probe`: find out what a machine is")
    parser.add_argument("--ssh", metavar="USER@HOST", help="probe this machine")
    parser.add_argument("--rpc", metavar="HOST:PORT", help="probe where a server of TVM's listens")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.toml", help="a target for it")
    parser.add_argument("--board", metavar="NAME", help="of that target; by default the model's")


def _passes(parser: argparse.ArgumentParser) -> None:
    _common(parser, "show:list_passes")
    parser.add_argument("name", nargs="?")


def _doctor(parser: argparse.ArgumentParser) -> None:
    _common(parser, "show:doctor")
    parser.add_argument("--target", metavar="NAME", help="what compiling for it needs")
    _compilers(parser)
    _toolkit(parser)


def _cache(parser: argparse.ArgumentParser) -> None:
    _common(parser, "show:cache")
    parser.add_argument("action", choices=("info", "clear"))


if __name__ == "__main__":
    sys.exit(main())
