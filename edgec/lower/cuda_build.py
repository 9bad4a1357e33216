"""A kernel for a GPU, compiled: CUDA C, machine code, PTX."""

from __future__ import annotations

from dataclasses import replace

import tvm

from edgec.emit.cuda_kernel import CudaKernel
from edgec.emit.cuda_nvrtc import compile_cuda
from edgec.emit.cuda_prelude import PRELUDE
from edgec.lower.cuda import device_kernel
from edgec.targets import Target

_EXACT = ("edgec_dot4", "sum_type = int32_t", "__float2int_rn")
"""In the text of integer kernels, whose results are promised to the bit."""


def compile_cuda_kernel(
    function: str,
    symbol: str,
    target: Target,
    overwrites: tuple[int, int] | None,
    *,
    vectors: bool,
    tf32: bool = False,
) -> CudaKernel:
    """Compile the PrimFunc that `function` holds as TVM's JSON for the GPU of `target`; the rest is
    as `device_kernel` takes it."""
    kernel = device_kernel(
        tvm.ir.load_json(function), symbol, target, overwrites, vectors=vectors, tf32=tf32
    )
    if not kernel.launches:
        return kernel
    exact = any(name in kernel.source for name in _EXACT)
    options = ["--fmad=false"] if exact else []
    text = PRELUDE + kernel.source
    code = compile_cuda(text, target.gpu_arch, target.cuda, options, path=target.cuda_path)
    return replace(kernel, cubin=code.cubin, ptx=code.ptx)
