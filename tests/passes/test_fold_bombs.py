"""Small models whose constants would fill the memory: they stay unfolded, the rest is folded."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import onnx.parser
import pytest

from edgec.graph import load
from edgec.passes import PASSES
from edgec.passes.fold_constants import FoldConstants
from edgec.rewrite import optimize

ROOT = Path(__file__).parents[2]
HEADER = '<ir_version: 13, opset_import: ["" : 25]>\n'
BIG = 1 << 33

# Each makes `big`, of unknown or gigantic size; `small` beside it is folded all the same.
BOMBS = {
    "ConstantOfShape": f"s = Constant <value_ints = [{BIG}]> () big = ConstantOfShape(s)",
    "Expand": f"s = Constant <value_ints = [{BIG}]> () big = Expand(one, s)",
    "Tile": f"s = Constant <value_ints = [{BIG}]> () big = Tile(one, s)",
    "Range": f"a = Constant <value_int = 0> () b = Constant <value_int = {BIG}> ()"
    " c = Constant <value_int = 1> () r = Range(a, b, c) big = Cast <to = 1> (r)",
    "Pad": f"s = Constant <value_ints = [0, {BIG}]> () big = Pad(one, s)",
    "Resize": f"s = Constant <value_ints = [{BIG}]> () big = Resize(one, , , s)",
    "OneHot": f"i = Constant <value_ints = [1]> () d = Constant <value_int = {BIG}> ()"
    " v = Constant <value_floats = [0.0, 1.0]> () big = OneHot(i, d, v)",
    "EyeLike": "s = Constant <value_ints = [100000, 100000]> () e = ConstantOfShape(s)"
    " big = EyeLike(e)",
    "Gather": "s = Constant <value_ints = [100000]> () z = Constant <value_ints = [0]> ()"
    " i = Expand(z, s) w = Gather(one, i) u = Unsqueeze(w, z) m = Mul(u, w)"
    " t = Constant <value_ints = [100000, 1]> () v = Reshape(w, t) big = Mul(v, w)",
    "Concat": " ".join(
        f"c{i + 1} = Concat <axis = 0> ({', '.join([f'c{i}'] * 16)})" for i in range(12)
    )
    .replace("(c0", "(one")
    .replace(" c0", " one")
    + " big = Identity(c12)",
    "MatMul": "s = Constant <value_ints = [60000, 1]> () a = Expand(one, s)"
    " t = Constant <value_ints = [1, 60000]> () b = Expand(one, t) big = MatMul(a, b)",
    "Where": "s = Constant <value_ints = [60000, 1]> () a = Expand(one, s)"
    " t = Constant <value_ints = [1, 60000]> () b = Expand(one, t) g = Greater(a, b)"
    " big = Where(g, a, b)",
    "Loop": f"n = Constant <value_int = {BIG}> () big = Loop(n, , one) <body = b"
    " (int64 i, bool c, float[m] v) => (bool d, float[k] w) { d = Identity(c)"
    " w = Concat <axis = 0> (v, v) }>",
}


def model(name: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(
        HEADER + "g (float[1] x) => (float y, float[1] small) <float[1] one = {1.0}> {\n"
        "two = Add(one, one) small = Mul(x, two)\n" + BOMBS[name] + "\ny = ReduceSum(big) }"
    )


@pytest.mark.parametrize("name", BOMBS)
def test_is_left_alone(name: str) -> None:
    start = time.perf_counter()
    graph = load(model(name))
    (report,) = optimize(graph, [FoldConstants()])
    assert time.perf_counter() - start < 10
    assert graph.constant_bytes() <= graph.source_bytes + FoldConstants().budget
    assert report.skips
    assert "Add" not in [node.op for node in graph.gs.nodes]
    assert PASSES["fold-constants"] is FoldConstants


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux")
def test_memory_stays_within_twice_the_budget() -> None:
    script = """
import resource
from tests.passes.test_fold_bombs import *
optimize(load(model("Expand")), [FoldConstants(budget=0)])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for name in BOMBS:
    optimize(load(model(name)), [FoldConstants()])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    grown = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert int(grown.stdout) * 1024 <= 2 * FoldConstants().budget
