"""Two candidates measured against each other, in alternation, so that both see the same machine."""

from __future__ import annotations

import math
from collections import defaultdict
from statistics import median

from edgec.tune.known import Decisions, as_text
from edgec.tune.measure import Kernel, Measurer

ROUNDS = 3


def duel(
    measurer: Measurer, kernel: Kernel, rival: Decisions, incumbent: Decisions, threads: int
) -> float:
    """The time of `rival` over that of `incumbent`; infinite where it fails, or no board measured
    both."""
    turns = [rival, incumbent, incumbent, rival] * ROUNDS
    times: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for decisions, measured in measurer.measure(kernel, turns[: 2 * ROUNDS], threads):
        if not measured.error:
            times[measured.board][as_text(decisions)].append(measured.seconds)
    ratios = [
        median(found[as_text(rival)]) / median(found[as_text(incumbent)])
        for found in times.values()
        if len(found) == 2
    ]
    return median(ratios) if ratios else math.inf
