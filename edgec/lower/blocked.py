"""Blocked activations: images whose channels lie in blocks of a vector's width.

    plain x[N, C, H, W]   <->   blocked x[N, C / b, H, W, b]

A convolution reads either form and writes the blocked one: its innermost loop is then a vector of
output channels, whatever the image's size. Elementwise operators, pooling and concatenation keep
the form they are given; every other operator gets the plain one. So a layout changes only where a
region of blocked operators ends, and never where it begins.

The last block is filled up where b does not divide C. What those lanes hold is unspecified, and no
entry here lets them reach a channel of the model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from tvm import relax, te, tirx
from tvm.ir import Constant

from edgec.lower import (
    activation,
    blocked_pool,
    cast,
    dynamic,
    elementwise,
    quantize,
    resize,
    shape,
)
from edgec.lower.blocked_conv import conv
from edgec.lower.blocked_transpose import conv_transpose
from edgec.lower.context import Context, Shape, axis_of
from edgec.lower.image import Blocked, blocks_of, spread
from edgec.lower.lanes import channels_of, in_blocks, regrouped
from edgec.lower.lookup import blocked_lookup
from edgec.lower.planar import Entry, planar
from edgec.lower.views import joined


def kept(plain: Callable[..., relax.Expr]) -> Entry:
    """An elementwise entry on blocked images: `plain`, given operands in blocked form."""

    def entry(ctx: Context, node: gs.Node, inputs: list[Any]) -> Blocked | None:
        images = [each for each in inputs if isinstance(each, Blocked)]
        if len({image.rank for image in images}) > 1:
            return None
        whole = np.broadcast_shapes(*(image.shape(ctx) for image in images))
        if node.op in COSTLY and 2 * whole[1] <= ctx.block:
            return None
        operands = [_operand(ctx, each, whole) for each in inputs]
        if any(
            given is not None and made is None for given, made in zip(inputs, operands, strict=True)
        ):
            return None
        return Blocked(plain(ctx, node, operands), whole[1], len(whole))

    return entry


def _operand(ctx: Context, value: Any, whole: Shape) -> relax.Expr | None:
    """An operand in a form that broadcasts against blocked images of the shape `whole`; None where
    there is none, or only at the price of moving more than such an image."""
    if isinstance(value, Blocked):
        if value.channels == whole[1]:
            return value.expr
        value = value.plain(ctx)
    if value is None:
        return None
    own = ctx.shape(value)
    if all(extent == 1 for extent in own):
        return ctx.reshape(value, ()) if own else value
    own = (1,) * (len(whole) - len(own)) + own
    if len(own) > len(whole) or own[1] not in (1, whole[1]):
        return None
    batch, channels, *space = own
    rows, columns = space if len(space) == 2 else (1, *space)
    if channels == 1:
        return ctx.reshape(value, (batch, 1, rows, columns, 1))
    plane = (batch, channels, rows, columns)
    if isinstance(value, Constant):
        return ctx.const(spread(value.value.numpy().reshape(plane), 1, ctx.block))
    return in_blocks(ctx, ctx.reshape(value, plane)).expr if prod(own) <= prod(whole) else None


def resized(ctx: Context, node: gs.Node, inputs: list[Any]) -> Blocked | None:
    """Resampling over height and width."""
    image = inputs[0]
    if not isinstance(image, Blocked) or image.rank != 4:
        return None
    resizing = resize.resizing_of(ctx, node, image.shape(ctx))
    batch, blocks, _, _, block = ctx.shape(image.expr)
    if not set(resizing.tables) <= {2, 3} or 0 in resizing.sizes:
        return None
    sizes = (batch, blocks, *resizing.sizes[2:], block)
    return Blocked(resizing.apply(ctx, image.expr, sizes), image.channels)


def concat(ctx: Context, node: gs.Node, inputs: list[Any]) -> Blocked | None:
    """Channels one after the other; they change lanes where one but the last leaves some free."""
    if not all(isinstance(each, Blocked) and each.rank == inputs[0].rank for each in inputs):
        return None
    if axis_of(ctx.attr(node, "axis"), inputs[0].rank) != 1:
        return None
    channels = [each.channels for each in inputs]
    whole = Blocked(joined(ctx, [each.expr for each in inputs], 1), sum(channels), inputs[0].rank)
    if not any(each % ctx.block for each in channels[:-1]):
        return whole
    starts = np.cumsum([0, *(blocks_of(each, ctx.block) * ctx.block for each in channels)])
    places = [start + np.arange(each) for start, each in zip(starts, channels, strict=False)]
    return regrouped(ctx, whole, np.concatenate(places))


def split(ctx: Context, node: gs.Node, inputs: list[Any]) -> list[Blocked] | None:
    """Channels in several parts."""
    image = inputs[0]
    if not isinstance(image, Blocked):
        return None
    axis, places = shape.splits(ctx, node, inputs, image.shape(ctx))
    if axis != 1 or not all(places):
        return None
    return [channels_of(ctx, image, each) for each in places]


def slice_(ctx: Context, node: gs.Node, inputs: list[Any]) -> Blocked | None:
    """Some of the channels, rows and columns."""
    image = inputs[0]
    if not isinstance(image, Blocked):
        return None
    images, channels, *space = shape.slices(ctx, node, image.shape(ctx))
    if images != range(ctx.shape(image.expr)[0]) or not all((channels, *space)):
        return None
    taken = channels_of(ctx, image, channels)
    batch, blocks, *sizes, block = ctx.shape(taken.expr)
    rows, columns = space if len(space) == 2 else (range(1), *space)
    if [rows, columns] == [range(size) for size in sizes]:
        return taken
    first, stride = [0, 0, rows.start, columns.start, 0], [1, 1, rows.step, columns.step, 1]
    cut = (batch, blocks, len(rows), len(columns), block)
    return replace(taken, expr=shape.strided(ctx, taken.expr, first, stride, cut))


def depth_to_space(ctx: Context, node: gs.Node, inputs: list[Any]) -> Blocked | None:
    """Channels side by side, in blocks of height and width."""
    image, size = inputs[0], int(ctx.attr(node, "blocksize"))
    if not isinstance(image, Blocked) or image.channels % (size * size):
        return None
    rows_first = {"DCR": True, "CRD": False}.get(ctx.attr(node, "mode", "DCR"))
    batch, _, height, width, block = ctx.shape(image.expr)
    channels = image.channels // (size * size)
    if rows_first is None or image.rank != 4:
        return None

    def compute(data: te.Tensor) -> te.Tensor:
        def element(n: Any, c: Any, i: Any, j: Any, v: Any) -> Any:
            channel = c * block + v
            if channels % block:
                channel = tirx.min(channel, channels - 1)
            phase = i % size * size + j % size
            place = phase * channels + channel if rows_first else channel * size * size + phase
            return data(n, place // block, i // size, j // size, place % block)

        sizes = (batch, blocks_of(channels, block), height * size, width * size, block)
        return te.compute(sizes, element, name="depth_to_space")

    return Blocked(ctx.te("depth_to_space", compute, image.expr), channels)


FROM_PLAIN = frozenset(["Conv", "ConvInteger", "ConvTranspose"])
"""Operators that make blocked images of plain ones."""

ELEMENTWISE = frozenset(
    [
        "Abs",
        "Add",
        "Celu",
        "Clip",
        "Div",
        "Elu",
        "Erf",
        "Exp",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "LeakyRelu",
        "Max",
        "Min",
        "Mish",
        "Mul",
        "Neg",
        "PRelu",
        "Pow",
        "Reciprocal",
        "Relu",
        "Selu",
        "Sigmoid",
        "Softplus",
        "Softsign",
        "Sqrt",
        "Sub",
        "Swish",
        "Tanh",
        "ThresholdedRelu",
    ]
)

COSTLY = frozenset(
    [
        "Celu",
        "Elu",
        "Erf",
        "Exp",
        "Gelu",
        "Mish",
        "Pow",
        "Selu",
        "Sigmoid",
        "Softplus",
        "Swish",
        "Tanh",
    ]
)
"""Those of them that take longer than to leave the blocked form, where most lanes mean nothing."""

ENTRIES: dict[str, Entry] = {
    "Conv": planar(conv),
    "ConvInteger": planar(dynamic.integer_convolution),
    "ConvTranspose": planar(conv_transpose),
    "Concat": concat,
    "DepthToSpace": depth_to_space,
    "Gather": blocked_lookup,
    "Split": split,
    "Slice": slice_,
    "ReduceMean": blocked_pool.reduce_mean,
    "Cast": kept(cast.cast),
    "DynamicQuantizeLinear": dynamic.blocked_dynamic_quantize,
    "QuantizeLinear": kept(quantize.quantize_linear),
    "DequantizeLinear": kept(quantize.dequantize_linear),
    "Resize": resized,
    "MaxPool": planar(blocked_pool.max_pool),
    "AveragePool": planar(blocked_pool.average_pool),
    "GlobalAveragePool": planar(blocked_pool.global_average_pool),
    "GlobalMaxPool": planar(blocked_pool.global_max_pool),
    **{
        op: kept(entry)
        for op, entry in (activation.ENTRIES | elementwise.ENTRIES).items()
        if op in ELEMENTWISE
    },
}
"""Operators with a blocked form."""
