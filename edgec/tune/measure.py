"""Candidates in, times out: built here, run on boards, both at once.

Builds run ahead of measuring. On a machine of many processors a kernel that runs on one thread is
measured on one of its own while the others compile; else the builds stand still meanwhile, which on
few processors is also the faster: a build takes several times what measuring does.
"""

from __future__ import annotations

import json
import os
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import tvm

from edgec.cache import Cache
from edgec.errors import TuningError
from edgec.lower.build import symbol_of
from edgec.lower.worker import Request
from edgec.targets import Target
from edgec.tune.boards import Board, Local
from edgec.tune.builds import Builds, Built
from edgec.tune.compare import difference
from edgec.tune.kernel import Buffer, Kernel
from edgec.tune.stations import Job, Measured, Station
from edgec.tune.wire import PATTERNS, Asked, Effort

__all__ = ["Buffer", "Decisions", "Effort", "Kernel", "Measured", "Measurer"]

Decisions = Mapping[str, int | str]
"""What the knobs of a schedule are set to; empty: the rule's own choice."""

BUILD_S = 30.0
BUILD_BYTES = 6 << 30
"""The most that compiling one candidate may take."""

_KEPT = 512
"""So many objects are kept, so that a candidate that is measured again is not built again."""
_SLOW = 3.0
"""A candidate that takes this many times what the best takes is called a few times only."""
_FOR_BUILDS = 3
"""With fewer processors left to them, builds lose more than they do by standing still."""
_CHECK_THREADS = 2
_CHECK = Effort(bursts=1, burst_s=0.0, cold_bytes=0)


