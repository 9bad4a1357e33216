"""ONNX Runtime's own operator for products by codes of few bits, com.microsoft.MatMulNBits."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from tvm import relax

from edgec.lower.context import Context, Refused, is_float
from edgec.lower.matmul import product
from edgec.lower.packed_matmul import product as packed_product
from edgec.lower.packed_weight import Array, Stored, spread

_BITS = (2, 4, 8)
_INT8_ACTIVATIONS = 4
"""The accuracy level from which on ONNX Runtime may round activations to int8."""


def matmul_nbits(ctx: Context, node: gs.Node, inputs: list[relax.Expr | None]) -> relax.Expr:
    """`a` [..., K] by codes [N, blocks, bytes] with a scale, and maybe a zero point, per block."""
    a, *_, g_idx, bias = [*inputs, None, None, None][:6]
    if g_idx is not None:
        raise Refused("terms in an order of their own (g_idx) are not lowered")
    if int(ctx.attr(node, "accuracy_level", 0)) >= _INT8_ACTIVATIONS:
        raise Refused("accuracy_level=4 rounds activations to int8: set it to 0")
    ctx.ignore("weight_prepacked")
    stored = _stored(ctx, node)
    wide = ctx.cast(a, "float32")
    made = packed_product(ctx, wide, stored)
    if made is None:
        made = product(ctx, wide, ctx.const(_widened(stored)))
    if bias is not None:
        made = ctx.emit(relax.op.add(made, ctx.cast(bias, "float32")))
    return ctx.cast(made, ctx.dtype(a))


def _stored(ctx: Context, node: gs.Node) -> Stored:
    """The weights [K, N], scales and zero points [blocks, N]."""
    inner, columns = int(ctx.attr(node, "K")), int(ctx.attr(node, "N"))
    bits, block = int(ctx.attr(node, "bits", 4)), int(ctx.attr(node, "block_size"))
    if bits not in _BITS or block < 1:
        raise Refused(f"{bits} bits in blocks of {block} are not lowered")
    blocks = -(-inner // block)
    codes = _unpacked(ctx.required(node, 1, "the weights"), bits)
    scale = ctx.required(node, 2, "the scales").astype(np.float32)
    if codes.size != columns * blocks * block or scale.size != columns * blocks:
        raise Refused(f"{codes.size} codes and {scale.size} scales do not fit [{inner}, {columns}]")
    zero = np.full((columns, blocks), 1 << (bits - 1), np.uint8)
    if len(node.inputs) > 3 and node.inputs[3].name:
        given = ctx.required(node, 3, "the zero points")
        if is_float(given.dtype.name):
            raise Refused("zero points that are no codes are not lowered")
        rows = _unpacked(given, bits).reshape(columns, -1)
        zero = rows[:, :blocks]
    return Stored(
        codes.reshape(columns, -1)[:, :inner].T,
        scale.reshape(columns, blocks).T,
        np.ascontiguousarray(zero.T),
        (block, 1),
    )


def _unpacked(bytes_: Array, bits: int) -> Array:
    """Codes in order, the first of a byte in its low bits."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    codes: Array = (bytes_.reshape(-1, 1) >> shifts & np.uint8((1 << bits) - 1)).reshape(-1)
    return codes


def _widened(stored: Stored) -> Any:
    """The float32 matrix."""
    shape = stored.codes.shape
    tables = (each for each in (stored.zero, stored.scale) if each is not None)
    zero, scale = (spread(each, stored.step, shape) for each in tables)
    return (stored.codes.astype(np.int16) - zero).astype(np.float32) * scale


ENTRIES = {"com.microsoft.MatMulNBits": matmul_nbits}
