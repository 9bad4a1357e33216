"""A kernel for a GPU, compiled: CUDA C, machine code, PTX."""

from __future__ import annotations

from dataclasses import replace

import tvm

from edgec.emit.cuda_kernel import CudaKernel
from edgec.emit.cuda_nvrtc import compile_cuda
from edgec.emit.cuda_prelude import PRELUDE
from edgec.lower.cuda import device_kernel
from edgec.targets import Target


def compile_cuda_kernel(
    function: str,
    symbol: str,
    target: Target,
    overwrites: tuple[int, int] | None,
    *,
    vectors: bool,
) -> CudaKernel:
    """Compile the PrimFunc that `function` holds as TVM's JSON for the GPU of `target`; the rest is
    as `device_kernel` takes it."""
    kernel = device_kernel(tvm.ir.load_json(function), symbol, target, overwrites, vectors=vectors)
    if not kernel.launches:
        return kernel
    code = compile_cuda(PRELUDE + kernel.source, target.gpu_arch, target.cuda)
    return replace(kernel, cubin=code.cubin, ptx=code.ptx)
