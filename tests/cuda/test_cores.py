"""Products on tensor cores: what they compute, on the twin, and what NVRTC makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tvm import te, tirx

from edgec import targets
from edgec.emit.cuda_cubin import architecture
from edgec.lower.dot import dot4, quad
from edgec.lower.requantize import requantized

from .launching import compiled, instructions, run
from .test_multiply import convolution, product

ORIN = targets.resolve("jetson")
TURING = targets.resolve("cuda-sm_75")
XAVIER = targets.resolve("jetson-xavier")


def bytes_product(batch: int, rows: int, columns: int, quads: int, along: str) -> Any:
    """a b of uint8 [batch,rows,4*quads] and int8, in quads along its columns or its terms, to the
    nearest uint8 after a scale."""
    a = te.placeholder((batch, rows, 4 * quads), "uint8", name="a")
    shape = (quads, columns) if along == "columns" else (columns, quads)
    b = te.placeholder((batch, *shape), "int32", name="b")
    k = te.reduce_axis((0, quads), "k")

    def right(z: Any, j: Any) -> Any:
        return b[z, k, j] if along == "columns" else b[z, j, k]

    sums = te.compute(
        (batch, rows, columns),
        lambda z, i, j: te.sum(
            dot4(quad(*(a[z, i, 4 * k + byte] for byte in range(4))), right(z, j)), axis=k
        ),
        name="sums",
    )
    out = te.compute(
        (batch, rows, columns),
        lambda z, i, j: requantized(
            sums[z, i, j].astype("float32") * tirx.const(0.001, "float32"), 128, 0, 255, "uint8"
        ),
        name="out",
    )
    return te.create_prim_func([a, b, out])


BYTES = [
    (1, 130, 72, 40, "columns"),
    (1, 64, 64, 48, "terms"),
    (2, 33, 17, 19, "columns"),
    (2, 33, 17, 19, "terms"),
    (1, 3, 24, 12, "columns"),
]


@pytest.mark.parametrize(("batch", "rows", "columns", "quads", "along"), BYTES)
def test_products_of_bytes_are_exact(
    batch: int, rows: int, columns: int, quads: int, along: str, tmp_path: Path
) -> None:
    """On tensor cores, and, for few rows, by TVM's loops."""
    kernel = compiled(bytes_product(batch, rows, columns, quads, along))
    assert ("edgec_multiply_cores<kernel" in kernel.source) == (rows >= 8)
    chance = np.random.default_rng(rows)
    a = chance.integers(0, 256, (batch, rows, 4 * quads), np.uint8)
    b = chance.integers(-128, 128, (batch, 4 * quads, columns), np.int8)
    a[:, 0], b[:, :, 0] = 255, -128
    by_quad = b.reshape(batch, quads, 4, columns).transpose(0, 1, 3, 2)
    if along == "terms":
        by_quad = by_quad.transpose(0, 2, 1, 3)
    packed = np.ascontiguousarray(by_quad).view(np.int32)[..., 0]
    out = np.zeros((batch, rows, columns), np.uint8)
    run(kernel, tmp_path, [a, packed, out])
    scaled = (a.astype(np.int32) @ b.astype(np.int32)).astype(np.float32) * np.float32(0.001)
    exact = np.rint(np.clip(scaled, -128, 127)).astype(np.int32) + 128
    np.testing.assert_array_equal(out, exact.astype(np.uint8))


@pytest.mark.parametrize(
    ("target", "rows", "instruction"),
    [
        (ORIN, 64, "IMMA.16832.U8.S8"),
        (TURING, 64, "IMMA.8816.U8.S8"),
        (ORIN, 3, "IDP.4A.U8.S8"),
    ],
)
def test_bytes_are_multiplied_by_the_best_there_is(
    target: targets.Target, rows: int, instruction: str, tmp_path: Path
) -> None:
    kernel = compiled(bytes_product(1, rows, 64, 32, "columns"), target=target)
    assert instruction in instructions(kernel, tmp_path)


