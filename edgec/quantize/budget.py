"""A limit to what quantization may cost in accuracy, kept by raising layers on a ladder.

    measure float -> quantize all -> rank steps -> take the first, ever more -> fewer

A step makes a layer more exact (`edgec.quantize.ladder`). Steps are ranked by the error that goes
with each, for a few samples, against the time that it costs; that needs no evaluation. How many of
the first ones it takes is then found in as many evaluations as there are halvings of the error:
errors of layers add up, nearly, so the error that is left is known before it is measured.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

from edgec.arrays import Array
from edgec.cache import Cache
from edgec.data import Sample
from edgec.errors import BudgetError, DataError
from edgec.quantize.ladder import FLOAT32, Step, raised, without
from edgec.quantize.sensitivity import Compared, Outputs, Runner, noise

Run = Callable[[Mapping[str, Array]], dict[str, Array]]
"""A model: from inputs to outputs, by name."""
Metric = Callable[[Run], float]
"""How good a model is; more is better."""
Build = Callable[[Mapping[str, str]], onnx.ModelProto]
"""The model in which these layers are on these rungs, and all others on the first."""

TAKEN_BACK = 3
"""Steps that the result may do without are tried to take back, those that cost most first."""


@dataclass(frozen=True)
class Trial:
    """A model that was evaluated: the rungs of the layers that were raised, and how much worse it
    is than the float model."""

    raised: Mapping[str, str]
    drop: float

    @property
    def floats(self) -> frozenset[str]:
        """The layers that are in float32."""
        return frozenset(layer for layer, rung in self.raised.items() if rung == FLOAT32)


@dataclass
class Kept:
    """A model that keeps the budget, and the `trial` of it.

    `trials` are all that were evaluated, the float model not among them, and `evaluations` counts
    that as well. `steps` are ranked; empty where all could be quantized. `stopped` is set where the
    user did not wait for the end.
    """

    model: onnx.ModelProto
    trial: Trial
    steps: Sequence[Step] = ()
    trials: list[Trial] = field(default_factory=list)
    stopped: bool = False

    @property
    def evaluations(self) -> int:
        """How often a model was evaluated."""
        return len(self.trials) + 1


def keep_budget(
    drop_of: Callable[[onnx.ModelProto], float],
    most: float,
    build: Build,
    rank: Callable[[], Sequence[Step]],
    on_trial: Callable[[Trial], None] = lambda trial: None,
) -> Kept:
    """The model that is worse by `most` at most, by steps that cost least.

    `drop_of` evaluates a model; `rank` is asked for the steps only where not all layers may stay on
    the first rung. Ctrl-C ends the search with the best so far that keeps the budget. Raises
    OutOfBudget, which has the model that is nearest to it, where none but the float one does.
    """
    found: list[tuple[Trial, float, onnx.ModelProto]] = []

    def holds(path: Sequence[Step]) -> bool:
        rungs = raised(path)
        model = build(rungs)
        trial = Trial(rungs, drop_of(model))
        found.append((trial, sum(step.cost for step in path), model))
        on_trial(trial)
        return trial.drop <= most

    steps: Sequence[Step] = ()
    stopped = False
    try:
        if not holds(()):
            steps = rank()
            _take_back(steps[: _first(steps, holds)], holds)
    except KeyboardInterrupt:
        stopped = True
        if not any(trial.drop <= most for trial, _, _ in found):
            raise
    able = [each for each in found if each[0].drop <= most]
    best = min(able or found, key=lambda each: each[1] if able else each[0].drop)
    kept = Kept(best[2], best[0], steps, [trial for trial, _, _ in found], stopped)
    if not able:
        raise OutOfBudget(kept, most)
    return kept


def _take_back(steps: Sequence[Step], holds: Callable[[Sequence[Step]], bool]) -> None:
    """Try without those of `steps` that cost most; not the last, which was found to be needed."""
    path = list(steps)
    for step in sorted(steps[:-1], key=lambda step: -step.cost)[:TAKEN_BACK]:
        if step in path and holds(without(path, step)):
            path = without(path, step)


class OutOfBudget(BudgetError):
    """No quantized model keeps the budget; `found` is the one that is nearest to it."""

    def __init__(self, found: Kept, most: float) -> None:
        floats = f"with {described(found.trial, len({step.layer for step in found.steps}))}"
        super().__init__(
            f"no quantized model is worse by {most:g} at most; the best one found, {floats}, is by "
            f"{found.trial.drop:.4g}",
            where="--max-drop",
            hint="allow more, or give more calibration data; debug-quant shows where the error is",
        )
        self.found = found


def described(trial: Trial, layers: int) -> str:
    """How many of so many layers are raised, and to which rungs."""
    counts = Counter(trial.raised.values())
    raised = ", ".join(f"{count} in {rung}" for rung, count in sorted(counts.items()))
    return f"{raised or 'none'} of {layers} layers"


def _first(steps: Sequence[Step], holds: Callable[[Sequence[Step]], bool]) -> int:
    """The least number of the first steps that it takes, short of all of them; 0 where that is not
    enough."""
    fails, count = 0, 0
    left = sum(step.noise for step in steps)
    while count < len(steps) - 1:
        left /= 2
        count = _leaving(steps, left, fails + 1)
        if holds(steps[:count]):
            break
        fails = count
    else:
        return 0
    while count - fails > 1:
        middle = (count + fails) // 2
        if holds(steps[:middle]):
            count = middle
        else:
            fails = middle
    return count


def _leaving(steps: Sequence[Step], most: float, least: int) -> int:
    """How many of the first steps have to be taken for the noise that is left to be `most`; at
    least `least`, and at most all but one."""
    after = [*itertools.accumulate(step.noise for step in reversed(steps))][::-1]
    count = next((i for i, noise in enumerate(after) if noise <= most), len(steps))
    return min(max(count, least), len(steps) - 1)


def metric_of(function: Any, where: str) -> Metric:
    """`function`, checked whenever it is called. Its errors become DataError."""

    def metric(run: Run) -> float:
        try:
            value = float(function(run))
        except (BudgetError, DataError):
            raise
        except Exception as error:
            raise DataError(f"the metric failed: {error!r}", where=where) from error
        if not math.isfinite(value):
            raise DataError(f"the metric is {value}, no number", where=where)
        return value

    return metric


def drop_by_metric(
    runner: Runner, metric: Metric, plain: onnx.ModelProto
) -> Callable[[onnx.ModelProto], float]:
    """How much a model's `metric` is below the float model's."""

    def value(model: onnx.ModelProto) -> float:
        runner.load(model)
        return metric(runner)

    reference = value(plain)
    return lambda model: reference - value(model)


def drop_by_outputs(
    runner: Runner, plain: onnx.ModelProto, samples: Sequence[Sample], cache: Cache
) -> Callable[[onnx.ModelProto], float]:
    """How far a model's outputs are from the float model's, where there is no metric.

    Of an output [N, classes] the share of rows whose largest element is another one; of another
    the square root of noise over signal (0.01 is an SQNR of 40 dB). The worst of the outputs.
    """
    compared = Compared(runner, plain, samples, cache)
    if not noise(compared.wanted, compared.wanted):
        raise DataError("the model has no outputs of floats to compare", hint="give --eval")

    def worst(wanted: Outputs, given: Outputs) -> float:
        found = []
        for name, share in noise(wanted, given).items():
            pairs = [(a[name], b[name]) for a, b in zip(wanted, given, strict=True)]
            if pairs[0][0].ndim == 2 and pairs[0][0].shape[1] > 1:
                other = [a.argmax(-1) != b.argmax(-1) for a, b in pairs]
                found.append(float(np.concatenate(other).mean()))
            else:
                found.append(math.sqrt(share))
        return max(found)

    return lambda model: compared("drop", model, worst)
