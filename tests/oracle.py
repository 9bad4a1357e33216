"""ONNX Runtime with its optimisations off: what models must compute."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.printer
import onnxruntime
from onnx.reference import ReferenceEvaluator

from edgec.graph import Graph


def run(model: onnx.ModelProto, feed: dict[str, Any]) -> list[Any]:
    """The outputs of `model` for inputs by name; in bfloat16, which ONNX Runtime lacks, those of
    onnx's reference implementation."""
    if "BFLOAT16" in onnx.printer.to_text(model).upper():
        return ReferenceEvaluator(model).run(None, feed)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, feed)


def random_feed(graph: Graph) -> dict[str, Any]:
    """Normal values of deviation 3 for the inputs of `graph`, whole numbers where they must be."""
    rng = np.random.default_rng(0)
    return {
        t.name: np.asarray(rng.standard_normal(t.shape) * 3).astype(t.dtype)
        for t in graph.gs.inputs
    }
