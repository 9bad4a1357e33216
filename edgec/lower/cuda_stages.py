"""A kernel cut into stages: what one launch after the other computes on a GPU.

Blocks of threads cannot wait for one another, so each block of a kernel that others read is a
stage of its own, unless a rule of `edgec.targets.cuda` runs several inside one block of threads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import tvm_ffi
from tvm import s_tir, tirx
from tvm.ir.expr import TensorLoad

from edgec.program import aligned, dtype_of


@dataclass(frozen=True)
class Stage:
    """Some blocks of a kernel as a function of their own: its parameters are the buffers that they
    share with other stages or with the caller."""

    function: tirx.PrimFunc

    @property
    def buffers(self) -> Sequence[tirx.Buffer]:
        """The parameters."""
        return list(self.function.params)


def statements(function: tirx.PrimFunc) -> list[tirx.Stmt]:
    """What stands below the root of `function`, in order."""
    body = function.body.block.body
    return list(body.seq) if isinstance(body, tirx.SeqStmt) else [body]


def accesses(statement: tirx.Stmt) -> tuple[list[tirx.Buffer], list[tirx.Buffer]]:
    """The buffers that `statement` reads, and those that it writes, but for its own: what its
    outermost blocks say, and what loops without blocks load and store."""
    read: list[tirx.Buffer] = []
    written: list[tirx.Buffer] = []
    allocated: list[tirx.Buffer] = []

    def note(buffer: tirx.Buffer, found: list[tirx.Buffer]) -> None:
        if not _among(buffer, found) and not _among(buffer, allocated):
            found.append(buffer)

    def visit(block: s_tir.SBlock) -> tvm_ffi.WalkResult:
        own = list(block.alloc_buffers)
        for regions, found in ((block.reads, read), (block.writes, written)):
            for region in regions:
                if not _among(region.source, own):
                    note(region.source, found)
        return tvm_ffi.WalkResult.SKIP

    visits = (
        (s_tir.SBlock, visit),
        (tirx.AllocBuffer, lambda each: allocated.append(each.buffer)),
        (tirx.BufferStore, lambda store: note(store.buffer, written)),
        (TensorLoad, lambda load: note(load.source, read)),
    )
    tvm_ffi.structural_walk(statement, visits, order="pre")
    return read, written


def stage_of(function: tirx.PrimFunc, chosen: Sequence[int]) -> Stage:
    """The statements `chosen` of `function`, by their place, as a stage."""
    every = statements(function)
    touched = [accesses(statement) for statement in every]
    params = list(function.params)
    others = [both for index, both in enumerate(touched) if index not in chosen]
    outside = [buffer for read, written in others for buffer in (*read, *written)]
    inside: list[tirx.Buffer] = []
    for place in (0, 1):
        for index in chosen:
            for buffer in touched[index][place]:
                if not _among(buffer, inside):
                    inside.append(buffer)
    shared = [b for b in inside if _among(b, params) or _among(b, outside)]
    own = [b for b in inside if not _among(b, shared)]
    body = [every[index] for index in chosen]
    root = s_tir.SBlock(
        [], [], [], "root", body[0] if len(body) == 1 else tirx.SeqStmt(body), alloc_buffers=own
    )
    made = tirx.PrimFunc(shared, s_tir.SBlockRealize([], True, root), attrs=function.attrs)
    return Stage(made)


def bytes_of(buffer: tirx.Buffer) -> int:
    """What a buffer takes, rounded up as all buffers are."""
    count = math.prod(int(size) for size in buffer.shape)
    return aligned(count * dtype_of(str(buffer.dtype)).itemsize)


def position(buffer: tirx.Buffer, among: Sequence[tirx.Buffer]) -> int | None:
    """Where `buffer` stands in a list; None where it does not."""
    return next((i for i, each in enumerate(among) if each.same_as(buffer)), None)


def _among(buffer: tirx.Buffer, buffers: Sequence[tirx.Buffer]) -> bool:
    return position(buffer, buffers) is not None
