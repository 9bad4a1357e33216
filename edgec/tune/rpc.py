"""Boards behind TVM's RPC tracker, and the go-between that runs as a process for each.

A server of the tracker's gets the measuring program as a library, once; kernels then go there as
tensors of bytes.
"""

from __future__ import annotations

import ctypes
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from edgec.cache import Cache
from edgec.errors import DeviceError, UsageError
from edgec.targets import Target
from edgec.tune.boards import Command
from edgec.tune.program import FUNCTIONS, LIBRARY, measuring_library

if TYPE_CHECKING:
    from tvm.rpc.client import TrackerSession

_PR_SET_PDEATHSIG = 1
_START = "import sys; from edgec.tune.rpc import serve; serve(*sys.argv[1:])"


@dataclass(frozen=True)
class Tracked:
    """One of the servers that have registered as `key` with the tracker at `address`."""

    address: tuple[str, int]
    key: str
    number: int

    @property
    def name(self) -> str:
        return f"{self.key}#{self.number}"

    @property
    def is_here(self) -> bool:
        return False

    def command(self, target: Target, cache: Cache) -> Command:
        library = measuring_library(target, cache)
        folder = Path(tempfile.mkdtemp(prefix="edgec-"))
        (folder / LIBRARY).write_bytes(library)
        host, port = self.address
        words = (host, str(port), self.key, str(folder / LIBRARY))
        return Command((sys.executable, "-P", "-c", _START, *words), folder)


def fleet(tracker: str, key: str) -> list[Tracked]:
    """A board for each server that is registered as `key` with the tracker at "HOST:PORT".

    Raises:
        UsageError: `tracker` is no address.
        DeviceError: there is no tracker, or no such server.
    """
    host, _, digits = tracker.rpartition(":")
    if not host or not digits.isdecimal() or int(digits) > 65535:
        raise UsageError(f"'{tracker}' is no HOST:PORT", where="--tracker")
    address = host.strip("[]"), int(digits)
    summary = _session(address).summary()
    names = [entry["key"].removeprefix("server:") for entry in summary["server_info"]]
    if key not in names:
        known = ", ".join(sorted(set(names))) or "none"
        raise DeviceError(
            f"the tracker has no server called '{key}'",
            where=tracker,
            hint=f"it has: {known}; "
            f"on each board: python -m tvm.exec.rpc_server --tracker HOST:PORT --key {key}",
        )
    return [Tracked(address, key, number) for number in range(1, names.count(key) + 1)]


def serve(host: str, port: str, key: str, library: str) -> None:
    """Pass requests on standard input on to a server, and its answers to standard output."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    try:
        _serve(requests, answers, (host, int(port)), key, Path(library))
    except Exception as error:  # TVM raises bare Exception subclasses of many kinds
        lines = str(error).strip().splitlines() or [type(error).__name__]
        sys.exit(lines[-1])


def _serve(
    requests: BinaryIO, answers: BinaryIO, address: tuple[str, int], key: str, library: Path
) -> None:
    import numpy as np
    import tvm

    session = _session(address).request(key, max_retry=1)
    session.upload(str(library))
    module = session.load_module(library.name)
    measure, measured = (module[name] for name in FUNCTIONS)
    device = session.cpu()
    while len(head := requests.read(8)) == 8:
        request = requests.read(int.from_bytes(head, "little"))
        given = tvm.runtime.tensor(np.frombuffer(request, np.uint8), device)
        size = measure(given)
        answer = tvm.runtime.empty((size,), "uint8", device)
        measured(answer)
        answers.write(size.to_bytes(8, "little") + answer.numpy().tobytes())
        answers.flush()


def _session(address: tuple[str, int]) -> TrackerSession:
    from tvm.rpc import connect_tracker

    try:
        return connect_tracker(*address)
    except (OSError, RuntimeError) as error:
        raise DeviceError(
            f"there is no tracker: {error}",
            where=f"{address[0]}:{address[1]}",
            hint="python -m tvm.exec.rpc_tracker --host 127.0.0.1 --port 9190",
        ) from error
