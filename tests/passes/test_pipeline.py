"""The pipelines of all levels on real models and on the standard's expanded functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from edgec.graph import Graph, load
from edgec.passes import LEVELS
from edgec.rewrite import optimize

ROOT = Path(__file__).parents[2]
MODELS = sorted((ROOT.parent / "shared" / "models").glob("*.onnx"))
MODELS += sorted((ROOT / "models").glob("*.onnx"))


def run(model: onnx.ModelProto, feed: dict[str, Any]) -> list[Any]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return session.run(None, feed)


def random_feed(graph: Graph) -> dict[str, Any]:
    rng = np.random.default_rng(3)
    return {
        t.name: np.asarray(rng.standard_normal(t.shape) * 2).astype(t.dtype)
        for t in graph.gs.inputs
    }


@pytest.mark.parametrize("level", sorted(LEVELS))
@pytest.mark.parametrize("path", MODELS, ids=lambda p: p.stem)
def test_computes_the_same(path: Path, level: int) -> None:
    dims = {"batch": 1, "sequence": 576} if "silero" in path.name else None
    graph = load(path, dims=dims)
    source = onnx.load(path)
    nodes = sum(1 for _ in graph.nodes())
    feed = random_feed(graph)
    expected = run(source, feed)
    reports = optimize(graph, LEVELS[level])
    assert sum(1 for _ in graph.nodes()) <= nodes
    assert [r.name for r in reports] == [p.name for p in LEVELS[level]]
    model = graph.to_onnx()
    onnx.checker.check_model(model, full_check=True)
    initializers = {t.name for t in source.graph.initializer}
    assert [i.name for i in model.graph.input] == [
        i.name for i in source.graph.input if i.name not in initializers
    ]
    assert [o.name for o in model.graph.output] == [o.name for o in source.graph.output]
    assert model.metadata_props == source.metadata_props
    for result, wanted in zip(run(model, feed), expected, strict=True):
        scale = np.abs(wanted).max(initial=0)
        np.testing.assert_allclose(result, wanted, rtol=1e-4, atol=1e-5 * scale)


@pytest.mark.skipif(not MODELS, reason="there are no models")
def test_a_second_time_changes_nothing() -> None:
    for path in MODELS:
        dims = {"batch": 1, "sequence": 576} if "silero" in path.name else None
        graph = load(path, dims=dims)
        optimize(graph, LEVELS[2])
        before = onnx.printer.to_text(graph.to_onnx())
        assert not any(report.rewrites for report in optimize(graph, LEVELS[2]))
        assert onnx.printer.to_text(graph.to_onnx()) == before


def test_same_model_same_bytes() -> None:
    path = next((p for p in MODELS if "unsimplified" in p.name), None)
    if path is None:
        pytest.skip("the unsimplified UltraFace is absent")
    results = set()
    for _ in range(2):
        graph = load(path)
        optimize(graph, LEVELS[2])
        results.add(graph.to_onnx().SerializeToString(deterministic=True))
    assert len(results) == 1
