"""Engines called from C."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import parser

from edgec import bench as bench_module
from edgec.cache import Cache
from edgec.compiler import compile_model

REPO = Path(__file__).parents[1]


FROM_C = """
import json, sys
import numpy as np
sys.path.insert(0, {folder!r})
import fromc, load
x, y = np.float32([[1, 2, 3]]), np.zeros((1, 3), np.float32)
if {engine!r} == "edgec":
    with load.load({path!r}) as module:
        times = fromc.edgec({library!r}, module.bind({{"x": x}}, {{"y": y}}))(4)
else:
    burst = fromc.onnxruntime({library!r}, {path!r}, 1, {{"x": x[:, :{width}]}}, {{"y": y}})
    times = burst(4)
print(json.dumps([len(times), min(times), y.tolist()]))
"""


def from_c(folder: Path, cache: Path, engine: str, width: int) -> subprocess.CompletedProcess[str]:
    """Four calls that add 1 to each of 1, 2, 3, in a process with nothing else of edgec."""
    proto = parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]> m (float[1,3] x) => (float[1,3] y)'
        " { one = Constant <value_float = 1.0> () y = Add (x, one) }"
    )
    onnx.save(proto, folder / "m.onnx")
    path = folder / "m.onnx"
    if engine == "edgec":
        path = compile_model(path, folder / "m.edgec", cache=Cache(cache)).path
    for source in (REPO / "edgec" / "fromc.py", REPO / "edgec" / "runtime" / "load.py"):
        shutil.copy(source, folder)
    script = FROM_C.format(
        folder=str(folder),
        engine=engine,
        path=str(path),
        library=bench_module._burst_library(folder),
        width=width,
    )
    command = [sys.executable, "-c", script]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("engine", ["edgec", "onnxruntime"])
def test_calls_from_c_compute(tmp_path: Path, session_cache: Path, engine: str) -> None:
    done = from_c(tmp_path, session_cache, engine, width=3)
    assert done.returncode == 0, done.stderr
    count, least, outputs = json.loads(done.stdout)
    assert count == 4
    assert least > 0
    assert outputs == [[2, 3, 4]]


def test_what_onnxruntime_says_when_called_from_c(tmp_path: Path, session_cache: Path) -> None:
    done = from_c(tmp_path, session_cache, "onnxruntime", width=2)
    assert done.returncode == 1
    assert "RuntimeError: Got invalid dimensions for input: x" in done.stderr
