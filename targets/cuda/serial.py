"""A stage as one thread of one block, for what cannot be shared."""

from __future__ import annotations

from tvm import s_tir, tirx
from tvm.ir import Range


def in_one_thread(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """`function` with all its loops inside a grid of a single thread."""
    root = function.body.block
    body = root.body
    for tag in ("threadIdx.x", "blockIdx.x"):
        axis = tirx.IterVar(Range(0, 1), tirx.Var(tag.replace(".", "_"), "int32"), 1, tag)
        body = tirx.AttrStmt(axis, "thread_extent", tirx.IntImm("int32", 1), body)
    inside = s_tir.SBlock([], [], [], "root", body, alloc_buffers=root.alloc_buffers)
    return tirx.PrimFunc(
        function.params, s_tir.SBlockRealize([], True, inside), attrs=function.attrs
    )
