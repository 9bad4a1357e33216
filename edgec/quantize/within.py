"""A model quantized within an accuracy budget: what `edgec.quantize.budget` needs, put together."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import onnx

from edgec.cache import Cache
from edgec.quantize.budget import (
    Kept,
    Metric,
    Trial,
    described,
    drop_by_metric,
    drop_by_outputs,
    keep_budget,
)
from edgec.quantize.gate import Times
from edgec.quantize.ladder import Step, costs_of, ladder, steps
from edgec.quantize.maker import Maker, WeightMaker
from edgec.quantize.plan import Plan
from edgec.quantize.sensitivity import SAMPLES, Runner, noises
from edgec.targets import Target

OnEvent = Callable[[Mapping[str, Any]], None]


def within(
    maker: Maker | WeightMaker,
    most: float,
    metric: Metric | None,
    target: Target,
    times: Times | None = None,
    on_event: OnEvent = lambda event: None,
) -> tuple[Plan, Kept]:
    """The plan and model of `maker` that is worse than the float one by `most` at most.

    What layers cost is by the model of `target`, or by `times`, where they were measured. Raises
    OutOfBudget where there is none, DataError where the metric fails.
    """
    plain = maker.graph.to_source_opset()
    cache = Cache.default()
    layers, rungs = maker.layers(), ladder(maker.scheme)
    names = [unit.name for unit in layers]
    plans: dict[frozenset[tuple[str, str]], Plan] = {}

    def build(raised: Mapping[str, str]) -> onnx.ModelProto:
        plans[frozenset(raised.items())], model = maker.model(raised)
        return model

    def on_layer(done: int) -> None:
        counts = {"done": done, "total": len(layers)}
        on_event({"event": "progress", "stage": "layer", "item": "", **counts})

    def on_trial(trial: Trial) -> None:
        text = f"raised: {described(trial, len(layers))}; worse by {trial.drop:.4g}"
        on_event({"event": "note", "text": text})

    with Runner() as runner:

        def rank() -> list[Step]:
            few = list(itertools.islice(maker.samples, SAMPLES))
            found = noises(runner, names, rungs[:-1], maker.alone, plain, few, cache, on_layer)
            return steps(found, costs_of(layers, rungs, target, times))

        if metric is None:
            drop_of = drop_by_outputs(runner, plain, list(maker.samples), cache)
        else:
            drop_of = drop_by_metric(runner, metric, plain)
        kept = keep_budget(drop_of, most, build, rank, on_trial)
    return plans[frozenset(kept.trial.raised.items())], kept
