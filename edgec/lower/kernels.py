"""One kernel: from scheduled TIR to a native object file.

Kernels do not use TVM's packed calling convention. A kernel is the C function
`int32_t NAME(void *in0, ..., void *out0, ...)` that returns 0, so that the runtime needs no
argument decoding and nothing of TVM but three function pointers (parallel launch, workspace
allocation and release).
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import tvm
import tvm_ffi
from tvm import s_tir, tirx
from tvm.ir import IRModule, PointerType, PrimType

from edgec.lower.clamps import native_clamps, plain_maxima
from edgec.lower.dot import expand_dots
from edgec.lower.fast_math import expand_math
from edgec.lower.half import expand_halves
from edgec.lower.lookup import expand_lookups
from edgec.targets import Target
from edgec.targets.cpu import schedule
from edgec.targets.cpu.knobs import Decided, Value

_WORKSPACE_ALIGNMENT = 64
_STACK_BYTES = 4096
"""The largest buffer that is kept on the stack, where LLVM makes registers of it."""

_ON_STACK = "disable_lower_builtin"
"""TVM's annotation of a buffer that is not to be workspace."""


@dataclass(frozen=True)
class CompiledKernel:
    """A native object, and the scratch memory in bytes that each thread running it needs."""

    object: bytes
    scratch_bytes: int


def tvm_target(target: Target) -> tvm.target.Target:
    """TVM's description of `target`."""
    facts: dict[str, object] = {"kind": "llvm", "mtriple": target.triple, "mcpu": target.mcpu}
    if target.features:
        facts["mattr"] = list(target.features)
    return tvm.target.Target(facts)


def compile_kernel(
    function: str,
    symbol: str,
    target: Target,
    overwrites: tuple[int, int] | None,
    decisions: Mapping[str, Value],
) -> CompiledKernel:
    """Schedule, lower and compile the PrimFunc that `function` holds as TVM's JSON.

    `decisions` set knobs of its schedule; where they say nothing, the rule's choice stands.
    """
    scheduled = schedule(tvm.ir.load_json(function), target, Decided(decisions))
    module = lower(scheduled, symbol, target, overwrites)
    with tempfile.TemporaryDirectory(prefix="edgec-") as folder:
        path = Path(folder) / "kernel.o"
        generate(module, target).write_to_file(str(path))
        return CompiledKernel(path.read_bytes(), scratch_bytes(module[symbol]))


