"""A single kernel for a GPU: compiled, launched on the twin of the driver, disassembled."""

from __future__ import annotations

import ctypes
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tvm import tirx

from edgec import targets
from edgec.cache import Cache
from edgec.emit.cuda_kernel import CudaKernel
from edgec.emit.cuda_twin import link_twin
from edgec.emit.toolchain import Toolchain
from edgec.lower.cuda_build import compile_cuda_kernel
from edgec.lower.kernels import tvm

Array = np.ndarray[Any, Any]
TARGET = targets.resolve("jetson")


def compiled(
    function: tirx.PrimFunc,
    vectors: bool = True,
    target: targets.Target = TARGET,
    tf32: bool = False,
) -> CudaKernel:
    """The kernel of `function` for the GPU of `target`."""
    text = tvm.ir.save_json(function)
    return compile_cuda_kernel(text, "kernel", target, None, vectors=vectors, tf32=tf32)


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


def instructions(kernel: CudaKernel, folder: Path) -> str:
    """The machine code of `kernel` as text, by NVIDIA's disassembler; skips where it is not."""
    spec = find_spec("nvidia")
    roots = [Path(root) for root in (spec.submodule_search_locations or [])] if spec else []
    tools = [tool for root in roots for tool in root.glob("*/bin/nvdisasm")]
    if not tools:
        pytest.skip("nvdisasm is not installed: pip install nvidia-cuda-nvdisasm")
    path = folder / "kernel.cubin"
    path.write_bytes(kernel.cubin)
    done = subprocess.run([tools[0], "-c", path], capture_output=True, text=True, check=True)
    return done.stdout
