"""Tables of 256 bytes, read at a place that each byte of a tensor names.

    y[i] = table[x[i]]

It is an elementwise kernel like any other, and is fused like one: x is what a convolution's tail
makes, say. LLVM would read the table lane by lane; `expand_lookups` has AVX-512 choose among
registers that hold all of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
import tvm
import tvm_ffi
from tvm import relax, te, tirx

from edgec.lower.context import ELEMENTWISE, Context
from edgec.lower.dot_vectors import lanes_of, number, places
from edgec.lower.image import Blocked
from edgec.targets import Target

SIZE = 256
"""Elements of a table."""

_LANES = 16
"""Words of a register of AVX-512."""


def lookup(ctx: Context, node: gs.Node, inputs: list[Any]) -> relax.Expr | None:
    """A Gather of 256 constant bytes at places that are bytes themselves; None for another."""
    table = ctx.constant(node, 0)
    if table is None or table.shape != (SIZE,) or table.dtype != np.uint8:
        return None
    makers = node.inputs[1].inputs
    if not makers or makers[0].op != "Cast" or makers[0].inputs[0].dtype != np.uint8:
        return None

    def compute(where: te.Tensor, values: te.Tensor) -> te.Tensor:
        return te.compute(where.shape, lambda *i: values(where(*i)), name="lookup")

    return ctx.te("lookup", compute, inputs[1], ctx.const(table), attributes={ELEMENTWISE: True})


def blocked_lookup(ctx: Context, node: gs.Node, inputs: list[Any]) -> Blocked | None:
    """The same for a blocked image."""
    ctx.ignore("axis")
    image = inputs[1]
    if not isinstance(image, Blocked):
        return None
    made = lookup(ctx, node, [inputs[0], image.expr])
    return None if made is None else Blocked(made, image.channels, image.rank)


def expand_lookups(function: tirx.PrimFunc, target: Target) -> tirx.PrimFunc:
    """`function`, its loops vectorised, with vectors that such a table is read at as `target` reads
    it best."""
    if "avx512f" not in target.cpu_flags:
        return function

    def expand(load: tvm.ir.TensorLoad) -> Any:
        if not _is_lookup(load):
            return load
        (index,) = load.indices
        lanes = lanes_of(index)
        if lanes == _LANES:
            return _chosen(load.source, index).astype(f"uint8x{lanes}")
        repeated = [index] * -(-_LANES // lanes)
        taken = [
            _chosen(
                load.source, tirx.Shuffle(repeated, places((at + n) % lanes for n in range(_LANES)))
            )
            for at in range(0, lanes, _LANES)
        ]
        return tirx.Shuffle(taken, places(range(lanes))).astype(f"uint8x{lanes}")

    return tvm_ffi.structural_map(function, (tvm.ir.TensorLoad, expand))


def _is_lookup(load: tvm.ir.TensorLoad) -> bool:
    source = load.source
    if str(source.dtype) != "uint8" or [int(n) for n in source.shape] != [SIZE]:
        return False
    index = load.indices[0]
    return not isinstance(index, tirx.Ramp | tirx.Broadcast) and str(index.ty.dtype).startswith(
        "int32x"
    )


def _chosen(table: tirx.Buffer, index: Any) -> Any:
    """The elements of `table` at 16 places, int32, the lowest byte of which counts: each VPERMI2D
    chooses among 32 words of four bytes, by 5 bits; a shift brings the byte down."""
    parts = [tirx.reinterpret("int32x16", _part(table, first, 64)) for first in range(0, SIZE, 64)]
    words = index >> number(2, index)
    halves = [
        tirx.call_llvm_pure_intrin("int32x16", "llvm.x86.avx512.vpermi2var.d.512", low, words, high)
        for low, high in (parts[:2], parts[2:])
    ]
    return _upper_or_lower(index, *halves) >> ((index & number(3, index)) << number(3, index))


def _upper_or_lower(index: Any, low: Any, high: Any) -> Any:
    return tirx.Select((index & number(SIZE // 2, index)) != number(0, index), high, low)


def _part(table: tirx.Buffer, first: int, count: int) -> Any:
    places = tirx.Ramp(tirx.const(first, "int32"), tirx.const(1, "int32"), count)
    return tirx.BufferLoad(table, [places])
