"""Engines as processes: which are installed, and a handle to start, stop, resume and ask one."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from edgec import engines
from edgec.engines import Array
from edgec.errors import DeviceError


@dataclass(frozen=True)
class Peer:
    """A runtime that edgec is measured against: `title` for people, `package` on PyPI."""

    name: str
    title: str
    package: str

    @property
    def installed(self) -> bool:
        """Whether this Python can import it (it is not imported)."""
        return importlib.util.find_spec(self.name) is not None

    @property
    def pip(self) -> str:
        """The command that installs it."""
        return f"pip install {self.package}"

    def version(self) -> str:
        """Its installed version."""
        return importlib.metadata.version(self.package)

    def disk_bytes(self) -> int:
        """What its installed files take, in bytes."""
        files = importlib.metadata.files(self.package) or ()
        paths = (Path(str(file.locate())) for file in files)
        return sum(path.stat().st_size for path in paths if path.is_file())


PEERS = {
    peer.name: peer
    for peer in (
        Peer("onnxruntime", "ONNX Runtime", "onnxruntime"),
        Peer("openvino", "OpenVINO", "openvino"),
    )
}


class EngineError(DeviceError):
    """An engine cannot load or run a model, or its process died."""


class EngineProcess:
    """One engine in a process of its own; use it as a context manager.

    The process dies with its parent, ignores Ctrl-C (the parent ends it) and may be stopped while
    others are measured. Every request raises `EngineError` where the engine fails, or takes longer
    than `limit_s` seconds.
    """

    def __init__(self, engine: str, limit_s: float | None = None) -> None:
        self.engine = engine
        self._limit_s = limit_s
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-P", engines.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            process_group=0,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def load(self, path: str | os.PathLike[str], threads: int, **options: Any) -> dict[str, Any]:
        """Import the engine and create the model; see `engines` for options and reply."""
        args = {
            "engine": self.engine,
            "path": os.fspath(path),
            "threads": threads,
            "options": options,
        }
        return self._ask("load", args)[0]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs."""
        return self._ask("run", arrays=inputs)[1]

    def timed_run(self, inputs: Mapping[str, Array]) -> tuple[dict[str, Array], float]:
        """The outputs, and the seconds the run took."""
        header, outputs = self._ask("run", arrays=inputs)
        return outputs, float(header["seconds"])

    def bind(self, inputs: Mapping[str, Array]) -> None:
        """Fix the buffers of all bursts."""
        self._ask("bind", arrays=inputs)

    def burst(self, calls: int, rest_s: float) -> list[int]:
        """Nanoseconds of each of `calls` calls made after `rest_s` seconds of rest."""
        times: list[int] = self._ask("burst", {"calls": calls, "rest_s": rest_s})[0]["ns"]
        return times

    def memory(self) -> tuple[int, int]:
        """(resident now, resident before the engine was imported), bytes."""
        header, _ = self._ask("memory")
        return int(header["resident"]), int(header["baseline"])

    def stop(self) -> None:
        """Stop the process where it stands, and wait until it does."""
        self._signal(signal.SIGSTOP)
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Let a stopped process go on."""
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """End the process, stopped or not, and reap it."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                stream.close()  # type: ignore[union-attr]
        self._stderr.close()

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def _ask(
        self,
        do: str,
        args: Mapping[str, Any] | None = None,
        arrays: Mapping[str, Array] | None = None,
    ) -> tuple[dict[str, Any], dict[str, Array]]:
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None or stdin.closed:
            raise EngineError("the process was ended", where=self.engine)
        start = time.monotonic()
        try:
            with self._limited():
                engines.send(stdin, {"do": do, "args": args or {}}, arrays or {})
                header, results = engines.receive(stdout)
        except (EOFError, BrokenPipeError) as error:
            if self._limit_s is not None and time.monotonic() - start >= self._limit_s:
                what = f"ran past its limit of {self._limit_s:g} s in {do}"
            else:
                what = self._last_words(do)
            raise EngineError(what, where=self.engine) from error
        if "error" in header:
            raise EngineError(header["error"], where=self.engine)
        return header, results

    @contextlib.contextmanager
    def _limited(self) -> Iterator[None]:
        """Kill the process when the limit passes before the block ends."""
        if self._limit_s is None:
            yield
            return
        timer = threading.Timer(self._limit_s, self._process.kill)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _last_words(self, do: str) -> str:
        status = self._process.wait()
        cause = signal.Signals(-status).name if status < 0 else f"exit code {status}"
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        return f"the process died ({cause}) in {do}" + "".join(f"\n  {line}" for line in lines[-5:])
