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

from edgec import __version__
from edgec.commands import (
    buildoptions,
    improveoptions,
    measureoptions,
    quantizeoptions,
    recordsoptions,
    showoptions,
)
from edgec.display import Display
from edgec.errors import EXIT_INTERRUPTED, EdgecError, UsageError

Command = Callable[[argparse.Namespace, Display], int]

_COMMANDS = (
    ("compile", buildoptions.add_compile, "compile a model to an artifact"),
    ("tune", buildoptions.add_tune, "find faster kernels for a model by measuring"),
    ("optimize", improveoptions.add_optimize, "optimise a model, as ONNX"),
    ("bisect", improveoptions.add_bisect, "find the rewrite that makes a model wrong"),
    ("diff", improveoptions.add_diff, "show what changed between two models"),
    ("quantize", quantizeoptions.add_quantize, "make integers of few bits of a model"),
    (
        "debug-quant",
        quantizeoptions.add_debug_quant,
        "show where a quantized model's error comes from",
    ),
    ("run", measureoptions.add_run, "run an artifact on data"),
    ("verify", measureoptions.add_verify, "compare an artifact with its model"),
    ("bench", measureoptions.add_bench, "time an artifact beside other runtimes"),
    ("profile", measureoptions.add_profile, "show where the time of a run goes"),
    ("export", buildoptions.add_export, "write libraries and headers for C and C++"),
    ("inspect", showoptions.add_inspect, "show what a model or an artifact is"),
    ("records", recordsoptions.add_records, "show and keep what tuning found"),
    ("targets", showoptions.add_targets, "list the targets, or describe one"),
    ("passes", showoptions.add_passes, "list the passes, or describe one"),
    ("doctor", showoptions.add_doctor, "check this installation"),
    ("cache", showoptions.add_cache, "show or clear the cache of compiled code"),
)
"""Their names, what adds their options, and what they do."""


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
    for name, add_options, about in _COMMANDS:
        add_options(verbs.add_parser(name, help=about))
    return parser


if __name__ == "__main__":
    sys.exit(main())
