"""Two candidates measured against each other, in alternation, so that both see the same machine."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np

from edgec.tune.known import Decisions, as_text
from edgec.tune.measure import Kernel, Measurer

ROUNDS = 4
SURE = 0.75
"""Of the rounds, this share says at least what `duel` does in favour of the rival."""


def duel(
    measurer: Measurer, kernel: Kernel, rival: Decisions, incumbent: Decisions, threads: int
) -> float:
    """The time of `rival` over that of `incumbent`, a cautious estimate: no luck makes it small.

    It is infinite where the rival fails, or no board measured both.
    """
    turns = [rival, incumbent, incumbent, rival]
    times: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    ratios: list[float] = []
    for _ in range(ROUNDS // 2):
        for decisions, measured in measurer.measure(kernel, turns, threads):
            if not measured.error:
                times[measured.board][as_text(decisions)].append(measured.seconds)
        ratios = [
            mine / other
            for found in times.values()
            for mine, other in zip(found[as_text(rival)], found[as_text(incumbent)], strict=False)
        ]
        if min(ratios, default=math.inf) > 1.0:
            break
    return float(np.quantile(ratios, SURE)) if ratios else math.inf
