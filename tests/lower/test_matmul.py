"""Matrix products: constant and given factors, every instruction set, whole tiles and odd ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

import edgec
from edgec import targets
from edgec.compiler import Options, compile_model
from edgec.graph import load
from edgec.lower.lowering import lower_graph
from edgec.targets.cpu import schedule
from edgec.targets.cpu.matmul import panel, tile, whole_tiles

from .many_nodes import RUNNABLE

LEVELS = tuple(name for name in RUNNABLE if name != "host")
CONSTANT = ((1, 40, 104), (3, 33, 10), (17, 64, 100), (29, 20, 96), (128, 48, 64))
GIVEN = (("2, 3, 17, 8", "3, 8, 24"), ("16, 9", "2, 9, 31"), ("5, 1, 7, 32", "5, 2, 32, 48"))
ALL = [targets.resolve(name) for name in ("x86-64-v2", "x86-64-v3", "x86-64-v4", "aarch64")]


def products() -> onnx.ModelProto:
    """Every product of `CONSTANT` (rows, sum, columns) with a tail, every one of `GIVEN` alone."""
    random = np.random.default_rng(11)
    inputs, outputs, nodes, weights = [], [], [], []
    for n, (rows, inner, columns) in enumerate(CONSTANT):
        inputs.append(f"float[{rows}, {inner}] x{n}")
        nodes.append(f"m{n} = MatMul(x{n}, w{n}) t{n} = Add(m{n}, b{n}) y{n} = Relu(t{n})")
        outputs.append(f"float[{rows}, {columns}] y{n}")
        for name, shape in ((f"w{n}", (inner, columns)), (f"b{n}", (columns,))):
            values = random.standard_normal(shape).astype(np.float32)
            weights.append(numpy_helper.from_array(values, name))
    for n, shapes in enumerate(GIVEN):
        inputs += [f"float[{shape}] {name}{n}" for name, shape in zip("pq", shapes, strict=True)]
        nodes.append(f"r{n} = MatMul(p{n}, q{n})")
        a, b = (np.zeros([int(size) for size in shape.split(",")]) for shape in shapes)
        outputs.append(f"float{list(np.matmul(a, b).shape)} r{n}")
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]> '
        f"g ({', '.join(inputs)}) => ({', '.join(outputs)}) {{ {' '.join(nodes)} }}"
    )
    model.graph.initializer.extend(weights)
    return model


def test_agrees_with_onnx_runtime(tmp_path: Path) -> None:
    result = compile_model(products(), tmp_path / "m.edgec", Options(targets=LEVELS))
    verified = [variant["verified"] for variant in result.manifest["variants"]]
    assert verified == ["device"] * len(LEVELS)


@pytest.mark.parametrize("target", ALL, ids=lambda target: target.name)
def test_each_product_is_one_kernel_in_tiles(target: targets.Target) -> None:
    """Whose sums are set to zero tile by tile."""
    lowered = lower_graph(load(products()), "m", [], target)
    assert len(lowered.program.steps) == len(CONSTANT) + len(GIVEN)
    for function in lowered.kernels.values():
        text = schedule(function, target, strict=True).script()
        assert "_init" in text
        assert "T.vectorized" in text


@given(
    rows=st.integers(1, 300),
    vectors=st.integers(1, 40),
    target=st.sampled_from(ALL),
)
@settings(max_examples=300, deadline=None)
def test_tiles_divide_what_they_cover_and_fit_the_registers(
    rows: int, vectors: int, target: targets.Target
) -> None:
    covered = whole_tiles(rows)
    r, v = tile(covered, vectors, target)
    assert rows <= covered < rows + 8
    assert covered % r == 0
    assert vectors % v == 0
    assert r * v + v < target.vector_registers


@given(rows=st.integers(1, 40), columns=st.integers(1, 4096))
def test_panels_divide_the_columns(rows: int, columns: int) -> None:
    width = panel(rows, columns)
    assert columns % width == 0
    assert width <= 64


def test_tiles_keep_the_processor_busy() -> None:
    """Two multiply-adds begin in each cycle and take 4: with fewer than 8 sums some would wait."""
    target = targets.resolve("x86-64-v4")
    for rows in (8, 49, 50, 77, 128, 197, 256, 384, 1500):
        for columns in (64, 384, 768, 1536):
            r, v = tile(whole_tiles(rows), panel(rows, columns) // 16, target)
            assert r * v >= 14


def test_long_sums_do_not_round_too_often() -> None:
    """Equal terms are rounded the same way again and again, where they are added one by one."""
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]> '
        "g (float[2, 3072] x, float[3072, 32] w) => (float[2, 32] y) { y = MatMul(x, w) }"
    )
    terms = np.full((2, 3072), 0.1, np.float32)
    exact = terms[0].astype(np.float64).sum()
    one_by_one = np.cumsum(terms[0])[-1]
    y = edgec.compile(model).run({"x": terms, "w": np.ones((3072, 32), np.float32)})["y"]
    assert abs(one_by_one / exact - 1) > 5e-6
    np.testing.assert_allclose(y, exact, rtol=2e-6)


@pytest.mark.parametrize(("rows", "columns", "fetches"), [(128, 512, 1), (8, 512, 0), (128, 96, 0)])
def test_the_next_panel_is_prefetched(rows: int, columns: int, fetches: int) -> None:
    """Where panels are many, and each is used by tiles of rows enough to hide it behind."""
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]> '
        f"g (float[{rows}, 256] x) => (float[{rows}, {columns}] y) {{ y = MatMul(x, w) }}"
    )
    weights = np.ones((256, columns), np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    target = targets.resolve("x86-64-v4")
    (function,) = lower_graph(load(model), "m", [], target).kernels.values()
    text = schedule(function, target, strict=True).script()
    assert text.count("llvm.prefetch") == fetches
