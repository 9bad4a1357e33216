"""Boards behind TVM's RPC tracker: a real one, with real servers, on the loopback address."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from small_kernels import adds, reads_beyond

from edgec.errors import DeviceError, UsageError
from edgec.targets import host
from edgec.tune.measure import Effort, Measurer
from edgec.tune.rpc import fleet

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(
        importlib.util.find_spec("tornado") is None, reason="TVM's tracker needs tornado"
    ),
]
QUICK = Effort(bursts=4, burst_s=0.001, limit_s=1.0)


@dataclass(frozen=True)
class Fleet:
    """A tracker's address, and the processes of its servers."""

    address: str
    servers: list[subprocess.Popen[bytes]]


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    log = (tmp_path_factory.mktemp("rpc") / "log").open("wb")

    def start(stack: ExitStack, module: str, port: int, *words: str) -> subprocess.Popen[bytes]:
        ports = ["--port", str(port), "--port-end", str(port + 1)]
        command = [sys.executable, "-m", f"tvm.exec.{module}", "--host", "127.0.0.1", *ports]
        process = subprocess.Popen(
            [*command, *words], stdout=log, stderr=log, start_new_session=True
        )
        stack.callback(process.wait)
        stack.callback(lambda: _kill(process))
        return process

    with log, ExitStack() as stack:
        first, *others = _free_ports(4)
        start(stack, "rpc_tracker", first)
        _wait_for(first)
        address = f"127.0.0.1:{first}"
        servers = [
            start(stack, "rpc_server", port, "--tracker", address, "--key", "rack")
            for port in others
        ]
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                if len(fleet(address, "rack")) == len(servers):
                    break
            except DeviceError:
                time.sleep(0.2)
        yield Fleet(address, servers)


def _kill(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def test_servers_measure_side_by_side(tracked: Fleet) -> None:
    with Measurer(host(), fleet(tracked.address, "rack"), jobs=1, effort=QUICK) as measurer:
        results = []
        for _ in range(20):
            results += [measured for _, measured in measurer.measure(adds(), [{}] * 20, 1)]
            if len({measured.board for measured in results}) == 3:
                break
        assert {measured.error for measured in results} == {""}
        assert {measured.board for measured in results} == {"rack#1", "rack#2", "rack#3"}
        assert measurer.check(adds(), {}) == ""
        ((_, crashed),) = measurer.measure(reads_beyond(), [{}], 1)
        assert crashed.error == "crash: SIGSEGV"
        ((_, after),) = measurer.measure(adds(), [{}], 1)
        assert after.error == ""


def test_a_server_that_is_killed_is_done_without(tracked: Fleet) -> None:
    notes: list[str] = []
    boards = fleet(tracked.address, "rack")
    with Measurer(host(), boards, jobs=1, effort=QUICK, on_note=notes.append) as measurer:
        results = []
        for number, (_, measured) in enumerate(measurer.measure(adds(), [{}] * 400, 1)):
            results.append(measured)
            if number == 100:
                _kill(tracked.servers[0])
        assert len(results) == 400
        assert {measured.error for measured in results} == {""}
        assert len({measured.board for measured in results[200:]}) >= 2


def test_no_tracker_and_no_server_are_told(tracked: Fleet) -> None:
    with pytest.raises(DeviceError, match="no server called 'other'") as raised:
        fleet(tracked.address, "other")
    assert "rack" in raised.value.hint
    with pytest.raises(UsageError, match=r"is no HOST:PORT"):
        fleet("nowhere", "rack")


def test_a_library_is_built_for_servers(tmp_path: Path) -> None:
    from edgec.cache import Cache
    from edgec.tune.program import measuring_library

    library = tmp_path / "library.so"
    library.write_bytes(measuring_library(host(), Cache.default()))
    listed = subprocess.check_output(["nm", "-D", "--defined-only", library], text=True)
    assert sorted(line.split()[-1] for line in listed.splitlines()) == [
        "__tvm_ffi_edgec_measure",
        "__tvm_ffi_edgec_measured",
    ]
