"""What the tests of measuring measure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

from edgec.peers import PEERS

SAMPLE = {"x": np.ones((1, 8), np.float32), "ids": np.int64([[0, 4]])}
"""Inputs of the model that `save_tiny` saves."""


def save_tiny(folder: Path) -> Path:
    """A small network at opset 9, its weights also listed as inputs, its batch symbolic."""
    proto = parser.parse_model("""
        <ir_version: 4, opset_import: ["" : 9]>
        tiny (float[N,8] x, int64[N,2] ids, float[8,4] w, float[5,4] table) => (float[N,4] y)
        <float[8,4] w, float[5,4] table>
        { a = MatMul (x, w)  e = Gather (table, ids)  s = ReduceSum <axes = [1], keepdims = 0> (e)
          y = Add (a, s) }
    """)
    rng = np.random.default_rng(0)
    del proto.graph.initializer[:]
    for name, shape in (("w", (8, 4)), ("table", (5, 4))):
        proto.graph.initializer.append(
            onnx.numpy_helper.from_array(rng.standard_normal(shape, np.float32), name)
        )
    path = folder / "tiny.onnx"
    onnx.save(proto, path)
    return path


def installed(engine: str) -> str:
    """`engine`, or the test is skipped."""
    if not PEERS[engine].installed:
        pytest.skip(f"{engine} is not installed")
    return engine