class Measurer:
    """Builds and measures candidates of kernels for `target` on `boards`, until it is closed.

    `jobs` processes compile (None: one for each processor), `build_s` and `build_bytes` at most for
    each candidate. With several boards each measures what comes next. `on_note` is told, by other
    threads, of boards that are lost or come back.
    """

    def __init__(
        self,
        target: Target,
        boards: Sequence[Board] = (Local(),),
        jobs: int | None = None,
        effort: Effort | None = None,
        *,
        build_s: float = BUILD_S,
        build_bytes: int = BUILD_BYTES,
        cache: Cache | None = None,
        on_note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.target = target
        self._effort = effort or Effort()
        self._cpus = sorted(os.sched_getaffinity(0))
        self._builds = Builds(jobs or len(self._cpus), build_s, build_bytes)
        self._ready: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._best: dict[str, float] = {}
        self._objects: OrderedDict[tuple[str, str], Built] = OrderedDict()
        self._lock = threading.Lock()
        self._own: list[int] = []
        self._stations = [
            Station(
                board,
                self._own_cpu() if board.is_here else -1,
                target,
                cache or Cache.default(),
                self._ready,
                self._apart if board.is_here else lambda threads: nullcontext(),
                on_note,
            )
            for board in boards
        ]

    def __enter__(self) -> Measurer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all builds and leave all boards."""
        self._builds.stop()
        for station in self._stations:
            station.close()

    def threads(self) -> int:
        """How many threads every board can run at once; waits until all have said so.

        Raises:
            TuningError: no board is left.
        """
        while any(not station.threads and station.loss is None for station in self._stations):
            time.sleep(0.01)
        self._require_a_board()
        return min(station.threads for station in self._stations if station.threads)

    def measure(
        self, kernel: Kernel, candidates: Iterable[Decisions], threads: int
    ) -> Generator[tuple[Decisions, Measured]]:
        """The candidates with their times, as they come; failures are results too.

        `candidates` is read as far ahead as keeps builds and boards busy, so it may be a generator
        that learns from what came before. Nothing more is begun once the iterator is closed.

        Raises:
            TuningError: no board is left to measure on.
        """
        asked = ((decisions, Asked(threads)) for decisions in candidates)
        for decisions, _, measured in self._trials(kernel, asked, self._effort):
            yield decisions, measured

    def check(self, kernel: Kernel, decisions: Decisions) -> str:
        """How the candidate computes something else than the untuned kernel, on random and on
        awkward inputs; "" where it does not.

        Raises:
            TuningError: no board is left to run on, or the untuned kernel fails.
        """
        # What an output held before must not matter: both begin with other bytes.
        first, *others = (
            [
                ({}, Asked(_CHECK_THREADS, pattern=pattern, junk=0x55, outputs=True)),
                (decisions, Asked(_CHECK_THREADS, pattern=pattern, junk=0xAA, outputs=True)),
            ]
            for pattern in PATTERNS
        )
        for pairs in (first, [pair for rest in others for pair in rest]):
            wanted: dict[str, bytes] = {}
            found: dict[str, bytes] = {}
            for _, asked, measured in self._trials(kernel, pairs, _CHECK):
                is_rule = asked.junk == 0x55
                if measured.output is None and not is_rule:
                    return measured.error
                if measured.output is None:
                    raise TuningError(
                        f"the untuned kernel fails: {measured.error}",
                        where=f"kernel {kernel.name} on {asked.pattern} inputs",
                        hint="this is a fault of edgec: please report it with the model",
                    )
                (wanted if is_rule else found)[asked.pattern] = measured.output
            for pattern, output in found.items():
                wrong = difference(kernel, wanted[pattern], output)
                if wrong:
                    return f"wrong result on {pattern} inputs: {wrong}"
        return ""

    def _trials(
        self, kernel: Kernel, candidates: Iterable[tuple[Decisions, Asked]], effort: Effort
    ) -> Iterator[tuple[Decisions, Asked, Measured]]:
        symbol = symbol_of(kernel.function, kernel.overwrites)
        text = tvm.ir.save_json(kernel.function)
        results: queue.SimpleQueue[tuple[Decisions, Asked, Measured]] = queue.SimpleQueue()
        closed = threading.Event()

        def begin(decisions: Decisions, asked: Asked) -> None:
            key = (symbol, json.dumps(decisions, sort_keys=True))

            def built(built: Built) -> None:
                if built.error:
                    error = f"build: {built.error}"
                    results.put((decisions, asked, Measured(float("inf"), error=error)))
                    return
                with self._lock:
                    self._objects[key] = replace(built, seconds=0.0)
                    if len(self._objects) > _KEPT:
                        self._objects.popitem(last=False)
                self._ready.put(
                    Job(
                        kernel,
                        symbol,
                        built,
                        asked,
                        self._bounded(effort, symbol),
                        lambda measured: results.put((decisions, asked, measured)),
                        closed.is_set,
                    )
                )

            with self._lock:
                known = self._objects.get(key)
            if known is not None:
                built(known)
            else:
                request = Request(text, symbol, self.target, kernel.overwrites, dict(decisions))
                self._builds.submit(request, built, closed.is_set)

        waiting, more = 0, iter(candidates)
        ahead = self._builds.jobs + 2 * len(self._stations)
        try:
            while True:
                while waiting < ahead and (item := next(more, None)) is not None:
                    self._arrange(item[1].threads)
                    begin(*item)
                    waiting += 1
                if not waiting:
                    return
                decisions, asked, measured = self._next(results)
                waiting -= 1
                if not measured.error and not asked.outputs:
                    best = self._best.get(symbol, measured.seconds)
                    self._best[symbol] = min(best, measured.seconds)
                yield decisions, asked, measured
        finally:
            closed.set()

    def _next(
        self, results: queue.SimpleQueue[tuple[Decisions, Asked, Measured]]
    ) -> tuple[Decisions, Asked, Measured]:
        """What comes next; TuningError when nothing can come."""
        while True:
            try:
                return results.get(timeout=1.0)
            except queue.Empty:
                self._require_a_board()

    def _require_a_board(self) -> None:
        losses = [s.loss for s in self._stations if s.loss is not None]
        if len(losses) == len(self._stations):
            raise TuningError(
                "no board is left to measure on: "
                + "; ".join(f"{loss.where}: {loss.what}" for loss in losses),
                hint=next((loss.hint for loss in losses if loss.hint), ""),
            ) from losses[-1]

    def _bounded(self, effort: Effort, symbol: str) -> Effort:
        """No more time for a candidate than it can be worth."""
        best = self._best.get(symbol)
        if best is None:
            return effort
        limit = min(effort.limit_s, 1.0 + 4 * effort.bursts * (best + effort.burst_s))
        return replace(effort, cutoff_s=_SLOW * best, limit_s=limit)

    def _own_cpu(self) -> int:
        """A processor that nothing but one board's kernels use, if enough are left for builds."""
        free = self._cpus[_FOR_BUILDS : len(self._cpus) - len(self._own)]
        if not free:
            return -1
        self._own.append(free[-1])
        return free[-1]

    def _arrange(self, threads: int) -> None:
        apart = self._own if threads == 1 else []
        self._builds.keep_to(frozenset(self._cpus) - frozenset(apart))

    def _apart(self, threads: int) -> AbstractContextManager[None]:
        return nullcontext() if threads == 1 and self._own else self._builds.paused()
