"""A limit to what quantization may cost in accuracy, kept by leaving layers in floats.

    measure float -> quantize all -> rank layers -> leave the worst in floats, ever more -> fewer

Layers are ranked by what their quantization alone does to the outputs, for a few samples, against
the time that it saves; that needs no evaluation. How many of the first ones have to stay in floats
is then found in as many evaluations as there are halvings of the error: errors of layers add up,
nearly, so the error that is left is known before it is measured.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

from edgec.arrays import Array
from edgec.data import Sample
from edgec.errors import BudgetError, DataError
from edgec.quantize.sensitivity import Layer, Runner, noise, outputs

Run = Callable[[Mapping[str, Array]], dict[str, Array]]
"""A model: from inputs to outputs, by name."""
Metric = Callable[[Run], float]
"""How good a model is; more is better."""
Build = Callable[[frozenset[str]], onnx.ModelProto]
"""The model in which these layers stay in floats."""

PUT_BACK = 3
"""Layers left in floats that are tried in integers again, those that cost most first."""


@dataclass(frozen=True)
class Trial:
    """A model that was evaluated: which layers are in floats, and by how much it is worse."""

    floats: frozenset[str]
    drop: float


@dataclass
class Kept:
    """A model that keeps the budget: `floats` are its layers in floats, `drop` is what it loses.

    `trials` are all that were evaluated, the float model not among them, and `evaluations` counts
    that as well. `layers` are ranked; empty where all could be quantized. `stopped` is set where
    the user did not wait for the end.
    """

    model: onnx.ModelProto
    floats: frozenset[str]
    drop: float
    layers: Sequence[Layer] = ()
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
    rank: Callable[[], Sequence[Layer]],
    on_trial: Callable[[Trial], None] = lambda trial: None,
) -> Kept:
    """The model of the fewest layers in floats, by cost, that is worse by `most` at most.

    `drop_of` evaluates a model; `rank` is asked for the layers only where not all may be
    quantized. Ctrl-C ends the search with the best so far that keeps the budget. Raises
    OutOfBudget, which has the model that is nearest to it, where none but the float one does.
    """
    trials: list[Trial] = []
    models: dict[frozenset[str], onnx.ModelProto] = {}

    def holds(floats: frozenset[str]) -> bool:
        models[floats] = build(floats)
        trials.append(Trial(floats, drop_of(models[floats])))
        on_trial(trials[-1])
        return trials[-1].drop <= most

    layers: Sequence[Layer] = ()
    stopped = False
    try:
        if not holds(frozenset()):
            layers = rank()
            first = _first(layers, holds)
            _put_back(layers[:first], holds)
    except KeyboardInterrupt:
        stopped = True
        if not any(trial.drop <= most for trial in trials):
            raise
    costs = {layer.name: layer.cost for layer in layers}
    able = [trial for trial in trials if trial.drop <= most]
    best = min(
        able or trials,
        key=lambda trial: sum(costs[name] for name in trial.floats) if able else trial.drop,
    )
    kept = Kept(models[best.floats], best.floats, best.drop, layers, trials, stopped)
    if not able:
        raise OutOfBudget(kept, most)
    return kept


def _put_back(layers: Sequence[Layer], holds: Callable[[frozenset[str]], bool]) -> None:
    """Try without those of `layers` that cost most; not the last, which was found to be needed."""
    floats = frozenset(layer.name for layer in layers)
    for layer in sorted(layers[:-1], key=lambda layer: -layer.cost)[:PUT_BACK]:
        if holds(floats - {layer.name}):
            floats -= {layer.name}


class OutOfBudget(BudgetError):
    """No quantized model keeps the budget; `found` is the one that is nearest to it."""

    def __init__(self, found: Kept, most: float) -> None:
        floats = f"with {len(found.floats)} of {len(found.layers)} layers in floats"
        super().__init__(
            f"no quantized model is worse by {most:g} at most; the best one found, {floats}, is by "
            f"{found.drop:.4g}",
            where="--max-drop",
            hint="allow more, or give more calibration data; debug-quant shows where the error is",
        )
        self.found = found


def _first(layers: Sequence[Layer], holds: Callable[[frozenset[str]], bool]) -> int:
    """The least number of the first layers that have to stay in floats, short of all of them; 0
    where that is not enough."""

    def able(count: int) -> bool:
        return holds(frozenset(layer.name for layer in layers[:count]))

    fails, count = 0, 0
    left = sum(layer.noise for layer in layers)
    while count < len(layers) - 1:
        left /= 2
        count = _leaving(layers, left, fails + 1)
        if able(count):
            break
        fails = count
    else:
        return 0
    while count - fails > 1:
        middle = (count + fails) // 2
        if able(middle):
            count = middle
        else:
            fails = middle
    return count


def _leaving(layers: Sequence[Layer], most: float, least: int) -> int:
    """How many of the first layers have to go for the noise of the others to be `most`; at least
    `least`, and at most all but one."""
    after = [*itertools.accumulate(layer.noise for layer in reversed(layers))][::-1]
    count = next((i for i, noise in enumerate(after) if noise <= most), len(layers))
    return min(max(count, least), len(layers) - 1)


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
    runner: Runner, plain: onnx.ModelProto, samples: Sequence[Sample]
) -> Callable[[onnx.ModelProto], float]:
    """How far a model's outputs are from the float model's, where there is no metric.

    Of an output [N, classes] the share of rows whose largest element is another one; of another
    the square root of noise over signal (0.01 is an SQNR of 40 dB). The worst of the outputs.
    """
    wanted = outputs(runner, plain, samples)
    if not noise(wanted, wanted):
        raise DataError("the model has no outputs of floats to compare", hint="give --eval")

    def drop(model: onnx.ModelProto) -> float:
        given = outputs(runner, model, samples)
        found = []
        for name, share in noise(wanted, given).items():
            pairs = [(a[name], b[name]) for a, b in zip(wanted, given, strict=True)]
            if pairs[0][0].ndim == 2 and pairs[0][0].shape[1] > 1:
                other = [a.argmax(-1) != b.argmax(-1) for a, b in pairs]
                found.append(float(np.concatenate(other).mean()))
            else:
                found.append(math.sqrt(share))
        return max(found)

    return drop
