"""The standard's own examples through the whole pipeline: what ORT runs, it runs alike after."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from edgec.graph import load
from edgec.passes import LEVELS
from edgec.rewrite import optimize

# Scan of opset 8 has a batch axis that nothing newer has, and is refused.
REFUSED = {"test_scan_sum"}
RANDOM = ("bernoulli", "random", "training_dropout")


def run(model: onnx.ModelProto, inputs: list[Any]) -> list[Any]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    names = [i.name for i in session.get_inputs()]
    return session.run(None, dict(zip(names, inputs, strict=False)))


def same(a: Any, b: Any) -> bool:
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if a is None or b is None:
        return a is b
    a, b = np.asarray(a), np.asarray(b)
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.dtype.kind != "f":
        return bool((a == b).all())
    tolerance = 1e-2 if a.dtype == np.float16 else 1e-4
    return np.allclose(a, b, rtol=tolerance, atol=tolerance / 10, equal_nan=True)


def optimized(case: Any) -> onnx.ModelProto:
    shapes = {
        info.name: value.shape
        for info, value in zip(case.model.graph.input, case.data_sets[0][0], strict=False)
        if isinstance(value, np.ndarray) and info.type.HasField("tensor_type")
    }
    graph = load(case.model, shapes=shapes)
    optimize(graph, LEVELS[3])
    model = graph.to_source_opset()
    onnx.checker.check_model(model)
    return model


@pytest.mark.filterwarnings("ignore")
def test_every_case_computes_the_same() -> None:
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = [c for c in collect_testcases(None) if c.data_sets and c.name not in REFUSED]
    failures: list[str] = []
    ran = 0
    for case in cases:
        inputs = case.data_sets[0][0]
        try:
            expected = run(case.model, inputs)
        except Exception:
            continue
        ran += 1
        try:
            results = run(optimized(case), inputs)
        except Exception as error:
            failures.append(f"{case.name}: {error}")
            continue
        random = case.name.startswith(tuple(f"test_{name}" for name in RANDOM))
        if not random and not all(map(same, expected, results)):
            failures.append(f"{case.name}: another result")
    assert failures == []
    assert ran > 1400
