"""A stage as one thread of one block, for what cannot be shared."""

from __future__ import annotations

import tvm_ffi
from tvm import s_tir, tirx
from tvm.ir import Range


def in_one_thread(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """`function` with all its loops inside a grid of a single thread, which has what they allocate
    to itself."""
    root = function.body.block
    body = _with_locals(root.body)
    for tag in ("threadIdx.x", "blockIdx.x"):
        axis = tirx.IterVar(Range(0, 1), tirx.Var(tag.replace(".", "_"), "int32"), 1, tag)
        body = tirx.AttrStmt(axis, "thread_extent", tirx.IntImm("int32", 1), body)
    inside = s_tir.SBlock([], [], [], "root", body, alloc_buffers=root.alloc_buffers)
    return tirx.PrimFunc(
        function.params, s_tir.SBlockRealize([], True, inside), attrs=function.attrs
    )


def _with_locals(body: tirx.Stmt) -> tirx.Stmt:
    """`body`, what it allocates in local memory: a GPU's code cannot allocate any other."""
    allocated: list[tirx.Buffer] = []
    note = (tirx.AllocBuffer, lambda each: allocated.append(each.buffer))
    tvm_ffi.structural_walk(body, (note,), order="pre")
    own = [
        tirx.decl_buffer(buffer.shape, buffer.dtype, name=buffer.name, scope="local")
        for buffer in allocated
    ]

    def renamed(buffer: tirx.Buffer) -> tirx.Buffer:
        return next(
            (new for new, old in zip(own, allocated, strict=True) if old.same_as(buffer)), buffer
        )

    return tvm_ffi.structural_map(body, (tirx.Buffer, renamed))
