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
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from tvm import relax, te, tirx
from tvm.ir import Constant

from edgec.lower import activation, elementwise, pool, resize
from edgec.lower.context import Context, Shape, literal
from edgec.lower.window import Window, window

Entry = Callable[[Context, gs.Node, list[Any]], "Blocked | relax.Expr | None"]
"""Gets images in blocked form where they have one. Returns None to decline: the operator is then
lowered on plain tensors."""


@dataclass(frozen=True)
class Blocked:
    """A blocked image: `expr` has shape [N, blocks, H, W, b], `channels` of it mean something."""

    expr: relax.Expr
    channels: int

    def shape(self, ctx: Context) -> Shape:
        """The shape the model sees."""
        batch, _, height, width, _ = ctx.shape(self.expr)
        return batch, self.channels, height, width

    def plain(self, ctx: Context) -> relax.Expr:
        """The same image as [N, C, H, W]."""
        shape, block = self.shape(ctx), ctx.shape(self.expr)[4]
        if shape[2] == shape[3] == 1 and self.channels % block == 0:
            return ctx.reshape(self.expr, shape)

        def unblocked(x: te.Tensor) -> te.Tensor:
            return te.compute(
                shape, lambda n, c, h, w: x(n, c // block, h, w, c % block), name="unblock"
            )

        return ctx.te("unblock", unblocked, self.expr)


def _blocks(channels: int, block: int) -> int:
    return -(-channels // block)


def _spread(values: np.ndarray, axis: int, block: int) -> np.ndarray:
    """Split `axis` into blocks, the last filled up with zeros; lanes become the last axis."""
    channels = values.shape[axis]
    fill = [(0, 0)] * values.ndim
    fill[axis] = (0, _blocks(channels, block) * block - channels)
    padded = np.pad(values, fill)
    shape = (*padded.shape[:axis], -1, block, *padded.shape[axis + 1 :])
    return np.moveaxis(padded.reshape(shape), axis + 1, -1)


def conv(ctx: Context, node: gs.Node, inputs: list[Any]) -> Blocked | None:
    """Dense and depthwise convolutions of float32 images by constant weights."""
    x, weight = inputs[0], ctx.constant(node, 1)
    shape = _image_shape(ctx, x)
    if shape is None or weight is None or weight.dtype != np.float32:
        return None
    bias = ctx.constant(node, 2)
    if len(inputs) > 2 and inputs[2] is not None and bias is None:
        return None
    groups = int(ctx.attr(node, "group", 1))
    w = window(ctx, node, shape[2:], weight.shape[2:])
    if min(*w.sizes, *shape) < 1:
        return None
    if groups == 1 and weight.shape[1] == shape[1]:
        y = _dense(ctx, x, shape, weight, w)
    elif groups == shape[1] == weight.shape[0] and isinstance(x, Blocked):
        y = _depthwise(ctx, x, weight, w)
    else:
        return None
    if bias is not None:
        lanes = _spread(bias.reshape(1, -1, 1, 1), 1, ctx.block)
        y = ctx.emit(relax.op.add(y, ctx.const(lanes)))
    return Blocked(y, weight.shape[0])


def _image_shape(ctx: Context, x: Any) -> Shape | None:
    if isinstance(x, Blocked):
        return x.shape(ctx) if ctx.dtype(x.expr) == "float32" else None
    shape = ctx.shape(x)
    return shape if len(shape) == 4 and ctx.dtype(x) == "float32" else None


def _dense(ctx: Context, x: Any, shape: Shape, weight: np.ndarray, w: Window) -> relax.Expr:
    """The sum over input channels in blocks where they come so, else one by one."""
    block, channels = ctx.block, shape[1]
    whole = isinstance(x, Blocked) and channels % block == 0
    taps = _spread(weight, 0, block)
    if whole:
        taps = np.moveaxis(taps.reshape(taps.shape[0], -1, block, *taps.shape[2:]), 2, -2)
    else:
        taps = np.ascontiguousarray(taps)

    def compute(data: te.Tensor, filt: te.Tensor) -> te.Tensor:
        padded = _padded(data, w, isinstance(x, Blocked))
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
                value = padded(n, channel.var, row, column)
                factor = filt(o, channel.var, kh.var, kw.var, v)
            return te.sum(value * factor, axis=axes)

        out = (shape[0], taps.shape[0], *w.sizes, block)
        return te.compute(out, element, name="conv2d_blocked")

    data = x.expr if isinstance(x, Blocked) else x
    return ctx.te("conv2d", compute, data, ctx.const(taps))


def _depthwise(ctx: Context, x: Blocked, weight: np.ndarray, w: Window) -> relax.Expr:
    taps = np.ascontiguousarray(_spread(weight[:, 0], 0, ctx.block))

    def compute(data: te.Tensor, filt: te.Tensor) -> te.Tensor:
        padded = _padded(data, w, blocked=True)
        kh, kw = (te.reduce_axis((0, k), f"k{a}") for a, k in enumerate(w.kernel))

        def element(n: Any, c: Any, i: Any, j: Any, v: Any) -> Any:
            row = i * w.strides[0] + kh.var * w.dilations[0]
            column = j * w.strides[1] + kw.var * w.dilations[1]
            value = padded(n, c, row, column, v) * filt(c, kh.var, kw.var, v)
            return te.sum(value, axis=[kh, kw])

        out = (*data.shape[:2], *w.sizes, ctx.block)
        return te.compute(out, element, name="depthwise_blocked")

    return ctx.te("depthwise", compute, x.expr, ctx.const(taps))


def _padded(data: te.Tensor, w: Window, blocked: bool) -> te.Tensor:
    """The image with zeros where windows reach beyond it; itself where none does."""
    height, width = int(data.shape[2]), int(data.shape[3])
    rows, columns = (
        (size - 1) * stride + reach
        for size, stride, reach in zip(w.sizes, w.strides, w.reach, strict=True)
    )
    top, left = w.before
    if not top and not left and rows <= height and columns <= width:
        return data

    def element(n: Any, c: Any, i: Any, j: Any, *lane: Any) -> Any:
        inside = tirx.all(i >= top, i < top + height, j >= left, j < left + width)
        return tirx.if_then_else(
            inside, data(n, c, i - top, j - left, *lane), literal(0, "float32")
        )

    shape = (*data.shape[:2], rows, columns, *(data.shape[4:] if blocked else ()))
    return te.compute(shape, element, name="pad")


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
    return ctx.const(_spread(value.value.numpy().reshape(own), 1, ctx.block))


def _pooling(plain: Callable[[Context, gs.Node, relax.Expr, Window], relax.Expr]) -> Entry:
    def entry(ctx: Context, node: gs.Node, inputs: list[Any]) -> Blocked | None:
        (image,) = inputs
        if not isinstance(image, Blocked) or len([t for t in node.outputs if t.name]) > 1:
            return None
        space = image.shape(ctx)[2:]
        w = pool.whole(space) if node.op.startswith("Global") else window(ctx, node, space)
        return Blocked(plain(ctx, node, image.expr, _wide(w, ctx)), image.channels)

    return entry


def _wide(w: Window, ctx: Context) -> Window:
    """A window over height, width and lanes, one lane at a time."""
    return Window(
        (*w.kernel, 1), (*w.strides, 1), (*w.dilations, 1), (*w.before, 0), (*w.after, 0),
        (*w.sizes, ctx.block),
    )  # fmt: skip


def reduce_mean(ctx: Context, node: gs.Node, inputs: list[Any]) -> Blocked | relax.Expr | None:
    """The mean over height and width."""
    image = inputs[0]
    axes = ctx.attr(node, "axes") if len(inputs) < 2 else ctx.constant(node, 1)
    if not isinstance(image, Blocked) or axes is None:
        return None
    if sorted(int(axis) % 4 for axis in axes) != [2, 3]:
        return None
    ctx.ignore("noop_with_empty_axes")
    space = image.shape(ctx)[2:]
    mean = Blocked(
        pool.average_of(ctx, node, image.expr, _wide(pool.whole(space), ctx)), image.channels
    )
    if ctx.attr(node, "keepdims", 1):
        return mean
    return ctx.reshape(mean.plain(ctx), image.shape(ctx)[:2])


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
    joined = ctx.emit(relax.op.concat([each.expr for each in inputs], axis=1))
    return Blocked(joined, sum(each.channels for each in inputs))


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
    "Concat": concat,
    "ReduceMean": reduce_mean,
    "Resize": resized,
    "MaxPool": _pooling(pool.max_of),
    "AveragePool": _pooling(pool.average_of),
    "GlobalAveragePool": _pooling(pool.average_of),
    "GlobalMaxPool": _pooling(pool.max_of),
    **{
        op: kept(entry)
        for op, entry in (activation.ENTRIES | elementwise.ENTRIES).items()
        if op in ELEMENTWISE
    },
}
"""Operators with a blocked form."""
