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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from edgec import engines
from edgec.engines import Array
from edgec.errors import DeviceError

NO_TELEMETRY = {"ORT_DISABLE_TELEMETRY": "1"}
"""ONNX Runtime otherwise reports its use over the network, and leaves a file in the temporary
folder."""


class EngineError(DeviceError):
    """An engine cannot compile, load or run a model, or its process died."""


IREE_OPTIONS = (
    "--iree-input-type=onnx",
    "--iree-hal-target-device=local",
    "--iree-hal-local-target-device-backends=llvm-cpu",
    "--iree-llvmcpu-target-cpu=host",
    "--iree-opt-level=O3",
)


def compile_iree(model: Path, folder: Path) -> Path:
    """`model` compiled by IREE for this CPU, in `folder`. `EngineError` where it cannot be."""
    imported, compiled = folder / f"{model.stem}.mlir", folder / f"{model.stem}.vmfb"
    for tool, *arguments in (
        ("import_onnx", model, "--opset-version", "17", "-o", imported),
        ("scripts.iree_compile", imported, *IREE_OPTIONS, "-o", compiled),
    ):
        done = subprocess.run(
            [sys.executable, "-m", f"iree.compiler.tools.{tool}", *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            reason = next((line for line in said if "error:" in line), said[-1])
            raise EngineError(f"{tool}: {reason}", where="iree")
    return compiled


@dataclass(frozen=True)
class Peer:
    """A runtime that edgec is measured against.

    `title` is its name for people; `modules` are imported, `packages` (of PyPI) provide them, the
    first one has the version. `prepare` compiles a model into a folder, where that comes first,
    with `options`.
    """

    name: str
    title: str
    modules: tuple[str, ...]
    packages: tuple[str, ...]
    prepare: Callable[[Path, Path], Path] | None = None
    options: tuple[str, ...] = ()

    @property
    def installed(self) -> bool:
        """Whether this Python can import it (it is not imported)."""
        try:
            return all(importlib.util.find_spec(module) is not None for module in self.modules)
        except ModuleNotFoundError:
            return False

    @property
    def pip(self) -> str:
        """The command that installs it."""
        return "pip install " + " ".join(self.packages)

    def version(self) -> str:
        """Its installed version."""
        return importlib.metadata.version(self.packages[0])

    def disk_bytes(self) -> int:
        """What its installed files take, in bytes; of a compiler, its runtime's."""
        files = importlib.metadata.files(self.packages[0]) or ()
        paths = (Path(str(file.locate())) for file in files)
        return sum(path.stat().st_size for path in paths if path.is_file())


PEERS = {
    peer.name: peer
    for peer in (
        Peer("onnxruntime", "ONNX Runtime", ("onnxruntime",), ("onnxruntime",)),
        Peer("openvino", "OpenVINO", ("openvino",), ("openvino",)),
        Peer(
            "iree",
            "IREE",
            ("iree.runtime", "iree.compiler"),
            ("iree-base-runtime", "iree-base-compiler[onnx]"),
            compile_iree,
            IREE_OPTIONS,
        ),
    )
}


class EngineProcess:
    """One engine in a process of its own; use it as a context manager.

    The process dies with the thread that started it, ignores Ctrl-C (closing ends it) and may be
    stopped while others are measured. Every request raises `EngineError` where the engine fails, or
    takes longer than `limit_s` seconds. `environment` is added to the process's own.
    """

    def __init__(
        self,
        engine: str,
        limit_s: float | None = None,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.engine = engine
        self.limit_s = limit_s
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-P", engines.__file__],
            env={**os.environ, **NO_TELEMETRY, **environment},
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
            if self.limit_s is not None and time.monotonic() - start >= self.limit_s:
                what = f"ran past its limit of {self.limit_s:g} s in {do}"
            else:
                what = self._last_words(do)
            raise EngineError(what, where=self.engine) from error
        if "error" in header:
            raise EngineError(header["error"], where=self.engine)
        return header, results

    @contextlib.contextmanager
    def _limited(self) -> Iterator[None]:
        """Kill the process when the limit passes before the block ends."""
        if self.limit_s is None:
            yield
            return
        timer = threading.Timer(self.limit_s, self._process.kill)
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
