"""Tables of 256 elements, read at a place that each byte of a tensor names.

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
_BITS = {"uint8": 8, "uint16": 16}
"""Of the elements of a table."""


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
    it best; also with tables of uint16."""
    if "avx512f" not in target.cpu_flags:
        return function

    def expand(load: tvm.ir.TensorLoad) -> Any:
        if not _is_lookup(load):
            return load
        (index,) = load.indices
        lanes, kind = lanes_of(index), str(load.source.dtype)
        if lanes == _LANES:
            return _chosen(load.source, index).astype(f"{kind}x{lanes}")
        repeated = [index] * -(-_LANES // lanes)
        taken = [
            _chosen(
                load.source, tirx.Shuffle(repeated, places((at + n) % lanes for n in range(_LANES)))
            )
            for at in range(0, lanes, _LANES)
        ]
        return tirx.Shuffle(taken, places(range(lanes))).astype(f"{kind}x{lanes}")

    return tvm_ffi.structural_map(function, (tvm.ir.TensorLoad, expand))


def _is_lookup(load: tvm.ir.TensorLoad) -> bool:
    source = load.source
    if str(source.dtype) not in _BITS or [int(n) for n in source.shape] != [SIZE]:
        return False
    index = load.indices[0]
    return not isinstance(index, tirx.Ramp | tirx.Broadcast) and str(index.ty.dtype).startswith(
        "int32x"
    )


def _chosen(table: tirx.Buffer, index: Any) -> Any:
    """The elements of `table` at 16 places, int32, the lowest bits of which count: each VPERMI2D
    chooses among 32 words, by 5 bits; a shift brings the element down."""
    bits = _BITS[str(table.dtype)]
    each = 32 // bits  # elements of a word
    parts = [
        tirx.reinterpret("int32x16", _part(table, first, _LANES * each))
        for first in range(0, SIZE, _LANES * each)
    ]
    words = index >> number(each.bit_length() - 1, index)
    chosen = [
        tirx.call_llvm_pure_intrin("int32x16", "llvm.x86.avx512.vpermi2var.d.512", low, words, high)
        for low, high in zip(parts[::2], parts[1::2], strict=True)
    ]
    while len(chosen) > 1:
        bit = number(SIZE // len(chosen), index)
        chosen = [
            tirx.Select((index & bit) != number(0, index), high, low)
            for low, high in zip(chosen[::2], chosen[1::2], strict=True)
        ]
    shift = (index & number(each - 1, index)) << number(bits.bit_length() - 1, index)
    return chosen[0] >> shift


def _part(table: tirx.Buffer, first: int, count: int) -> Any:
    places = tirx.Ramp(tirx.const(first, "int32"), tirx.const(1, "int32"), count)
    return tirx.BufferLoad(table, [places])
