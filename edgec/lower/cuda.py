"""One kernel for a GPU: from TIR to CUDA C, and how its functions are launched.

A kernel is a list of launches. Each passes pointers, first of the kernel's own parameters or into
the scratch memory that it needs between launches, and nothing else: shapes are static, so grids
and blocks are constants, and shared memory is declared in the source.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import tvm
import tvm_ffi
from tvm import s_tir, tirx
from tvm.ir import IRModule

from edgec.emit.cuda_kernel import CudaKernel, Launch, Pointer
from edgec.emit.cuda_prelude import TILES
from edgec.errors import LoweringError
from edgec.lower.cuda_contraction import contraction, size, takes
from edgec.lower.cuda_dot import expand_dots_on_gpu
from edgec.lower.cuda_multiply import source_of, tiles_for
from edgec.lower.cuda_print import NotPrintable
from edgec.lower.cuda_stages import accesses, bytes_of, position, stage_of, statements
from edgec.lower.kernels import BLOCKS_TO_VECTORS, with_c_signature
from edgec.targets import Target
from edgec.targets.cpu.blocks import compute_blocks, inline_cheap_producers, is_spatial
from edgec.targets.cuda import schedule
from edgec.targets.cuda.rows import schedule_rows

_DEVICE_LAUNCH = 2
"""TVM's calling convention of functions that run on the GPU."""


@dataclass(frozen=True)
class _Call:
    """A launch within a stage: arguments are its parameters by position, or scratch memory."""

    function: str
    grid: tuple[int, ...]
    block: tuple[int, ...]
    arguments: tuple[int | Pointer, ...]


Reserve = Callable[[int], Pointer]


def cuda_target(arch: str) -> tvm.target.Target:
    """TVM's description of a GPU of compute capability `arch`, "sm_87"."""
    facts = {"kind": "cuda", "arch": arch, "max_num_threads": 1024, "thread_warp_size": 32}
    return tvm.target.Target(facts, host={"kind": "llvm", "mtriple": "x86_64-linux-gnu"})


def device_kernel(
    function: tirx.PrimFunc,
    symbol: str,
    target: Target,
    overwrites: tuple[int, int] | None,
    *,
    vectors: bool = True,
    tf32: bool = False,
) -> CudaKernel:
    """CUDA C for the unscheduled `function`; the names of its functions begin with `symbol`.

    `overwrites` names an input and an output parameter that are one and the same memory. With
    `vectors` every buffer begins at a multiple of 16 bytes, with `tf32` tensor cores may round
    float32 to multiply it.
    """
    whole = s_tir.Schedule(_with_numbers(function))
    inline_cheap_producers(whole)
    _inline_borders(whole)
    writer = _Writer(whole.mod["main"], symbol, target, overwrites, vectors, tf32)
    writer.write()
    return writer.kernel()


