"""Keys of the kernels in a MetaSchedule database, found by a process that may crash.

TVM reads a workload as it was written, trusting it; a damaged one can end the process. The child
gets one workload a line, TVM's JSON of an IRModule as base64, and answers each with a line of JSON:
the kernel's key, or null and why there is none.
"""

from __future__ import annotations

import base64
import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, cast

TIME_LIMIT = 60
"""Seconds for one workload, TVM's import included."""

_PACKAGE_ROOT = str(Path(__file__).resolve().parents[2])
_LENGTH = 8


def kernel_keys(workloads: Iterable[str]) -> Iterator[tuple[str | None, str]]:
    """The key of each workload's kernel, or None and the reason why there is none.

    A workload is base64 without line breaks, as MetaSchedule writes it.
    """
    child: subprocess.Popen[str] | None = None
    try:
        for workload in workloads:
            child = child or _start()
            stdin, stdout = cast(IO[str], child.stdin), cast(IO[str], child.stdout)
            try:
                stdin.write(f"{workload}\n")
                stdin.flush()
                answer = stdout.readline()
            except BrokenPipeError:
                answer = ""
            if answer:
                key, why = json.loads(answer)
                yield key, why
            else:
                _end(child)
                child = None
                yield None, "TVM crashes on it or takes too long to read it"
    finally:
        if child is not None:
            _end(child)


def main() -> None:
    """Answer until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        signal.alarm(TIME_LIMIT)
        try:
            key, why = _key(line), ""
        except Exception as error:  # TVM raises bare Exception subclasses of many kinds
            key, why = None, f"{type(error).__name__}: {error}".splitlines()[0][:200]
        signal.alarm(0)
        print(json.dumps([key, why]), file=answers, flush=True)


def _key(line: str) -> str:
    """The key of the one kernel that a workload holds."""
    importlib.import_module("edgec.lower")  # before TVM, so that it is imported without torch
    import tvm

    from edgec.lower.build import kernel_key

    data = base64.b64decode(line, validate=False)
    if int.from_bytes(data[:_LENGTH], "little") == len(data) - _LENGTH:
        data = data[_LENGTH:]
    module = tvm.ir.load_json(data.decode())
    [function] = module.functions.values()
    return kernel_key(function)


def _start() -> subprocess.Popen[str]:
    paths = [_PACKAGE_ROOT, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return subprocess.Popen(
        [sys.executable, "-P", "-c", "from edgec.tune.workloads import main; main()"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def _end(child: subprocess.Popen[str]) -> None:
    child.kill()
    child.wait()
    for stream in (child.stdin, child.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
