"""What `edgec-measure` is asked and what it answers: the other side of `edgec/runtime/trial.h`."""

from __future__ import annotations

import signal
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edgec.program import dtype_of
from edgec.tune.image import Image
from edgec.tune.kernel import Buffer, Kernel

VERSION = 1
_HOST, _TRIAL = 0, 1
_REQUEST = struct.Struct("<IIIiIIIIIIQQQQQQQQQQ")
_BUFFER = struct.Struct("<QIIIIIi")
_FIXUP = struct.Struct("<II")
_OUTCOME = struct.Struct("<IiIIQQ")

_ROLES = {"input": 0, "weight": 1, "output": 2}
_GIVEN, _BYTES, _BITS, _REAL = range(4)
_REALS = {
    "float64": (11, 52),
    "float32": (8, 23),
    "float16": (5, 10),
    "bfloat16": (8, 7),
    "float8_e4m3fn": (4, 3),
    "float8_e4m3fnuz": (4, 3),
    "float8_e5m2": (5, 2),
    "float8_e5m2fnuz": (5, 2),
}
"""Bits of the exponent and the mantissa."""

Pattern = Literal["random", "zeros", "large", "denormal", "negative"]
PATTERNS: tuple[Pattern, ...] = ("random", "zeros", "large", "denormal", "negative")
"""What floats are; integers are random, but for `zeros`."""


@dataclass(frozen=True)
class Effort:
    """How a kernel is measured: up to `bursts` bursts of `burst_s` seconds or one call.

    One that takes longer than `cutoff_s` is called a few times only (0: none is), one that does not
    end within `limit_s` is given up, and so is one with buffers of more than `memory_bytes`.
    Constants are taken from copies of them that fill `cold_bytes`, so that they come from as far
    away as in a model.
    """

    bursts: int = 12
    burst_s: float = 0.002
    cutoff_s: float = 0.0
    limit_s: float = 10.0
    memory_bytes: int = 1 << 30
    cold_bytes: int = 32 << 20


@dataclass(frozen=True)
class Asked:
    """A trial but for the kernel: threads, the one CPU to run on (-1: any), what buffers hold.

    Outputs hold the byte `junk` before; they are sent back if `outputs`.
    """

    threads: int
    cpu: int = -1
    pattern: Pattern = "random"
    seed: int = 1
    junk: int = 0
    outputs: bool = False


@dataclass(frozen=True)
class Host:
    """What a board says of itself: how many threads it can run at once, which of the CPU features
    asked for it lacks first, what it is called, and the functions it has for images."""

    threads: int
    missing: str
    board: str
    imports: Mapping[str, int]


@dataclass(frozen=True)
class Outcome:
    """How a trial ended: seconds a call in each burst, or why there are none, and the outputs."""

    seconds: tuple[float, ...]
    error: str
    outputs: bytes
    prepare_s: float
    run_s: float


def host_request(features: tuple[str, ...]) -> bytes:
    """Asks a board about itself, and whether it has the CPU features."""
    return struct.pack("<I", _HOST) + " ".join(features).encode()


def read_host(answer: bytes) -> Host:
    """The answer to `host_request`; ValueError where it is none, or of another version."""
    pairs = (line.partition(" ") for line in answer.decode().splitlines())
    facts = {key: value for key, _, value in pairs}
    if facts.get("version") != str(VERSION) or "imports" not in facts:
        raise ValueError("this is not the answer of an edgec-measure of this version")
    imports = {name: i for i, name in enumerate(facts["imports"].split(), 1)}
    return Host(int(facts["threads"]), facts["missing"], facts["board"].strip("\0 "), imports)


def trial_request(
    kernel: Kernel, image: Image, scratch_bytes: int, asked: Asked, effort: Effort
) -> bytes:
    """Asks for the times of a kernel that was linked to `image`."""
    over = {kernel.overwrites[1]: kernel.overwrites[0]} if kernel.overwrites else {}
    head = _REQUEST.pack(
        _TRIAL,
        VERSION,
        asked.threads,
        asked.cpu,
        asked.outputs,
        PATTERNS.index(asked.pattern),
        asked.junk,
        effort.bursts,
        len(kernel.buffers),
        len(image.fixups),
        int(effort.burst_s * 1e9),
        int(effort.cutoff_s * 1e9),
        int(effort.limit_s * 1e9),
        effort.memory_bytes,
        scratch_bytes,
        effort.cold_bytes,
        asked.seed,
        len(image.data),
        image.text_bytes,
        image.entry,
    )
    buffers = [_buffer(b, over.get(i, -1)) for i, b in enumerate(kernel.buffers)]
    fixups = [_FIXUP.pack(*fixup) for fixup in image.fixups]
    given = [b.data for b in kernel.buffers if b.data is not None]
    return b"".join([head, *buffers, *fixups, *given, image.data])


def read_outcome(answer: bytes, bursts: int) -> Outcome:
    """The answer to `trial_request`, in which `bursts` were asked for."""
    status, code, taken, _, prepare_ns, run_ns = _OUTCOME.unpack_from(answer)
    reasons = (
        "",
        f"crash: {_signal(code)}",
        "hang: it did not end within the limit",
        "the request is malformed",
        "memory: its buffers are more than the limit, or than there is",
        f"it returned {code}",
        "memory: it wants more scratch memory than it said",
    )
    error = reasons[status] if status < len(reasons) else f"unknown outcome {status}"
    times = answer[_OUTCOME.size :][: bursts * 8]
    seconds = np.frombuffer(times, "<f8")[: 0 if error else taken] * 1e-9
    outputs = answer[_OUTCOME.size + bursts * 8 :]
    return Outcome(tuple(map(float, seconds)), error, outputs, prepare_ns * 1e-9, run_ns * 1e-9)


def _buffer(buffer: Buffer, over: int) -> bytes:
    exponent, mantissa = _REALS.get(buffer.dtype, (0, 0))
    itemsize = dtype_of(buffer.dtype).itemsize
    if buffer.data is not None:
        fill = _GIVEN
    elif mantissa:
        fill = _REAL
    else:
        fill = _BYTES if itemsize == 1 and buffer.dtype != "bool" else _BITS
    role = _ROLES[buffer.role]
    return _BUFFER.pack(buffer.nbytes, role, fill, itemsize, exponent, mantissa, over)


def _signal(code: int) -> str:
    try:
        return signal.Signals(code).name
    except ValueError:
        return f"signal {code}"