def _with_numbers(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """`function` with parameters called p0, p1, ...: theirs are the names of the model's tensors,
    which may be anything, and would stand in the source."""
    numbered = [
        tirx.decl_buffer(buffer.shape, buffer.dtype, name=f"p{number}")
        for number, buffer in enumerate(function.params)
    ]

    def renamed(buffer: tirx.Buffer) -> tirx.Buffer:
        place = position(buffer, list(function.params))
        return buffer if place is None else numbered[place]

    return tvm_ffi.structural_map(function, (tirx.Buffer, renamed))


def _inline_borders(schedule: s_tir.Schedule) -> None:
    """Let what reads an image beyond its border see to that itself, instead of a larger copy. Not
    bytes: theirs is not zero."""
    for block in compute_blocks(schedule):
        name = schedule.get(block).name_hint
        floating = "float" in str(schedule.get(block).writes[0].source.dtype)
        if name.startswith("pad") and floating and is_spatial(schedule, block):
            with contextlib.suppress(s_tir.ScheduleError):
                schedule.compute_inline(block)


def _row_wise(function: tirx.PrimFunc) -> bool:
    try:
        return schedule_rows(s_tir.Schedule(function))
    except s_tir.ScheduleError:
        return False


class _Writer:
    """The launches of one kernel, and the source they need."""

    def __init__(
        self,
        function: tirx.PrimFunc,
        symbol: str,
        target: Target,
        overwrites: tuple[int, int] | None,
        vectors: bool,
        tf32: bool,
    ) -> None:
        self.vectors = vectors
        self.tf32 = tf32
        self.tiled = False
        self.function = function
        self.symbol = symbol
        self.arch = target.gpu_arch
        self.overwrites = overwrites
        self.sources: list[str] = []
        self.launches: list[Launch] = []
        self.scratch: list[tuple[tirx.Buffer, int]] = []
        self.scratch_bytes = 0

    def kernel(self) -> CudaKernel:
        sources = [TILES, *self.sources] if self.tiled else self.sources
        return CudaKernel("\n".join(sources), tuple(self.launches), self.scratch_bytes)

    def write(self) -> None:
        """Every statement of the kernel, in order: products by our own tiles, the rest by TVM."""
        every = statements(self.function)
        rest: list[int] = []
        place = 0
        while place < len(every):
            took = self._product(every, place, rest)
            if not took:
                rest.append(place)
            place += max(took, 1)
        self._by_tvm(rest)

    def _product(self, every: list[tirx.Stmt], place: int, before: list[int]) -> int:
        """Write the statement at `place` as a product of tiles, after those `before` it, with the
        next one where that is its tail; how many statements that were, 0 where it is none."""
        problem = contraction(every[place])
        tiles = tiles_for(problem, int(self.arch[3:]), tf32=self.tf32) if problem else None
        if problem is None or tiles is None:
            return 0
        chosen = [place]
        sums = problem.sums
        if position(sums, list(self.function.params)) is None and place + 1 < len(every):
            reads = [position(sums, accesses(each)[0]) is not None for each in every]
            tail = takes(problem, every[place + 1])
            if tail is not None and not any(reads[:place] + reads[place + 2 :]):
                problem = replace(problem, tail=tail)
                chosen.append(place + 1)
        stage = stage_of(self.function, chosen)
        buffers = [b for b in stage.buffers if len(chosen) == 1 or not b.same_as(sums)]
        name = f"{self.symbol}_{place}"
        try:
            source = source_of(problem, tiles, name, buffers, self.vectors)
        except NotPrintable:
            return 0
        self._by_tvm(before)
        before.clear()
        self.tiled = True
        self.sources.append(source)
        down = -(-size(problem.rows) // tiles.rows)
        grid = (down, -(-size(problem.columns) // tiles.columns), size(problem.batches))
        pointers = tuple(map(self._pointer, buffers))
        self.launches.append(Launch(name, grid, (tiles.threads, 1, 1), pointers))
        return len(chosen)

    def _by_tvm(self, chosen: list[int]) -> None:
        if len(chosen) > 1 and _row_wise(stage_of(self.function, chosen).function):
            self._stage(chosen)
            return
        for index in chosen:
            self._stage([index])

    def _stage(self, chosen: Sequence[int]) -> None:
        stage = stage_of(self.function, chosen)
        pointers = [self._pointer(buffer) for buffer in stage.buffers]
        name = f"{self.symbol}_{chosen[0]}"
        source, calls = by_tvm(schedule(stage.function), name, self.arch, self._reserve)
        self.sources.append(source)
        for call in calls:
            arguments = tuple(
                pointers[argument] if isinstance(argument, int) else argument
                for argument in call.arguments
            )
            self.launches.append(Launch(call.function, call.grid, call.block, arguments))

    def _pointer(self, buffer: tirx.Buffer) -> Pointer:
        place = position(buffer, list(self.function.params))
        if place is not None:
            if self.overwrites is not None and place == self.overwrites[0]:
                place = self.overwrites[1]
            return Pointer(place)
        for known, offset in self.scratch:
            if known.same_as(buffer):
                return Pointer(None, offset)
        reserved = self._reserve(bytes_of(buffer))
        self.scratch.append((buffer, reserved.offset))
        return reserved

    def _reserve(self, nbytes: int) -> Pointer:
        pointer = Pointer(None, self.scratch_bytes)
        self.scratch_bytes += nbytes
        return pointer


def by_tvm(
    function: tirx.PrimFunc, name: str, arch: str, reserve: Reserve
) -> tuple[str, list[_Call]]:
    """CUDA C for a scheduled stage by TVM's code generator, without what TVM puts before it, and
    its calls; `reserve` gives scratch memory."""
    target = cuda_target(arch)
    function = function.with_attr("global_symbol", name)
    function = function.with_attr("target", target).with_attr("tirx.noalias", True)
    module = _TO_THREADS(IRModule({name: function}))
    module = IRModule({name: with_c_signature(expand_dots_on_gpu(module[name]), None)})
    module = _TO_LAUNCHES(module)
    device = {
        variable: each
        for variable, each in module.functions.items()
        if each.attrs and int(each.attrs.get("calling_conv", 0)) == _DEVICE_LAUNCH
    }
    host = next(each for variable, each in module.functions.items() if variable not in device)
    launches = _launches(host, {v.name_hint: f for v, f in device.items()}, reserve)
    made = _TO_SOURCE(IRModule(device))
    source = tvm.get_global_func("target.build.cuda")(made, target).inspect_source()
    return source[source.index('extern "C" __global__') :], launches


def _launches(
    host: tirx.PrimFunc, device: Mapping[str, tirx.PrimFunc], reserve: Reserve
) -> list[_Call]:
    """The calls of `device` functions in `host`, in order."""
    held: list[tuple[Any, int | Pointer]] = [
        (parameter, place) for place, parameter in enumerate(host.params)
    ]

    def place(pointer: Any) -> int | Pointer:
        while True:
            for holder, found in held:
                if holder.same_as(pointer):
                    return found
            if not isinstance(pointer, tvm.ir.Call) or not pointer.args:
                raise LoweringError(f"a GPU kernel is called with {pointer}")
            pointer = pointer.args[0]

    calls: list[_Call] = []
    for statement in _flat(host.body):
        if isinstance(statement, tirx.DeclBuffer):
            held.append((statement.buffer, place(statement.data)))
        elif isinstance(statement, tirx.AllocBuffer):
            held.append((statement.buffer, reserve(bytes_of(statement.buffer))))
        elif isinstance(statement, tirx.Evaluate) and isinstance(statement.value, tvm.ir.Call):
            name = str(statement.value.args[0].value)
            axes = [str(axis) for axis in device[name].attrs["tirx.kernel_launch_params"]]
            given = statement.value.args[1:]
            pointers = tuple(place(pointer) for pointer in given[: len(given) - len(axes)])
            sizes = dict(zip(axes, map(int, given[len(pointers) :]), strict=True))
            grid, block = (
                tuple(sizes.get(f"{kind}.{axis}", 1) for axis in "xyz")
                for kind in ("blockIdx", "threadIdx")
            )
            calls.append(_Call(name, grid, block, pointers))
        else:
            raise LoweringError(f"the host is to do work between GPU kernels: {statement}")
    return calls


def _flat(statement: tirx.Stmt) -> Iterator[tirx.Stmt]:
    """The single statements of a host function."""
    if isinstance(statement, tirx.SeqStmt):
        for each in statement.seq:
            yield from _flat(each)
    elif isinstance(statement, tirx.AttrStmt):
        yield from _flat(statement.body)
    else:
        yield statement


_TO_THREADS = tvm.transform.Sequential(
    [
        s_tir.transform.CanonicalizeLoop(),
        s_tir.transform.LowerCrossThreadReduction(),
        s_tir.transform.LowerInitBlock(),
        s_tir.transform.PlanAndUpdateBufferAllocationLocation(),
        s_tir.transform.ConvertBlocksToOpaque(),
        s_tir.transform.LiftThreadBinding(),
        s_tir.transform.CompactBufferAllocation(),
        s_tir.transform.UnifyThreadBinding(),
        *BLOCKS_TO_VECTORS,
        tirx.transform.CommonSubexprElim(),
        tirx.transform.FP8ComputeLegalize(),
        tirx.transform.VerifyMemory(),
    ]
)

_TO_LAUNCHES = tvm.transform.Sequential(
    [
        s_tir.transform.ThreadSync("shared"),
        s_tir.transform.ThreadSync("warp"),
        s_tir.transform.LowerThreadAllreduce(),
        s_tir.transform.MergeSharedMemoryAllocations(),
        tirx.transform.SplitHostDevice(),
        tirx.transform.FP8StorageLegalize(),
        tirx.transform.BF16StorageLegalize(),
    ]
)

_TO_SOURCE = tvm.transform.Sequential(
    [
        tirx.transform.LowerWarpMemory(),
        tirx.transform.StmtSimplify(),
        tirx.transform.LowerIntrin(),
    ]
)