def scratch_bytes(function: tirx.PrimFunc) -> int:
    """Scratch memory that one thread may hold at once in a lowered kernel, in bytes.

    An upper bound: every workspace of the kernel, as if all were live together.
    """
    total = 0

    def add(call: tvm.ir.Call, visitor: tvm_ffi.StructuralVisitor) -> None:
        nonlocal total
        if isinstance(call.op, tvm.ir.Op) and call.op.name == "tirx.TVMBackendAllocWorkspace":
            total += -(-int(call.args[2]) // _WORKSPACE_ALIGNMENT) * _WORKSPACE_ALIGNMENT

        visitor.default_visit(call)

    tvm_ffi.structural_visit(function, (tvm.ir.Call, add))
    return total


def lower(
    function: tirx.PrimFunc, symbol: str, target: Target, overwrites: tuple[int, int] | None
) -> IRModule:
    """Scheduled TIR to the TIR that LLVM's code generator takes.

    `overwrites` names an input and an output parameter that are one and the same memory.
    """
    llvm = tvm_target(target)
    if target.nan_maximum:
        function = plain_maxima(function)
    function = function.with_attr("global_symbol", symbol)
    function = function.with_attr("target", llvm.with_host(llvm))
    function = function.with_attr("tirx.noalias", True)
    module = _LOOPS_TO_VECTORS(IRModule({symbol: function}))
    function = expand_lookups(expand_dots(module[symbol], target), target)
    module = _TO_FLAT(IRModule({symbol: function}))
    function = expand_halves(expand_math(module[symbol]), target)
    if target.nan_maximum:
        function = native_clamps(function)
    function = _on_stack(function)
    module = IRModule({symbol: with_c_signature(function, overwrites)})
    module = _FLAT_TO_LLVM(module)
    return IRModule({symbol: _returning_zero(module[symbol])})


def generate(module: IRModule, target: Target) -> tvm.runtime.Module:
    """LLVM code for a lowered kernel; `.inspect_source("asm")` shows it."""
    return tvm.get_global_func("target.build.llvm")(module, tvm_target(target))


BLOCKS_TO_VECTORS: tuple[tvm.transform.Pass, ...] = (
    s_tir.transform.LowerMatchBuffer(),
    s_tir.transform.StmtSimplify(),
    s_tir.transform.LowerOpaqueBlock(),
    tirx.transform.FlattenBuffer(),
    tirx.transform.BF16ComputeLegalize(),
    tirx.transform.NarrowDataType(32),
    s_tir.transform.LoopPartition(),
    tirx.transform.VectorizeLoop(True),
    tirx.transform.StorageRewrite(),
    s_tir.transform.HoistIfThenElse(),
    tirx.transform.UnrollLoop(),
    s_tir.transform.RenormalizeSplitPattern(),
    tirx.transform.StmtSimplify(),
    tirx.transform.RemoveNoOp(),
    s_tir.transform.RewriteUnsafeSelect(),
)
"""Opaque blocks to flat, vectorised and unrolled loops: what processors and GPUs have in common."""

_LOOPS_TO_VECTORS = tvm.transform.Sequential(
    [
        s_tir.transform.CanonicalizeLoop(),
        s_tir.transform.LowerInitBlock(),
        s_tir.transform.PlanAndUpdateBufferAllocationLocation(),
        s_tir.transform.ConvertBlocksToOpaque(),
        s_tir.transform.CompactBufferAllocation(),
        *BLOCKS_TO_VECTORS,
    ]
)

_TO_FLAT = tvm.transform.Sequential(
    [
        tirx.transform.CommonSubexprElim(),
        tirx.transform.FP8ComputeLegalize(),
        tirx.transform.VerifyMemory(),
    ]
)

_FLAT_TO_LLVM = tvm.transform.Sequential(
    [
        tirx.transform.FP8StorageLegalize(),
        tirx.transform.BF16StorageLegalize(),
        tirx.transform.LowerTVMBuiltin(),
        tirx.transform.LowerIntrin(),
    ]
)


def _on_stack(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """`function` with its small buffers on the stack; TVM's own limit is too low for a tile."""

    def kept(allocation: tirx.AllocBuffer) -> tirx.AllocBuffer:
        buffer = allocation.buffer
        dtype = tvm.DataType(str(buffer.dtype))
        bits = dtype.bits * dtype.lanes * math.prod(int(size) for size in buffer.shape)
        if bits > 8 * _STACK_BYTES:
            return allocation
        return tirx.AllocBuffer(buffer, annotations={_ON_STACK: tirx.IntImm("int32", 1)})

    return tvm_ffi.structural_map(function, (tirx.AllocBuffer, kept))


def with_c_signature(function: tirx.PrimFunc, overwrites: tuple[int, int] | None) -> tirx.PrimFunc:
    """Replace buffer parameters by plain pointers, one each, in the same order.

    No pointer aliases another: what is overwritten is read through the pointer it is written
    by, and its own goes unused.
    """
    pointers = [
        tirx.Var(f"{buffer.name}_ptr", PointerType(PrimType(str(buffer.dtype))))
        for buffer in function.params
    ]
    data = list(pointers)
    if overwrites is not None:
        source, target = overwrites
        data[source] = pointers[target]
    declared = [
        tirx.DeclBuffer(buffer, data=pointer)
        for buffer, pointer in zip(function.params, data, strict=True)
    ]
    body = tirx.SeqStmt([*declared, function.body])
    for key, value in (("device_type", 1), ("device_id", 0)):
        body = tirx.AttrStmt("default", key, tirx.IntImm("int32", value), body)
    return tirx.PrimFunc(pointers, body, ret_type=PrimType("int32"), attrs=function.attrs)


def _returning_zero(function: tirx.PrimFunc) -> tirx.PrimFunc:
    body = tirx.SeqStmt([function.body, tirx.Return(tirx.IntImm("int32", 0))])
    return tirx.PrimFunc(function.params, body, ret_type=PrimType("int32"), attrs=function.attrs)
