"""Random models compute the same after optimisation, at every level."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from random_models import models
from test_passes import feed_for, run

from edgec.compare import MOST_TOLERANCES, compare_tensor
from edgec.graph import load
from edgec.passes import LEVELS, NEWER_OPSET_LEVEL
from edgec.rewrite import optimize


def check(model: onnx.ModelProto) -> None:
    onnx.checker.check_model(model, full_check=True)
    graph = load(model, trusted=True)
    feed = feed_for(graph)
    names = [output.name for output in model.graph.output]
    expected = run(model, feed)
    floors = residues(model, feed)
    for level in (1, 2, 3):
        optimized = graph.copy()
        if level >= NEWER_OPSET_LEVEL:
            optimized.opset_limit = optimized.opset
        optimize(optimized, LEVELS[level])
        after = optimized.to_source_opset()
        onnx.checker.check_model(after, full_check=True)
        assert [output.name for output in after.graph.output] == names
        for name, wanted, actual in zip(names, expected, run(after, feed), strict=True):
            report = compare_tensor(name, wanted, actual, limit=MOST_TOLERANCES, floor=floors[name])
            assert report.ok, f"level {level}, output '{name}': {report.problem}"


def residues(model: onnx.ModelProto, feed: dict[str, Any]) -> dict[str, float]:
    """What rounding may leave where values cancel, as in the mean of what has no mean any more: a
    few units in the last place of the largest number that an output is computed from."""
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    made = [name for node in model.graph.node for name in node.output]
    del whole.graph.output[:]
    whole.graph.output.extend(onnx.ValueInfoProto(name=name) for name in made)
    largest: dict[str, float] = {}
    for name, value in [*feed.items(), *zip(made, run(whole, feed), strict=True)]:
        numbers = value[np.isfinite(value)] if value.dtype.kind == "f" else np.zeros(0)
        largest[name] = float(np.abs(numbers).max(initial=0.0))
    for node in model.graph.node:
        for name in node.output:
            largest[name] = max(largest[name], *(largest.get(n, 0.0) for n in node.input), 0.0)
    return {name: 8 * float(np.finfo(np.float32).eps) * value for name, value in largest.items()}


HEALTHY = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example)


@settings(max_examples=150, derandomize=True, deadline=None, suppress_health_check=HEALTHY)
@given(models())
def test_few(model: onnx.ModelProto) -> None:
    check(model)


@pytest.mark.nightly
@settings(max_examples=2000, deadline=None, database=None, suppress_health_check=HEALTHY)
@given(models())
def test_many(model: onnx.ModelProto) -> None:
    check(model)
