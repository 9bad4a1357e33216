"""Convolutions that write blocked images: their innermost loop is a vector of output channels."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from tvm import relax, te

from edgec.lower import winograd
from edgec.lower.blocked_group import grouped, repeated
from edgec.lower.border import padded_for
from edgec.lower.context import Context, Shape
from edgec.lower.image import Blocked, spread
from edgec.lower.packed_conv import packed_conv
from edgec.lower.window import Window, window

_CHANNELS_FIRST = (0, 3, 1, 2)
"""Axes by which an image [N, H, W, C] becomes [N, C, H, W]."""


def conv(ctx: Context, node: gs.Node, inputs: list[Any]) -> Blocked | None:
    """Convolutions of float32 images by constant weights."""
    found = operands(ctx, node, inputs)
    if found is None:
        return None
    x, shape, weight, bias = found
    groups = int(ctx.attr(node, "group", 1))
    w = window(ctx, node, shape[2:], weight.shape[2:])
    if min(*w.sizes, *shape) < 1:
        return None
    if groups == 1 and weight.shape[1] == shape[1]:
        stored = ctx.stored.get(node.inputs[1].name)
        y = stored and packed_conv(ctx, x, stored, w)
        y = _dense(ctx, x, shape, weight, w) if y is None else y
    elif groups == shape[1] and weight.shape[1] == 1:
        y = _depthwise(ctx, repeated(ctx, x, weight.shape[0] // groups), weight, w)
    else:
        y = grouped(ctx, x, shape, weight, w, groups)
    if y is None:
        return None
    return Blocked(biased(ctx, y, bias), weight.shape[0])


def operands(
    ctx: Context, node: gs.Node, inputs: list[Any]
) -> tuple[Any, Shape, np.ndarray, np.ndarray | None] | None:
    """A float32 image, its shape, a constant weight, and a constant bias if there is one; None
    where they are anything else."""
    x, weight = inputs[0], ctx.constant(node, 1)
    shape = _image_shape(ctx, x)
    if shape is None or weight is None or weight.dtype != np.float32:
        return None
    bias = ctx.constant(node, 2)
    if len(inputs) > 2 and inputs[2] is not None and bias is None:
        return None
    return x, shape, weight, bias


def biased(ctx: Context, y: relax.Expr, bias: np.ndarray | None) -> relax.Expr:
    """A blocked image and a bias of its channels."""
    if bias is None:
        return y
    lanes = spread(bias.reshape(1, -1, 1, 1), 1, ctx.block)
    return ctx.emit(relax.op.add(y, ctx.const(lanes)))


def _image_shape(ctx: Context, x: Any) -> Shape | None:
    """The shape of a float32 image, None for anything else."""
    if isinstance(x, Blocked):
        return x.shape(ctx) if ctx.dtype(x.expr) == "float32" else None
    shape = ctx.shape(x)
    return shape if len(shape) == 4 and ctx.dtype(x) == "float32" else None


def _dense(ctx: Context, x: Any, shape: Shape, weight: np.ndarray, w: Window) -> relax.Expr:
    """The sum over input channels in blocks where they come so, else one by one; a plain image that
    was transposed to have its channels first is read as it was."""
    block, channels = ctx.block, shape[1]
    whole = isinstance(x, Blocked) and channels % block == 0
    taps = spread(weight, 0, block)
    size = _winograd_size(ctx, weight, w) if whole else 0
    if size:
        lanes = taps.reshape(taps.shape[0], -1, block, 3, 3, block).transpose(0, 1, 2, 5, 3, 4)
        return winograd.conv(ctx, x.expr, lanes, w.before, w.sizes, size)
    if whole:
        taps = np.moveaxis(taps.reshape(taps.shape[0], -1, block, *taps.shape[2:]), 2, -2)
    else:
        taps = np.ascontiguousarray(taps)

    data = x.expr if isinstance(x, Blocked) else x
    source = ctx.before_transpose(data, _CHANNELS_FIRST)

    def compute(data: te.Tensor, filt: te.Tensor) -> te.Tensor:
        padded = padded_for(data, w, 2 if source is None else 1)
        kh, kw = (te.reduce_axis((0, k), f"k{a}") for a, k in enumerate(w.kernel))
        if whole:
            outer = te.reduce_axis((0, channels // block), "ib")
            lane = te.reduce_axis((0, block), "il")
            axes = [outer, kh, kw, lane]
        else:
            channel = te.reduce_axis((0, channels), "ic")
            axes = [channel, kh, kw]

        def element(n: Any, o: Any, i: Any, j: Any, v: Any) -> Any:
            row = i * w.strides[0] + kh.var * w.dilations[0]
            column = j * w.strides[1] + kw.var * w.dilations[1]
            if whole:
                value = padded(n, outer.var, row, column, lane.var)
                factor = filt(o, outer.var, kh.var, kw.var, lane.var, v)
            elif isinstance(x, Blocked):
                at = channel.var
                value = padded(n, at // block, row, column, at % block)
                factor = filt(o, at, kh.var, kw.var, v)
            else:
                at = channel.var
                here = (at, row, column) if source is None else (row, column, at)
                value = padded(n, *here)
                factor = filt(o, at, kh.var, kw.var, v)
            return te.sum(value * factor, axis=axes)

        out = (shape[0], taps.shape[0], *w.sizes, block)
        return te.compute(out, element, name="conv2d_blocked")

    return ctx.te("conv2d", compute, data if source is None else source, ctx.const(taps))


def _winograd_size(ctx: Context, weight: np.ndarray, w: Window) -> int:
    """The size of the tiles by which the convolution is fastest, 0 for the plain sum."""
    if w.kernel != (3, 3) or not w.strides == w.dilations == (1, 1):
        return 0
    outputs, inputs = weight.shape[:2]
    return winograd.best_size(ctx.winograd, outputs, inputs, w.sizes, ctx.block)


def _depthwise(ctx: Context, x: Blocked, weight: np.ndarray, w: Window) -> relax.Expr:
    taps = np.ascontiguousarray(spread(weight[:, 0], 0, ctx.block))

    def compute(data: te.Tensor, filt: te.Tensor) -> te.Tensor:
        padded = padded_for(data, w)
        kh, kw = (te.reduce_axis((0, k), f"k{a}") for a, k in enumerate(w.kernel))

        def element(n: Any, c: Any, i: Any, j: Any, v: Any) -> Any:
            row = i * w.strides[0] + kh.var * w.dilations[0]
            column = j * w.strides[1] + kw.var * w.dilations[1]
            value = padded(n, c, row, column, v) * filt(c, kh.var, kw.var, v)
            return te.sum(value, axis=[kh, kw])

        out = (*data.shape[:2], *w.sizes, ctx.block)
        return te.compute(out, element, name="depthwise_blocked")

    return ctx.te("depthwise", compute, x.expr, ctx.const(taps))
