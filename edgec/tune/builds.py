"""Candidates are compiled here: by long-lived processes, ahead of their being measured."""

from __future__ import annotations

import contextlib
import os
import queue
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from edgec.lower.build import Worker
from edgec.lower.worker import Request


@dataclass(frozen=True)
class Built:
    """The object of a candidate, the scratch memory a thread needs for it, or why there is none."""

    object: bytes
    scratch_bytes: int
    error: str
    seconds: float


_Asked = tuple[Request, Callable[[Built], None], Callable[[], bool]]


class Builds:
    """Processes that compile, each with a thread that hands it requests.

    A build that takes `limit_s` seconds or `memory_bytes` costs its process, which is replaced.
    """

    def __init__(self, jobs: int, limit_s: float, memory_bytes: int) -> None:
        self.jobs = max(1, jobs)
        self._limit_s = limit_s
        self._memory_bytes = memory_bytes
        self._cpus: frozenset[int] = frozenset()
        self._asked: queue.SimpleQueue[_Asked | None]
        self._asked = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._paused = 0
        self._workers: list[Worker] = []
        self._known: dict[int, frozenset[int]] = {}
        self._threads = [threading.Thread(target=self._serve, daemon=True) for _ in range(jobs)]
        for thread in self._threads:
            thread.start()

    def submit(
        self, request: Request, done: Callable[[Built], None], dropped: Callable[[], bool]
    ) -> None:
        """Compile `request`; `done` is called with what came of it, by another thread, unless
        `dropped` says by then that nobody waits for it."""
        self._asked.put((request, done, dropped))

    def keep_to(self, cpus: frozenset[int]) -> None:
        """From now on compile on these processors only; empty: on any."""
        self._cpus = cpus

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Compile nothing meanwhile."""
        self._pause(1)
        try:
            yield
        finally:
            self._pause(-1)

    def stop(self) -> None:
        """End all processes; what is being compiled is never done."""
        for _ in self._threads:
            self._asked.put(None)
        for worker in self._workers:
            worker.stop()

    def _pause(self, change: int) -> None:
        with self._lock:
            before, self._paused = self._paused, self._paused + change
            if (before == 0) == (self._paused == 0):
                return
            order = signal.SIGSTOP if self._paused else signal.SIGCONT
            for worker in self._workers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.pid, order)

    def _serve(self) -> None:
        worker = Worker()
        with self._lock:
            self._workers.append(worker)
        while (item := self._asked.get()) is not None and not worker.stopped:
            request, done, dropped = item
            if dropped():
                continue
            self._confine(worker.pid)
            started = time.monotonic()
            answer = worker.ask(request, self._limit_s)
            if worker.stopped:
                return
            seconds = time.monotonic() - started
            if not dropped():
                done(Built(answer.object, answer.scratch_bytes, answer.error, seconds))

    def _confine(self, pid: int) -> None:
        """Give a process its limits and its processors, where it has not got them yet."""
        if self._known.get(pid) == self._cpus or sys.platform != "linux":
            return
        with contextlib.suppress(OSError, ValueError):
            resource.prlimit(pid, resource.RLIMIT_AS, (self._memory_bytes, self._memory_bytes))
            os.sched_setaffinity(pid, self._cpus or os.sched_getaffinity(0))
        self._known[pid] = self._cpus
