"""Products by tiles of our own: what they compute, on the twin, and what NVRTC makes of them."""

from __future__ import annotations

import ctypes
import math
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tvm import te, tirx

from edgec import targets
from edgec.cache import Cache
from edgec.emit.cuda_kernel import CudaKernel
from edgec.emit.cuda_twin import link_twin
from edgec.emit.toolchain import Toolchain
from edgec.lower.cuda_build import compile_cuda_kernel
from edgec.lower.dot import dot4, quad
from edgec.lower.kernels import tvm
from edgec.lower.requantize import requantized

Array = np.ndarray[Any, Any]
TARGET = targets.resolve("jetson")


def compiled(function: tirx.PrimFunc, vectors: bool = True) -> CudaKernel:
    text = tvm.ir.save_json(function)
    return compile_cuda_kernel(text, "kernel", TARGET, None, vectors=vectors)


def run(kernel: CudaKernel, folder: Path, arrays: list[Array]) -> None:
    """Launch `kernel` on arrays, inputs then outputs, by the functions of a twin of the driver."""
    toolchain = Toolchain.of(targets.host(), Cache.default().path)
    path = folder / "twin.so"
    twin = link_twin([kernel], TARGET.gpu_arch, 12060, toolchain, soname="twin.so")
    path.write_bytes(twin)
    driver = ctypes.CDLL(str(path))
    sizes = [*(array.nbytes for array in arrays), max(kernel.scratch_bytes, 1)]
    places = [ctypes.c_uint64() for _ in sizes]
    for place, size in zip(places, sizes, strict=True):
        assert driver.cuMemAlloc_v2(ctypes.byref(place), ctypes.c_size_t(size)) == 0
    for place, array in zip(places, arrays, strict=False):
        source = array.ctypes.data_as(ctypes.c_void_p)
        assert driver.cuMemcpyHtoD_v2(place, source, ctypes.c_size_t(array.nbytes)) == 0
    for launch in kernel.launches:
        function = ctypes.c_void_p()
        name = launch.function.encode()
        assert driver.cuModuleGetFunction(ctypes.byref(function), None, name) == 0
        given = [
            ctypes.c_uint64(
                places[-1].value + pointer.offset
                if pointer.param is None
                else places[pointer.param].value
            )
            for pointer in launch.arguments
        ]
        pointers = (ctypes.c_void_p * len(given))(
            *(ctypes.cast(ctypes.byref(each), ctypes.c_void_p) for each in given)
        )
        assert (
            driver.cuLaunchKernel(function, *launch.grid, *launch.block, 0, None, pointers, None)
            == 0
        )
    for place, array in zip(places, arrays, strict=False):
        wanted = array.ctypes.data_as(ctypes.c_void_p)
        assert driver.cuMemcpyDtoH_v2(wanted, place, ctypes.c_size_t(array.nbytes)) == 0


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
    assert ("edgec_multiply_half<kernel" in kernel.source) == half
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


def bytes_product(rows: int, columns: int, terms: int) -> Any:
    """a b of uint8 and int8, in quads, to the nearest uint8 after a scale."""
    a = te.placeholder((rows, 4 * terms), "uint8", name="a")
    b = te.placeholder((terms, columns), "int32", name="b")
    k = te.reduce_axis((0, terms), "k")
    sums = te.compute(
        (rows, columns),
        lambda i, j: te.sum(
            dot4(quad(*(a[i, 4 * k + byte] for byte in range(4))), b[k, j]), axis=k
        ),
        name="sums",
    )
    out = te.compute(
        (rows, columns),
        lambda i, j: requantized(
            sums[i, j].astype("float32") * tirx.const(0.001, "float32"), 128, 0, 255, "uint8"
        ),
        name="out",
    )
    return te.create_prim_func([a, b, out])


@pytest.mark.parametrize(("rows", "columns", "terms"), [(40, 24, 12), (3, 24, 12)])
def test_products_of_bytes_are_exact(rows: int, columns: int, terms: int, tmp_path: Path) -> None:
    """By tiles, and, for few rows, by TVM's loops."""
    kernel = compiled(bytes_product(rows, columns, terms))
    assert ("edgec_multiply<" in kernel.source) == (rows >= 8)
    assert "IDP.4A.U8.S8" in instructions(kernel, tmp_path)
    chance = np.random.default_rng(5)
    a = chance.integers(0, 256, (rows, 4 * terms), np.uint8)
    b = chance.integers(-128, 128, (4 * terms, columns), np.int8)
    packed = np.ascontiguousarray(b.reshape(terms, 4, columns).transpose(0, 2, 1)).view(np.int32)
    out = np.zeros((rows, columns), np.uint8)
    run(kernel, tmp_path, [a, packed.reshape(terms, columns), out])
    scaled = (a.astype(np.int32) @ b.astype(np.int32)).astype(np.float32) * np.float32(0.001)
    exact = np.rint(np.clip(scaled, -128, 127)).astype(np.int32) + 128
    np.testing.assert_array_equal(out, exact.astype(np.uint8))


def instructions(kernel: CudaKernel, folder: Path) -> str:
    spec = find_spec("nvidia")
    roots = [Path(root) for root in (spec.submodule_search_locations or [])] if spec else []
    tools = [tool for root in roots for tool in root.glob("*/bin/nvdisasm")]
    if not tools:
        pytest.skip("nvdisasm is not installed: pip install nvidia-cuda-nvdisasm")
    path = folder / "kernel.cubin"
    path.write_bytes(kernel.cubin)
    done = subprocess.run([tools[0], "-c", path], capture_output=True, text=True, check=True)
    return done.stdout


def test_half_precision_is_multiplied_by_tensor_cores(tmp_path: Path) -> None:
    half = compiled(convolution("float16"))
    assert "HMMA.16816.F32" in instructions(half, tmp_path)
    single = instructions(compiled(convolution("float32")), tmp_path)
    assert "HMMA" not in single
    assert single.count("FFMA") >= 16


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(("rows", "columns"), [(2048, 1024), (512, 128), (256, 64), (64, 32)])
def test_no_tile_spills(dtype: str, rows: int, columns: int) -> None:
    [facts] = compiled(product(dtype, 1, rows, columns, 256, "terms")).facts()
    threads = 128 if dtype == "float16" else 256
    assert facts.frame_bytes == 0
    assert facts.registers * threads <= 65536
    assert facts.shared_bytes <= 48 << 10


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
