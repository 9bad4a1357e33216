"""A station measures on one board, as long as the board is there."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import numpy as np

from edgec.cache import Cache
from edgec.errors import DeviceError, EdgecError, LoweringError
from edgec.targets import Target
from edgec.tune.boards import Board
from edgec.tune.builds import Built
from edgec.tune.connection import Connection
from edgec.tune.image import link
from edgec.tune.kernel import Kernel
from edgec.tune.wire import Asked, Effort, Outcome, read_outcome, trial_request

STEADY = 0.05
"""Times that spread more than this are taken again, and all count."""
AGAIN = 2
"""How often at most."""
RETURNS_S = (1.0, 4.0, 10.0)
"""A board that is lost is looked for after these pauses, then given up."""
_LOSSES = 2
"""A candidate that was being measured when so many boards were lost is held to be the cause."""
_GRACE_S = 20.0
_LEAVE_S = 2.0


@dataclass(frozen=True)
class Cost:
    """Seconds that a trial took, by part. `transfer` is all that no other part accounts for."""

    build: float = 0.0
    link: float = 0.0
    transfer: float = 0.0
    prepare: float = 0.0
    run: float = 0.0


@dataclass(frozen=True)
class Measured:
    """What a trial came to.

    `seconds` is the lower quartile of the times a call took, burst by burst (infinite if it
    failed), `spread` the distance to the upper one, as a part of it. `error` begins with what went
    wrong: build, link, crash, hang, memory. `output` has the bytes of the outputs, one after the
    other, where they were asked for.
    """

    seconds: float
    spread: float = 0.0
    error: str = ""
    output: bytes | None = None
    board: str = ""
    cost: Cost = Cost()


@dataclass
class Job:
    """A candidate to be measured; `done` is called with the result, by another thread, unless
    `dropped` says by then that nobody waits for it."""

    kernel: Kernel
    symbol: str
    built: Built
    asked: Asked
    effort: Effort
    done: Callable[[Measured], None]
    dropped: Callable[[], bool]
    losses: int = 0


class Station:
    """A board with the thread that takes jobs for it from a queue.

    `apart` keeps builds away from a measurement on so many threads. `on_note` is told of losses.
    `threads` is how many the board can run at once, 0 as long as that is not known.
    """

    def __init__(
        self,
        board: Board,
        cpu: int,
        target: Target,
        cache: Cache,
        jobs: queue.SimpleQueue[Job | None],
        apart: Callable[[int], AbstractContextManager[None]],
        on_note: Callable[[str], None],
    ) -> None:
        self.board = board
        self.loss: EdgecError | None = None
        self.threads = 0
        self._cpu = cpu
        self._target = target
        self._cache = cache
        self._jobs = jobs
        self._apart = apart
        self._on_note = on_note
        self._connection = Connection(board)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Leave the board; what is being measured there is never done."""
        self._closing.set()
        self._jobs.put(None)
        self._connection.end()
        self._thread.join(_LEAVE_S)

    def _serve(self) -> None:
        try:
            self._host = self._connection.start(self._target, self._cache)
            self.threads = self._host.threads
            while (job := self._jobs.get()) is not None and not self._closing.is_set():
                if not job.dropped():
                    self._take(job)
        except EdgecError as error:
            self.loss = error
            if not self._closing.is_set():
                self._on_note(f"board lost: {error.where or self.board.name}: {error.what}")
        finally:
            self._connection.close()

    def _take(self, job: Job) -> None:
        """Measure a job; DeviceError when the board is lost for good, the job put back."""
        try:
            measured = self._measure(job)
        except DeviceError as error:
            job.losses += 1
            if job.losses < _LOSSES:
                self._jobs.put(job)
            else:
                job.done(Measured(math.inf, error=f"crash: boards were lost with it: {error.what}"))
            self._return(error)
        except LoweringError as error:
            job.done(Measured(math.inf, error=f"link: {error.what}"))
        else:
            job.done(measured)

    def _return(self, error: DeviceError) -> None:
        """Connect again, or raise what the board was lost by."""
        for pause in RETURNS_S:
            self._connection.close()
            if self._closing.wait(pause):
                break
            self._connection = Connection(self.board)
            try:
                self._host = self._connection.start(self._target, self._cache)
            except DeviceError as another:
                error = another
            else:
                self._on_note(f"board back: {self.board.name}, after: {error.what}")
                return
        raise error

    def _measure(self, job: Job) -> Measured:
        started = time.perf_counter()
        image = link(job.built.object, job.symbol, self._host.imports)
        cost = Cost(job.built.seconds, time.perf_counter() - started)
        cpu = self._cpu if job.asked.threads == 1 else -1
        asked = replace(job.asked, cpu=cpu)
        request = trial_request(job.kernel, image, job.built.scratch_bytes, asked, job.effort)
        times: list[float] = []
        for _ in range(1 + AGAIN):
            outcome, transfer = self._ask(request, job)
            cost = replace(
                cost,
                transfer=cost.transfer + transfer,
                prepare=cost.prepare + outcome.prepare_s,
                run=cost.run + outcome.run_s,
            )
            if outcome.error:
                return Measured(math.inf, error=outcome.error, board=self.board.name, cost=cost)
            times += outcome.seconds
            low, high = np.quantile(times, (0.25, 0.75))
            spread = float(high / low) - 1.0
            slow = 0 < job.effort.cutoff_s < low
            if spread <= STEADY or slow or job.asked.outputs:
                break
        output = outcome.outputs if job.asked.outputs else None
        return Measured(float(low), spread, "", output, self.board.name, cost)

    def _ask(self, request: bytes, job: Job) -> tuple[Outcome, float]:
        """One answer, and the seconds its way took."""
        with self._apart(job.asked.threads):
            started = time.perf_counter()
            answer = self._connection.ask(request, job.effort.limit_s + _GRACE_S)
            took = time.perf_counter() - started
        outcome = read_outcome(answer, job.effort.bursts)
        return outcome, took - outcome.prepare_s - outcome.run_s