def test_xavier_multiplies_four_bytes_at_once() -> None:
    """Its tensor cores take no bytes of which one has a sign, the other none."""
    kernel = compiled(bytes_product(1, 64, 64, 32, "columns"), target=XAVIER)
    assert "edgec_multiply<kernel" in kernel.source
    assert architecture(kernel.cubin) == 72


@pytest.mark.parametrize(
    ("target", "instruction"), [(ORIN, "HMMA.16816.F32"), (TURING, "HMMA.1688.F32")]
)
def test_half_precision_is_multiplied_by_tensor_cores(
    target: targets.Target, instruction: str, tmp_path: Path
) -> None:
    kernel = compiled(convolution("float16"), target=target)
    assert instruction in instructions(kernel, tmp_path)


def in_tf32(values: Any) -> Any:
    """`values` to the nearest of 10 bits of mantissa, ties away from zero, as float64."""
    fraction, exponent = np.frexp(values.astype(np.float64))
    whole = np.trunc(np.abs(fraction) * 2**11 + 0.5)
    return np.copysign(np.ldexp(whole, exponent - 11), values)


@pytest.mark.parametrize("vectors", [True, False])
@pytest.mark.parametrize(
    ("batch", "rows", "columns", "terms", "along"),
    [(1, 130, 72, 40, "columns"), (1, 64, 64, 64, "terms"), (2, 33, 17, 19, "columns")],
)
def test_tf32_rounds_factors_and_nothing_else(
    batch: int, rows: int, columns: int, terms: int, along: str, vectors: bool, tmp_path: Path
) -> None:
    function = product("float32", batch, rows, columns, terms, along)
    kernel = compiled(function, vectors, tf32=True)
    assert "edgec_multiply_cores<kernel" in kernel.source
    chance = np.random.default_rng(rows)
    a = chance.standard_normal((batch, rows, terms)).astype(np.float32)
    b = chance.standard_normal((batch, terms, columns)).astype(np.float32)
    a[0, 0, 0], a[0, 1, 0] = np.float32(1 + 2**-11), np.float32(1 + 3 * 2**-12)
    c = chance.standard_normal(columns).astype(np.float32)
    out = np.zeros((batch, rows, columns), np.float32)
    stored = b if along == "columns" else np.ascontiguousarray(b.transpose(0, 2, 1))
    run(kernel, tmp_path, [a, stored, c, out])
    meant = np.maximum(in_tf32(a) @ in_tf32(b) + c.astype(np.float64), 0)
    np.testing.assert_allclose(out, meant, rtol=1e-5, atol=1e-5)
    exact = np.maximum(a.astype(np.float64) @ b + c, 0)
    assert 1e-4 < np.abs(out - exact).max() < 2e-2


def test_tf32_is_multiplied_by_tensor_cores_that_have_it(tmp_path: Path) -> None:
    assert "HMMA.1688.F32.TF32" in instructions(
        compiled(convolution("float32"), tf32=True), tmp_path
    )
    turing = compiled(convolution("float32"), target=TURING, tf32=True)
    assert "edgec_multiply<kernel" in turing.source


def test_single_precision_is_not_narrowed_unasked(tmp_path: Path) -> None:
    text = instructions(compiled(convolution("float32")), tmp_path)
    assert "HMMA" not in text
    assert text.count("FFMA") >= 16


@pytest.mark.parametrize("kind", ["float32", "tf32", "float16", "bytes"])
@pytest.mark.parametrize(("rows", "columns"), [(2048, 1024), (512, 128), (256, 64), (64, 32)])
def test_no_tile_spills(kind: str, rows: int, columns: int) -> None:
    function = (
        bytes_product(1, rows, columns, 64, "columns")
        if kind == "bytes"
        else product("float32" if kind == "tf32" else kind, 1, rows, columns, 256, "terms")
    )
    [facts] = compiled(function, tf32=kind == "tf32").facts()
    threads = 256 if kind == "float32" else 128
    assert facts.frame_bytes == 0
    assert facts.registers * threads <= 65536
    assert facts.shared_bytes <= 48 << 10
