"""Products by tiles of our own: what they compute, on the twin."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tvm import te, tirx

from .launching import compiled, run


def product(dtype: str, batch: int, rows: int, columns: int, terms: int, along: str) -> Any:
    """relu(a b + c) with b stored along its columns or its terms."""
    a = te.placeholder((batch, rows, terms), dtype, name="a")
    shape = (terms, columns) if along == "columns" else (columns, terms)
    b = te.placeholder((batch, *shape), dtype, name="b")
    c = te.placeholder((columns,), dtype, name="c")
    k = te.reduce_axis((0, terms), "k")

    def right(z: Any, j: Any) -> Any:
        return b[z, k, j] if along == "columns" else b[z, j, k]

    sums = te.compute(
        (batch, rows, columns),
        lambda z, i, j: te.sum(
            a[z, i, k].astype("float32") * right(z, j).astype("float32"), axis=k
        ),
        name="sums",
    )
    out = te.compute(
        (batch, rows, columns),
        lambda z, i, j: tirx.max(
            sums[z, i, j] + c[j].astype("float32"), tirx.const(0, "float32")
        ).astype(dtype),
        name="out",
    )
    return te.create_prim_func([a, b, c, out])


CASES = [
    ("float32", 1, 64, 64, 64, "columns"),
    ("float32", 2, 33, 17, 19, "terms"),
    ("float16", 1, 64, 64, 64, "columns"),
    ("float16", 1, 130, 72, 40, "terms"),
    ("float16", 2, 33, 17, 19, "columns"),
]


@pytest.mark.parametrize(("dtype", "batch", "rows", "columns", "terms", "along"), CASES)
def test_products(
    dtype: str, batch: int, rows: int, columns: int, terms: int, along: str, tmp_path: Path
) -> None:
    kernel = compiled(product(dtype, batch, rows, columns, terms, along))
    half = dtype == "float16"
    assert ("edgec_multiply_cores<kernel" in kernel.source) == half
    assert len(kernel.launches) == 1
    chance = np.random.default_rng(rows)
    a = chance.standard_normal((batch, rows, terms)).astype(dtype)
    b = chance.standard_normal((batch, terms, columns)).astype(dtype)
    c = chance.standard_normal(columns).astype(dtype)
    out = np.zeros((batch, rows, columns), dtype)
    stored = b if along == "columns" else np.ascontiguousarray(b.transpose(0, 2, 1))
    run(kernel, tmp_path, [a, stored, c, out])
    exact = np.maximum(a.astype(np.float64) @ b.astype(np.float64) + c.astype(np.float64), 0)
    np.testing.assert_allclose(out, exact, rtol=2e-3 if half else 1e-5, atol=2e-3 if half else 1e-5)


def convolution(dtype: str) -> Any:
    """A 3x3 convolution of [1,16,9,11] by [24,16,3,3], padded, and a bias."""
    x = te.placeholder((1, 16, 9, 11), dtype, name="x")
    w = te.placeholder((24, 16, 3, 3), dtype, name="w")
    bias = te.placeholder((24,), dtype, name="bias")
    pad = te.compute(
        (1, 16, 11, 13),
        lambda n, c, i, j: tirx.if_then_else(
            tirx.all(i >= 1, i < 10, j >= 1, j < 12), x[n, c, i - 1, j - 1], tirx.const(0, dtype)
        ),
        name="pad",
    )
    c, i, j = (te.reduce_axis((0, n), name) for n, name in ((16, "c"), (3, "i"), (3, "j")))
    sums = te.compute(
        (1, 24, 9, 11),
        lambda n, o, y, z: te.sum(pad[n, c, y + i, z + j] * w[o, c, i, j], axis=[c, i, j]),
        name="sums",
    )
    out = te.compute((1, 24, 9, 11), lambda n, o, y, z: sums[n, o, y, z] + bias[o], name="out")
    return te.create_prim_func([x, w, bias, out])


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("vectors", [True, False])
def test_convolutions(dtype: str, vectors: bool, tmp_path: Path) -> None:
    kernel = compiled(convolution(dtype), vectors)
    assert len(kernel.launches) == 1
    chance = np.random.default_rng(3)
    x = chance.standard_normal((1, 16, 9, 11)).astype(dtype)
    w = chance.standard_normal((24, 16, 3, 3)).astype(dtype)
    bias = chance.standard_normal(24).astype(dtype)
    out = np.zeros((1, 24, 9, 11), dtype)
    run(kernel, tmp_path, [x, w, bias, out])
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    exact = np.einsum("ncyxij,ocij->noyx", windows, w.astype(np.float64))
    exact += bias.astype(np.float64)[:, None, None]
    tolerance = 2e-2 if dtype == "float16" else 1e-4
    np.testing.assert_allclose(out, exact, rtol=tolerance, atol=tolerance)


def test_a_small_product_is_left_to_tvm() -> None:
    kernel = compiled(product("float32", 1, 4, 64, 64, "columns"))
    assert "edgec_multiply" not in kernel.source
    assert math.prod(kernel.launches[0].grid) > 1


def test_names_of_tensors_are_not_in_the_source() -> None:
    """They may be anything, such as "Relu;Conv/bias" of tf2onnx."""
    name = 'a;b/c) { asm("trap;"); } //'
    x = te.placeholder((4, 300), "float32", name=name)
    row = te.reduce_axis((0, 300), "k")
    total = te.compute((4,), lambda i: te.sum(x[i, row], axis=row), name="total")
    y = te.compute((4, 300), lambda i, j: x[i, j] / total[i], name="y")
    kernel = compiled(te.create_prim_func([x, y]))
    assert kernel.cubin
    assert "asm" not in kernel.source
    assert not any(c in kernel.source for c in ("a;b", "a_b"))
