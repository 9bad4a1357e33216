"""A model quantized within an accuracy budget: what `edgec.quantize.budget` needs, put together."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import onnx

from edgec.quantize.budget import (
    Kept,
    Metric,
    Trial,
    drop_by_metric,
    drop_by_outputs,
    keep_budget,
)
from edgec.quantize.maker import Maker
from edgec.quantize.plan import Plan, structure
from edgec.quantize.sensitivity import SAMPLES, Runner, rank
from edgec.quantize.work import macs

OnEvent = Callable[[Mapping[str, Any]], None]


def within(
    maker: Maker, most: float, metric: Metric | None, on_event: OnEvent = lambda event: None
) -> tuple[Plan, Kept]:
    """The plan and model of `maker` that is worse than the float one by `most` at most.

    Raises OutOfBudget where there is none, DataError where the metric fails.
    """
    plain = maker.graph.to_source_opset()
    costs = {
        unit.name: macs(unit)
        for unit in structure(maker.graph, maker.profile, maker.exclude).units
        if unit.kind == "product"
    }
    few = list(itertools.islice(maker.samples, SAMPLES))

    def alone(name: str) -> onnx.ModelProto:
        return maker.write(maker.plan(costs.keys() - {name}))

    plans: dict[frozenset[str], Plan] = {}

    def build(floats: frozenset[str]) -> onnx.ModelProto:
        plans[floats], model = maker.model(floats)
        return model

    def on_layer(done: int) -> None:
        counts = {"done": done, "total": len(costs)}
        on_event({"event": "progress", "stage": "layer", "item": "", **counts})

    def on_trial(trial: Trial) -> None:
        text = f"{len(trial.floats)} of {len(costs)} layers in floats: worse by {trial.drop:.4g}"
        on_event({"event": "note", "text": text})

    with Runner() as runner:
        if metric is None:
            drop_of = drop_by_outputs(runner, plain, list(maker.samples))
        else:
            drop_of = drop_by_metric(runner, metric, plain)
        kept = keep_budget(
            drop_of,
            most,
            build,
            lambda: rank(runner, costs, alone, plain, few, on_layer),
            on_trial,
        )
    return plans[kept.floats], kept
