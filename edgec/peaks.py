"""What a machine can do at most: measured once, by a small C program built with edgec's toolchain.

A kernel's time is worth little alone. Held against how fast the same processor multiplies and adds
when it does nothing else, and how fast it moves data of that size, it says what is left to gain.
"""

from __future__ import annotations

import math
import os
import platform
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgec.cache import Cache, key_of
from edgec.emit.toolchain import Toolchain
from edgec.errors import DeviceError
from edgec.targets import Target

SOURCE = Path(__file__).with_name("peaks.c")
LEAST_BYTES, MOST_BYTES = 64 << 20, 512 << 20
"""Between these, data are gone through that are twice the last cache: what comes from memory."""
LIMIT_S = 60.0


@dataclass(frozen=True)
class Peaks:
    """The most that `threads` threads of a machine do with the instructions of a target.

    `fma_per_s` are multiply-accumulates of float32 a second. `bandwidth` has (footprint in bytes,
    bytes a second), the footprints growing: the second holds for data of which so many bytes are
    gone through before any is used again.
    """

    processor: str
    threads: int
    fma_per_s: float
    bandwidth: tuple[tuple[int, float], ...]

    def bytes_per_s(self, distance: float) -> float:
        """The most bytes a second of data used again after `distance` other bytes.

        Between footprints that were measured it is a straight line in the logarithms of both.
        """
        footprints = [math.log(footprint) for footprint, _ in self.bandwidth]
        rates = np.log([rate for _, rate in self.bandwidth])
        falling = np.maximum.accumulate(rates[::-1])[::-1]
        return float(np.exp(np.interp(math.log(max(distance, 1)), footprints, falling)))


def measure(target: Target, threads: int, cache: Cache) -> Peaks:
    """The peaks of this machine, for code made for `target`; from `cache` where they are known.

    Raises:
        DeviceError: the program that measures fails.
        LoweringError, TargetError: it cannot be built.
    """
    processor = processor_name()
    key = key_of(SOURCE.read_bytes(), target.mcpu, target.vector_bits, processor, threads)
    found = cache.get("peaks", key)
    text = _run(target, threads, cache) if found is None else found.decode()
    if found is None:
        cache.put("peaks", key, text.encode())
    rows = [line.split() for line in text.splitlines()]
    return Peaks(
        processor,
        threads,
        next(float(row[1]) for row in rows if row[0] == "fma"),
        tuple((int(row[1]), float(row[2])) for row in rows if row[0] == "data"),
    )


def processor_name() -> str:
    """The processor of this machine, as the system calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _run(target: Target, threads: int, cache: Cache) -> str:
    toolchain = Toolchain.of(target, cache.path)
    code = toolchain.compile(
        SOURCE,
        includes=(),
        defines={"VECTOR_BYTES": str(target.vector_bits // 8)},
        options=[f"-mcpu={target.mcpu.replace('-', '_')}"],
    )
    program = toolchain.executable([code], static=False)
    with tempfile.TemporaryDirectory(prefix="edgec-") as folder:
        path = Path(folder, "peaks")
        path.write_bytes(program)
        path.chmod(0o700)
        try:
            done = subprocess.run(
                [path, str(threads), str(_footprint())],
                capture_output=True,
                text=True,
                timeout=LIMIT_S,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise DeviceError(f"the peaks cannot be measured: {error}") from error
    if done.returncode != 0:
        raise DeviceError(f"the peaks cannot be measured: exit code {done.returncode}")
    return done.stdout


def _footprint() -> int:
    """Twice the last cache, within bounds, and no more than an eighth of the memory."""
    sizes = Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
    kilobytes = [int(size.read_text().strip().rstrip("K")) for size in sizes]
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    wanted = 2 * 1024 * max(kilobytes, default=0)
    return min(max(wanted, LEAST_BYTES), MOST_BYTES, memory // 8)
