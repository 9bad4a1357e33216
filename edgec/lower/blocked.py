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
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from tvm import relax
from tvm.ir import Constant

from edgec.lower import activation, blocked_pool, elementwise, resize
from edgec.lower.blocked_conv import conv
from edgec.lower.blocked_transpose import conv_transpose
from edgec.lower.context import Context, Shape
from edgec.lower.image import Blocked, spread
from edgec.lower.views import joined

Entry = Callable[[Context, gs.Node, list[Any]], "Blocked | relax.Expr | None"]
"""Gets images in blocked form where they have one. Returns None to decline: the operator is then
lowered on plain tensors."""


def kept(plain: Callable[..., relax.Expr]) -> Entry:
    """An elementwise entry on blocked images: `plain`, given operands in blocked form."""

    def entry(ctx: Context, node: gs.Node, inputs: list[Any]) -> Blocked | None:
        images = [each for each in inputs if isinstance(each, Blocked)]
        shape = np.broadcast_shapes(*(image.shape(ctx) for image in images))
        operands = [_operand(ctx, each, shape) for each in inputs]
        if any(
            given is not None and made is None for given, made in zip(inputs, operands, strict=True)
        ):
            return None
        return Blocked(plain(ctx, node, operands), shape[1])

    return entry


def _operand(ctx: Context, value: Any, shape: Shape) -> relax.Expr | None:
    """An operand in a form that broadcasts against blocked images; None where there is none."""
    if value is None or isinstance(value, Blocked):
        return value.expr if isinstance(value, Blocked) and value.channels == shape[1] else None
    own = ctx.shape(value)
    if all(extent == 1 for extent in own):
        return ctx.reshape(value, ()) if own else value
    own = (1,) * (4 - len(own)) + own
    if len(own) > 4 or own[1] != shape[1] or not isinstance(value, Constant):
        return None
    return ctx.const(spread(value.value.numpy().reshape(own), 1, ctx.block))


def resized(ctx: Context, node: gs.Node, inputs: list[Any]) -> Blocked | None:
    """Resampling over height and width."""
    image = inputs[0]
    if not isinstance(image, Blocked):
        return None
    resizing = resize.resizing_of(ctx, node, [None, *inputs[1:]], image.shape(ctx))
    batch, blocks, _, _, block = ctx.shape(image.expr)
    if not set(resizing.tables) <= {2, 3} or 0 in resizing.sizes:
        return None
    sizes = (batch, blocks, *resizing.sizes[2:], block)
    return Blocked(resizing.apply(ctx, image.expr, sizes), image.channels)


def concat(ctx: Context, node: gs.Node, inputs: list[Any]) -> Blocked | None:
    """Channels one after the other, where each but the last fills its blocks."""
    rank_4 = all(isinstance(each, Blocked) for each in inputs)
    if not rank_4 or int(ctx.attr(node, "axis")) not in (1, -3):
        return None
    if any(each.channels % ctx.block for each in inputs[:-1]):
        return None
    whole = joined(ctx, [each.expr for each in inputs], 1)
    return Blocked(whole, sum(each.channels for each in inputs))


FROM_PLAIN = frozenset(["Conv", "ConvTranspose"])
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

ENTRIES: dict[str, Entry] = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "Concat": concat,
    "ReduceMean": blocked_pool.reduce_mean,
    "Resize": resized,
    "MaxPool": blocked_pool.max_pool,
    "AveragePool": blocked_pool.average_pool,
    "GlobalAveragePool": blocked_pool.global_average_pool,
    "GlobalMaxPool": blocked_pool.global_max_pool,
    **{
        op: kept(entry)
        for op, entry in (activation.ENTRIES | elementwise.ENTRIES).items()
        if op in ELEMENTWISE
    },
}
"""Operators with a blocked form."""
