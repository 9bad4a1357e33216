"""How many bytes a kernel moves: its arguments, or what its loops can load where that is less.

A gather reads few rows of its table and a slice a part of its input; all other kernels read their
arguments from end to end.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

from tvm import tirx
from tvm.ir.expr import TensorLoad
from tvm_ffi import WalkResult, structural_walk

from edgec.program import dtype_of


def traffic(function: tirx.PrimFunc, inputs: int) -> tuple[int, ...]:
    """The most bytes that one call touches of each parameter of unscheduled TIR.

    The first `inputs` parameters are read, the others written.
    """
    loads: dict[str, float] = defaultdict(float)
    _count(function.body, 1, loads)
    sizes = [_elements(param) for param in function.params]
    read = [
        min(size, int(loads[param.name])) if 0 < loads[param.name] < math.inf else size
        for param, size in zip(function.params[:inputs], sizes, strict=False)
    ]
    return tuple(
        count * dtype_of(str(param.dtype)).itemsize
        for param, count in zip(function.params, read + sizes[inputs:], strict=True)
    )


def _count(statement: Any, times: float, loads: dict[str, float]) -> None:
    """Add to `loads`, by buffer, the elements loaded where `statement` is executed so often."""

    def loop(node: tirx.For) -> WalkResult:
        constant = isinstance(node.extent, tirx.IntImm)
        _count(node.body, times * (int(node.extent) if constant else math.inf), loads)
        return WalkResult.SKIP

    def endless(node: tirx.While) -> WalkResult:
        _count(node.body, math.inf, loads)
        return WalkResult.SKIP

    def load(node: TensorLoad) -> None:
        loads[node.source.name] += times

    kinds = ((tirx.For, loop), (tirx.While, endless), (TensorLoad, load))
    structural_walk(statement, kinds, order="pre")


def _elements(buffer: tirx.Buffer) -> int:
    return math.prod(int(extent) for extent in buffer.shape)
