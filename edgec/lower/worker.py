"""A worker process that compiles kernels.

It reads requests from standard input and writes answers to standard output, both as frames: a
length in 8 bytes, little-endian, then that many bytes of pickle. Its only peer is the process that
started it; it ends when that process does.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import pickle
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

from edgec.targets import Target

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Request:
    """Compile one kernel: `function` is TVM's JSON of an unscheduled PrimFunc, `decisions` are its
    schedule's, by knob. With `gpu` it is compiled for the target's GPU, not its processor."""

    function: str
    symbol: str
    target: Target
    overwrites: tuple[int, int] | None
    decisions: Mapping[str, int | str] = field(default_factory=dict)
    gpu: bool = False


@dataclass(frozen=True)
class Answer:
    """A native object (for a GPU, a packed `CudaKernel`) and its scratch bytes per thread, or the
    reason why there is none."""

    object: bytes = b""
    scratch_bytes: int = 0
    error: str = ""


def send(stream: BinaryIO, message: object) -> None:
    """Write one frame."""
    data = pickle.dumps(message)
    stream.write(len(data).to_bytes(8, "little") + data)
    stream.flush()


def receive(stream: BinaryIO) -> object | None:
    """Read one frame; None at the end of the stream."""
    header = stream.read(8)
    if len(header) < 8:
        return None
    message: object = pickle.loads(stream.read(int.from_bytes(header, "little")))
    return message


def _for_processor(request: Request) -> Answer:
    from edgec.lower.kernels import compile_kernel

    compiled = compile_kernel(
        request.function, request.symbol, request.target, request.overwrites, request.decisions
    )
    return Answer(compiled.object, compiled.scratch_bytes)


def _for_gpu(request: Request) -> Answer:
    from edgec.emit.cuda_kernel import pack
    from edgec.lower.cuda_build import compile_cuda_kernel

    kernel = compile_cuda_kernel(
        request.function,
        request.symbol,
        request.target,
        request.overwrites,
        vectors=request.decisions.get("loads") != "scalar",
        tf32=request.decisions.get("floats") == "tf32",
    )
    return Answer(pack(kernel), kernel.scratch_bytes)


def main() -> None:
    """Answer requests until standard input ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    importlib.import_module("edgec.lower.kernels")  # takes a second: before the first request

    while (request := receive(sys.stdin.buffer)) is not None:
        if not isinstance(request, Request):
            raise TypeError(f"unexpected request {type(request).__name__}")
        try:
            answer = _for_gpu(request) if request.gpu else _for_processor(request)
        except Exception as error:  # TVM raises bare Exception subclasses of many kinds
            answer = Answer(error=f"{type(error).__name__}: {error}")
        try:
            send(answers, answer)
        except BrokenPipeError:
            return
