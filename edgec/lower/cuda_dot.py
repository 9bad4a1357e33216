"""The operators of `edgec.lower.dot` as functions of `edgec/emit/cuda_prelude.h`: packing, products
of four bytes (DP4A), rounding."""

from __future__ import annotations

from typing import Any

import tvm
import tvm_ffi
from tvm import tirx

from edgec.lower import dot

_FUNCTIONS = {
    dot.QUAD: "edgec_quad",
    dot.DOT4: "edgec_dot4",
    dot.TO_NEAREST: "__float2int_rn",
}


def expand_dots_on_gpu(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """`function` with these operators as calls of functions that the CUDA C has."""

    def expand(call: tvm.ir.Call) -> Any:
        name = call.op.name if isinstance(call.op, tvm.ir.Op) else ""
        if name == dot.ROUNDED:  # NVRTC fuses nothing here
            return call.args[0]
        if name not in _FUNCTIONS:
            return call
        return tirx.call_pure_extern("int32", _FUNCTIONS[name], *call.args)

    return tvm_ffi.structural_map(function, (tvm.ir.Call, expand))
