"""Pretrained models, lowered: the same outputs as ONNX Runtime without its optimisations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from edgec.graph import load

from .node_cases import check
from .running import run

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "models"

QUICK = ("mlperf_tiny_ad_autoencoder_fp32", "mlperf_tiny_kws_fp32", "mlperf_tiny_kws_int8_qdq")
SLOW = (
    "mlperf_tiny_ic_resnet8_fp32",
    "mlperf_tiny_vww_mobilenet_fp32",
    "ultraface_slim_320",
    "ultraface_slim_320_unsimplified",
)


@pytest.mark.parametrize(
    "path",
    [ROOT / "models" / "digits_transformer.onnx"]
    + [SHARED / f"{name}.onnx" for name in QUICK]
    + [pytest.param(SHARED / f"{name}.onnx", marks=pytest.mark.nightly) for name in SLOW],
    ids=lambda path: path.stem,
)
def test_a_model_computes_what_onnx_runtime_does(path: Path) -> None:
    if not path.exists():
        pytest.skip(f"{path} is absent")
    graph = load(path, trusted=True)
    random = np.random.default_rng(0)
    feeds = {
        t.name: random.standard_normal(t.shape).astype(t.dtype)
        if t.dtype.kind == "f"
        else random.integers(-100, 100, t.shape).astype(t.dtype)
        for t in graph.gs.inputs
    }
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    expected = onnxruntime.InferenceSession(str(path), options).run(None, feeds)
    for result, reference in zip(run(graph, feeds), expected, strict=True):
        check(result, reference)
