"""What a kernel has to do: multiply-accumulates, and bytes to move.

Bytes are those of its arguments, or what its loops can load where that is less: a gather reads few
rows of its table and a slice a part of its input.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from tvm import tirx
from tvm.ir.expr import TensorLoad
from tvm_ffi import WalkResult, structural_walk

from edgec.program import dtype_of


@dataclass(frozen=True)
class Work:
    """Of one call: its multiply-accumulates, where its loops say how many, else 0; and the most
    bytes that it touches of each parameter."""

    macs: int
    traffic: tuple[int, ...]


def work(function: tirx.PrimFunc, inputs: int) -> Work:
    """The work of unscheduled TIR, whose first `inputs` parameters are read, the others written."""
    counted = _Counted()
    _count(function.body, 1, counted)
    sizes = [math.prod(map(int, param.shape)) for param in function.params]
    loads = [counted.loads[param.name] for param in function.params[:inputs]]
    read = [
        min(size, int(times)) if 0 < times < math.inf else size
        for size, times in zip(sizes, loads, strict=False)
    ]
    traffic = tuple(
        count * dtype_of(str(param.dtype)).itemsize
        for param, count in zip(function.params, read + sizes[inputs:], strict=True)
    )
    return Work(int(counted.macs) if counted.macs < math.inf else 0, traffic)


@dataclass
class _Counted:
    """How many elements are loaded, by buffer, and how many products are added up."""

    loads: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    macs: float = 0.0


def _count(statement: Any, times: float, counted: _Counted) -> None:
    """Add to `counted` where `statement` is executed so often."""

    def loop(node: tirx.For) -> WalkResult:
        constant = isinstance(node.extent, tirx.IntImm)
        _count(node.body, times * (int(node.extent) if constant else math.inf), counted)
        return WalkResult.SKIP

    def endless(node: tirx.While) -> WalkResult:
        _count(node.body, math.inf, counted)
        return WalkResult.SKIP

    def load(node: TensorLoad) -> None:
        counted.loads[node.source.name] += times

    def store(node: tirx.BufferStore) -> None:
        if _adds_a_product(node):
            counted.macs += times

    kinds = (
        (tirx.For, loop),
        (tirx.While, endless),
        (TensorLoad, load),
        (tirx.BufferStore, store),
    )
    structural_walk(statement, kinds, order="pre")


def _adds_a_product(store: tirx.BufferStore) -> bool:
    """Whether it is `sum[i] = sum[i] + a * b`."""
    value = store.value
    return (
        isinstance(value, tirx.Add)
        and isinstance(value.a, TensorLoad)
        and value.a.source.same_as(store.buffer)
        and isinstance(value.b, tirx.Mul)
    )
