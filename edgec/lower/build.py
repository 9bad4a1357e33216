"""Building kernels in parallel processes, under a time limit, each distinct kernel once."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, cast

import tvm
import tvm_ffi
from tvm import tirx

from edgec.cache import Cache, key_of, tool_digest
from edgec.emit.cuda_nvrtc import nvrtc
from edgec.errors import LoweringError
from edgec.lower.kernels import CompiledKernel
from edgec.lower.worker import Answer, Request, receive, send
from edgec.targets import Target

TIME_LIMIT = 120.0
"""Seconds one kernel may take; a schedule that unrolls too much can keep TVM busy for minutes."""

_PACKAGE_ROOT = str(Path(__file__).resolve().parents[2])

_BY_RULE: Mapping[str, Mapping[str, int | str]] = {}

Progress = Callable[[int, int, str], None]
"""Called with kernels done, kernels in all, and the name of the one just finished."""


@dataclass(frozen=True)
class Build:
    """The compiled kernels by name, how many of them came from the cache, and why those failed that
    were compiled by the rules after all."""

    kernels: dict[str, CompiledKernel]
    cached: int
    refused: dict[str, str] = field(default_factory=dict)


class Builders:
    """A pool of worker processes, started at once so that they load TVM while the caller works."""

    def __init__(self, jobs: int) -> None:
        self._workers = [Worker() for _ in range(max(1, jobs))]

    def __enter__(self) -> Builders:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.stop()

    def build(
        self,
        kernels: dict[str, tirx.PrimFunc],
        overwrites: Mapping[str, tuple[int, int]],
        target: Target,
        cache: Cache,
        progress: Progress | None = None,
        decisions: Mapping[str, Mapping[str, int | str]] = _BY_RULE,
        *,
        gpu: bool = False,
    ) -> Build:
        """Compile `kernels`, taking from `cache` what is there.

        `overwrites` has (input, output) parameters of those that write an output where an input
        was, `decisions` the knobs of those whose schedule is not all the rule's
        (`edgec.targets.cpu.knobs`). The object of a kernel defines the symbol that `symbol_of`
        gives. A kernel that does not compile by its decisions is compiled by the rule. With `gpu`
        they are compiled for the target's GPU: then what stands for an object is a packed
        `edgec.emit.cuda_kernel.CudaKernel`.

        Raises:
            LoweringError: kernels that fail to compile or exceed the time limit, all of them.
        """
        done: dict[str, CompiledKernel] = {}
        jobs: queue.SimpleQueue[tuple[str, str, Request]] = queue.SimpleQueue()
        for name, function in kernels.items():
            request = Request(
                tvm.ir.save_json(function),
                symbol_of(function, overwrites.get(name)),
                target,
                overwrites.get(name),
                decisions.get(name, {}),
                gpu,
            )
            key = _key(function, request)
            found = cache.get("kernel", key)
            if found is not None:
                done[name] = _unpack(found)
            else:
                jobs.put((name, key, request))
        cached = len(done)
        failures: dict[str, str] = {}
        refused: dict[str, str] = {}
        lock = threading.Lock()

        def drain(worker: Worker) -> None:
            while not worker.stopped:
                try:
                    name, key, request = jobs.get_nowait()
                except queue.Empty:
                    return
                answer = worker.ask(request)
                if answer.error and request.decisions and not (gpu or worker.stopped):
                    refused[name] = answer.error
                    request = replace(request, decisions={})
                    key = _key(kernels[name], request)
                    answer = worker.ask(request)
                with lock:
                    if worker.stopped:
                        return
                    if answer.error:
                        failures[name] = answer.error
                    else:
                        done[name] = CompiledKernel(answer.object, answer.scratch_bytes)
                        cache.put("kernel", key, _pack(done[name]))
                    if progress:
                        progress(len(done) + len(failures), len(kernels), name)

        threads = [threading.Thread(target=drain, args=(w,), daemon=True) for w in self._workers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for worker in self._workers:
            worker.renew()
        if failures:
            first = next(iter(failures.values()))
            raise LoweringError(
                f"{len(failures)} of {len(kernels)} kernels do not compile: {first}",
                where="kernel " + ", ".join(failures),
                hint="this is a fault of edgec: please report it with the model",
            )
        return Build(done, cached, refused)


class Worker:
    """One worker process, replaced when it dies or takes too long, until it is stopped.

    `stop` may come from another thread than `ask`, as it does after Ctrl-C.
    """

    def __init__(self) -> None:
        self.stopped = False
        self._replaced = False
        self._lock = threading.Lock()
        self._process = self._start()

    @staticmethod
    def _start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-P", "-c", "from edgec.lower.worker import main; main()"],
            env=os.environ | {"PYTHONPATH": os.pathsep.join([_PACKAGE_ROOT, *_python_path()])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Ctrl-C is not for it. When this process dies, the kernel wakes and ends a group of the
            # same session that was stopped: one of its own session would stay.
            process_group=0,
        )

    @property
    def pid(self) -> int:
        """The process that answers now."""
        return self._process.pid

    def ask(self, request: Request, limit_s: float | None = None) -> Answer:
        """Send a request and wait for its answer, for `limit_s` seconds at most, by default
        `TIME_LIMIT`."""
        late = threading.Event()

        def give_up() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(TIME_LIMIT if limit_s is None else limit_s, give_up)
        timer.start()
        started = time.monotonic()
        try:
            send(cast(BinaryIO, self._process.stdin), request)
            answer = receive(cast(BinaryIO, self._process.stdout))
        except (OSError, ValueError):  # the process died, or its pipes were closed
            answer = None
        finally:
            timer.cancel()
        if isinstance(answer, Answer):
            return answer
        code = self._process.wait()
        with self._lock:
            if not self.stopped:
                self._end()
                self._process = self._start()
                self._replaced = True
        if late.is_set():
            return Answer(error=f"took longer than {time.monotonic() - started:.0f} s")
        return Answer(error=f"the compiler process ended with status {code}")

    def renew(self) -> None:
        """Replace a process that `ask` started: it dies with the thread that called that."""
        with self._lock:
            if self._replaced and not self.stopped:
                self._end()
                self._process = self._start()
            self._replaced = False

    def stop(self) -> None:
        """End the process for good."""
        with self._lock:
            self.stopped = True
            self._end()

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                stream.close()


def symbol_of(function: tirx.PrimFunc, overwrites: tuple[int, int] | None = None) -> str:
    """The symbol a kernel's object defines: the same for the same kernel in every model."""
    return f"k{key_of(_structure(function), overwrites)[:16]}"


def kernel_key(function: tirx.PrimFunc) -> str:
    """What a kernel is known by, in every model and session: a digest of its structure."""
    return key_of(_structure(function))


def _structure(function: tirx.PrimFunc) -> tuple[object, ...]:
    signature = [(str(b.dtype), [int(size) for size in b.shape]) for b in function.params]
    return tvm_ffi.structural_hash(function), signature


def _key(function: tirx.PrimFunc, request: Request) -> str:
    tool = tool_digest("lower", "targets")
    decided = [sorted(request.decisions.items())] if request.decisions else []
    target = request.target
    on_gpu: list[object] = []
    if request.gpu:
        on_gpu = ["gpu", tool_digest("emit"), nvrtc(target.cuda, target.cuda_path).version]
    return key_of(_structure(function), target, request.overwrites, tool, *decided, *on_gpu)


def _python_path() -> list[str]:
    return [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]


def _pack(kernel: CompiledKernel) -> bytes:
    return kernel.scratch_bytes.to_bytes(8, "little") + kernel.object


def _unpack(data: bytes) -> CompiledKernel:
    return CompiledKernel(data[8:], int.from_bytes(data[:8], "little"))
