"""Which task the next batch of trials goes to: where it is likely to gain the model most a second.

What a batch gains a task is not known before. The scheduler expects a part of what the task's last
batches gained it, and never less than a share that shrinks with every batch: so every task has its
turn soon, one that was unlucky is tried again, one that still improves is stayed with, and in the
long run a task gets the more batches the more time it takes of the model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

HOPE = 0.3
"""What of its own time a task is expected to lose by its first batch."""
DECAY = 1.5
"""The expectation falls with this power of the number of batches."""
MEMORY, AGAIN = 2, 0.25
"""Of the mean gain of so many batches this part is expected of the next one."""
SECONDS_A_BATCH = 3.0
"""What a batch is thought to take before the first one is over."""


@dataclass
class Share:
    """One task's part in the model's time, and what its batches brought.

    `seconds` is the time of a run of the model that the task takes by its rule, `ratio` what is
    left of it by the best decisions known. `batches` has the gain of each, as a share of what was
    left before, `spent` their seconds in all. `open` is false once there is nothing more to try.
    """

    seconds: float
    ratio: float = 1.0
    batches: list[float] = field(default_factory=list)
    spent: float = 0.0
    open: bool = True

    @property
    def left(self) -> float:
        """Seconds of a run of the model that the task takes by the best decisions known."""
        return self.seconds * self.ratio

    def learn(self, ratio: float, spent: float) -> None:
        """A batch took `spent` seconds; `ratio` is what is left after it."""
        self.batches.append(max(1.0 - ratio / self.ratio, 0.0))
        self.ratio = ratio
        self.spent += spent

    def promise(self) -> float:
        """Seconds of a run of the model that the next batch may gain, a second spent on it."""
        done = len(self.batches)
        recent = self.batches[-MEMORY:]
        again = AGAIN * sum(recent) / len(recent) if recent else 0.0
        expected = max(HOPE / math.pow(1 + done, DECAY), again)
        cost = self.spent / done if done else SECONDS_A_BATCH
        return self.left * expected / max(cost, 1e-3)


def best_promise(shares: Sequence[Share]) -> int | None:
    """The position of the open task that promises most, the first of equals; None if all are
    closed."""
    open_ = [place for place, share in enumerate(shares) if share.open]
    return max(open_, key=lambda place: shares[place].promise(), default=None)


def latency(shares: Sequence[Share], rest: float) -> float:
    """Seconds of a run of the model by the best decisions known; `rest` is outside of all tasks."""
    return sum(share.left for share in shares) + rest
