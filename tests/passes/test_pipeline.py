"""The pipelines of all levels on real models and on the standard's expanded functions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from oracle import random_feed, run

from edgec.graph import load
from edgec.passes import LEVELS
from edgec.rewrite import optimize

ROOT = Path(__file__).parents[2]
MODELS = sorted((ROOT.parent / "shared" / "models").glob("*.onnx"))
MODELS += sorted((ROOT / "models").glob("*.onnx"))


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
