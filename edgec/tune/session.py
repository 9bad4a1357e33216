"""The trials of one tuning run: batch after batch, each for the task that promises most.

Every result is in the store before the next is asked for, so a run may end at any moment. A
candidate that seems faster than the best so far, the incumbent, is measured against it once more,
in alternation, and what it computes is compared with the rule's results: only then is it the
incumbent, and its record confirmed.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from edgec.errors import TuningError
from edgec.tune.duel import duel
from edgec.tune.known import Decisions, Known, as_text
from edgec.tune.measure import Measured, Measurer
from edgec.tune.origin import Origin
from edgec.tune.records import Store
from edgec.tune.report import Found, TaskReport
from edgec.tune.scheduler import Share, best_promise, latency
from edgec.tune.search import Search
from edgec.tune.space import Space
from edgec.tune.task import Task, Tasks

RULE: Decisions = {}
FIRST_BATCH, BATCH = 8, 16
"""Candidates that a task is given in one turn: the first time, and later."""
AT_ONCE = 4
"""Of these so many are proposed together."""
WON = 0.995
"""A candidate is the next incumbent if, in alternation, it takes at most this share of its time."""

OnEvent = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Budget:
    """When to stop: after `seconds`, or when so many `trials` of the model are known; None is no
    limit."""

    seconds: float | None = None
    trials: int | None = None


@dataclass
class _Line:
    """One task in the course of a run.

    `best` are the incumbent's decisions; `share.ratio` is its time over the rule's. `rule_s` is the
    rule's time in this session, None until it was measured. `rivals` has the seconds of candidates
    that were not measured against the incumbent yet. `search` is made when it is first needed.
    """

    task: Task
    known: Known
    share: Share
    best: Decisions
    trials: int
    rule_s: float | None = None
    rivals: dict[str, tuple[float, Decisions]] = field(default_factory=dict)
    search: Search | None = None


class Session:
    """A run over the tasks of one model. `run` may be interrupted: `found` is what it found by
    then."""

    def __init__(
        self,
        tasks: Tasks,
        origin: Origin,
        measurer: Measurer,
        store: Store,
        budget: Budget,
        on_event: OnEvent,
    ) -> None:
        self._origin = origin
        self._measurer = measurer
        self._store = store
        self._budget = budget
        self._on_event = on_event
        self._rest = tasks.rest
        records = store.read([task.key for task in tasks.chosen]).records
        self._lines: list[_Line] = []
        for task in tasks.chosen:
            mine = [each for each in records if each.key == origin.key(task)]
            known = Known(mine, origin.machine)
            best, ratio = known.incumbent()
            self._lines.append(_Line(task, known, Share(task.seconds, ratio), best, len(known)))
        self._start_s = tasks.rest + sum(task.seconds for task in tasks.chosen)
        self._known = sum(map(len, (line.known for line in self._lines)))
        self._trials = self._failed = 0
        self._reasons: Counter[str] = Counter()
        self._started = time.monotonic()
        self._curve = [(0.0, self._latency())]

    def run(self) -> None:
        """Try candidates until the budget is spent or nothing is left to try."""
        self._started = time.monotonic()
        shares = [line.share for line in self._lines]
        while not self._over() and (place := best_promise(shares)) is not None:
            started, line = time.monotonic(), self._lines[place]
            line.search = line.search or self._begin(line)
            if line.search is None:
                line.share.open = False
                continue
            self._batch(place, line, line.search)
            ratio = self._duels(line, line.search) if line.rule_s else line.share.ratio
            line.share.learn(ratio, time.monotonic() - started)
            self._curve.append((self._elapsed(), self._latency()))

    @property
    def found(self) -> Found:
        """The outcome so far."""
        return Found(
            tasks=[
                TaskReport(
                    line.task.label,
                    line.task.kernel.name,
                    line.task.seconds,
                    line.share.left,
                    line.trials,
                )
                for line in self._lines
            ],
            rest_s=self._rest,
            trials=self._trials,
            failed=self._failed,
            known=self._known,
            known_valid=sum(line.known.valid for line in self._lines),
            seconds=self._elapsed(),
            curve=list(self._curve),
            reasons=self._reasons,
        )

    def _begin(self, line: _Line) -> Search | None:
        """A search that knows what the records say; measures the rule again if it is among them.
        None where the kernel cannot be tuned."""
        try:
            space = Space(line.task.kernel.function, self._origin.target)
        except TuningError as error:
            self._on_event({"event": "note", "text": f"{line.task.label}: {error.what}"})
            return None
        search = Search(space, self._origin.seed)
        if not line.known:
            return search
        for _, measured in self._measurer.measure(line.task.kernel, [RULE], self._origin.threads):
            if not measured.error:
                line.rule_s = measured.seconds
                self._append(line, RULE, seconds=measured.seconds, valid=True)
        for decisions, ratio in line.known.outcomes():
            search.tell(decisions, None if ratio is None else ratio * (line.rule_s or 1.0))
        return search

    def _batch(self, place: int, line: _Line, search: Search) -> None:
        before = line.trials
        candidates = self._candidates(line, search)
        results = self._measurer.measure(line.task.kernel, candidates, self._origin.threads)
        with contextlib.closing(results):
            for decisions, measured in results:
                self._keep(line, search, decisions, measured)
                self._tell(place, line, measured)
                if self._over():
                    break
        if line.trials == before or line.rule_s is None:
            line.share.open = False

    def _candidates(self, line: _Line, search: Search) -> Iterator[Decisions]:
        """A batch, proposed a few at a time, so that later ones know of earlier ones' times. What
        won on other kernels comes first."""
        for other in self._lines:
            if other is not line and other.best != RULE:
                search.advise(other.best)
        left = BATCH if line.share.batches else FIRST_BATCH
        if self._budget.trials is not None:
            left = min(left, self._budget.trials - self._known - self._trials)
        while left > 0 and (candidates := search.propose(min(left, AT_ONCE))):
            yield from candidates
            left -= len(candidates)

    def _keep(self, line: _Line, search: Search, decisions: Decisions, measured: Measured) -> None:
        """Write down the outcome of a trial."""
        line.trials += 1
        self._trials += 1
        if measured.error:
            self._failed += 1
            self._reasons[measured.error.splitlines()[0][:120]] += 1
            self._append(line, decisions, seconds=None, valid=False)
            search.tell(decisions, None)
            return
        if not decisions:
            line.rule_s = measured.seconds
        else:
            line.rivals[as_text(decisions)] = measured.seconds, decisions
        self._append(line, decisions, seconds=measured.seconds, valid=True, spread=measured.spread)
        search.tell(decisions, measured.seconds)

    def _duels(self, line: _Line, search: Search) -> float:
        """Measure what seems faster than the incumbent against it; the incumbent's time over the
        rule's then."""
        ratio, rule_s = line.share.ratio, line.rule_s or 0.0
        while line.rivals:
            text = min(line.rivals, key=lambda text: line.rivals[text][0])
            seconds, decisions = line.rivals.pop(text)
            if seconds > WON * ratio * rule_s:
                break
            kernel = line.task.kernel
            share = duel(self._measurer, kernel, decisions, line.best, self._origin.threads)
            won = share <= WON
            problem = self._measurer.check(kernel, decisions) if won else ""
            if problem:
                self._failed += 1
                self._reasons[problem] += 1
                self._append(line, decisions, seconds=None, valid=False)
                search.tell(decisions, None)
            elif share < math.inf:
                seconds = share * ratio * rule_s
                self._append(line, decisions, seconds=seconds, valid=True, confirmed=won)
                search.tell(decisions, seconds)
            if won and not problem:
                ratio, line.best = share * ratio, decisions
            if self._over():
                break
        return ratio

    def _append(self, line: _Line, decisions: Decisions, **facts: Any) -> None:
        record = self._origin.record(line.task, decisions, baseline=line.rule_s, **facts)
        self._store.append(record)

    def _tell(self, place: int, line: _Line, measured: Measured) -> None:
        """Say how far the run is."""
        left = self._budget.seconds
        elapsed = self._elapsed()
        self._on_event(
            {
                "event": "tuning",
                "task": place,
                "task_trials": line.trials,
                "us": None if measured.error else 1e6 * measured.seconds,
                "error": measured.error,
                "ratio": line.share.ratio,
                "trials": self._trials,
                "valid": self._trials - self._failed,
                "failed": self._failed,
                "trials_per_second": self._trials / elapsed,
                "seconds_left": None if left is None else max(left - elapsed, 0.0),
                "start_ms": 1e3 * self._start_s,
                "best_ms": 1e3 * self._latency(),
            }
        )

    def _latency(self) -> float:
        """Seconds of a run of the model by the incumbents, estimated."""
        return latency([line.share for line in self._lines], self._rest)

    def _elapsed(self) -> float:
        return time.monotonic() - self._started

    def _over(self) -> bool:
        seconds, trials = self._budget.seconds, self._budget.trials
        return (seconds is not None and self._elapsed() >= seconds) or (
            trials is not None and self._known + self._trials >= trials
        )
