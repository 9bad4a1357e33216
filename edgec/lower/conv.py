"""Convolutions. Weights that are constant are laid out here, in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from tvm import relax, te, tirx

from edgec.lower.context import Context, Refused, literal, sum_type
from edgec.lower.window import Window, window

_OPS = {1: relax.op.nn.conv1d, 2: relax.op.nn.conv2d, 3: relax.op.nn.conv3d}


def conv(ctx: Context, node: gs.Node, inputs: list[relax.Expr | None]) -> relax.Expr:
    x, weight = inputs[0], inputs[1]
    bias = inputs[2] if len(inputs) > 2 else None
    return convolution(ctx, node, x, weight, bias)


def convolution(
    ctx: Context, node: gs.Node, x: relax.Expr, weight: relax.Expr, bias: relax.Expr | None
) -> relax.Expr:
    """x[N,C,...] by weight[O,C/groups,...], plus bias[O], by the node's attributes."""
    rank = len(ctx.shape(x)) - 2
    if rank not in _OPS:
        raise Refused(f"convolution over {rank} spatial dimensions")
    groups = int(ctx.attr(node, "group", 1))
    kernel = ctx.shape(weight)[2:]
    w = window(ctx, node, ctx.shape(x)[2:], kernel)
    if ctx.shape(x)[1] != ctx.shape(weight)[1] * groups or ctx.shape(weight)[0] % groups:
        raise Refused(f"{groups} groups do not divide the channels of {ctx.shape(weight)}")
    y = ctx.emit(
        _OPS[rank](
            x,
            weight,
            strides=list(w.strides),
            padding=[*w.before, *w.after],
            dilation=list(w.dilations),
            groups=groups,
            out_dtype=sum_type(ctx.dtype(x)),
        )
    )
    return _finished(ctx, y, bias, ctx.dtype(x))


def _finished(ctx: Context, y: relax.Expr, bias: relax.Expr | None, dtype: str) -> relax.Expr:
    """Sums, with their bias, as `dtype`: rounded once."""
    if bias is not None:
        rank = len(ctx.shape(y)) - 2
        column = ctx.reshape(ctx.cast(bias, ctx.dtype(y)), (1, ctx.shape(y)[1], *[1] * rank))
        y = ctx.emit(relax.op.add(y, column))
    return ctx.cast(y, dtype)


def conv_transpose(ctx: Context, node: gs.Node, inputs: list[relax.Expr | None]) -> relax.Expr:
    x, weight = inputs[0], inputs[1]
    bias = inputs[2] if len(inputs) > 2 else None
    groups = int(ctx.attr(node, "group", 1))
    w, sizes = transposed_window(ctx, node, ctx.shape(x)[2:], ctx.shape(weight)[2:])
    value = ctx.constant(node, 1)
    if value is not None and groups == 1 and len(sizes) == 2 and _tiles(w):
        y = _by_phases(ctx, x, value, w, sizes)
    else:
        y = _gathered(ctx, x, weight, groups, w, sizes)
    return _finished(ctx, y, bias, ctx.dtype(x))


def transposed_window(
    ctx: Context, node: gs.Node, space: tuple[int, ...], kernel: tuple[int, ...]
) -> tuple[Window, tuple[int, ...]]:
    """The window of a transposed convolution, `before` being what is cut off the front, and the
    output's spatial sizes."""
    rank = len(space)
    if tuple(ctx.attr(node, "kernel_shape", kernel)) != kernel:
        raise Refused("kernel_shape differs from the weights' shape")
    strides = tuple(ctx.attr(node, "strides", [1] * rank))
    dilations = tuple(ctx.attr(node, "dilations", [1] * rank))
    extra = tuple(ctx.attr(node, "output_padding", [0] * rank))
    pads = tuple(ctx.attr(node, "pads", [0] * (2 * rank)))
    auto = ctx.attr(node, "auto_pad", "NOTSET")
    wanted = ctx.attr(node, "output_shape")
    full = tuple(
        s * (n - 1) + o + (k - 1) * d + 1
        for n, s, o, k, d in zip(space, strides, extra, kernel, dilations, strict=True)
    )
    if wanted is None and auto in ("SAME_UPPER", "SAME_LOWER"):
        wanted = [n * s for n, s in zip(space, strides, strict=True)]
    if wanted is not None:
        totals = [f - int(n) for f, n in zip(full, list(wanted)[-rank:], strict=True)]
        upper = auto == "SAME_UPPER"
        before = tuple(t // 2 if upper else t - t // 2 for t in totals)
        after = tuple(t - b for t, b in zip(totals, before, strict=True))
    elif auto in ("NOTSET", "VALID", ""):
        before, after = (pads[:rank], pads[rank:]) if auto != "VALID" else ((0,) * rank,) * 2
    else:
        raise Refused(f"auto_pad={auto!r} is unknown")
    sizes = tuple(f - b - a for f, b, a in zip(full, before, after, strict=True))
    return Window(kernel, strides, dilations, before, after, sizes), sizes


def _tiles(w: Window) -> bool:
    """Whether each output phase sees the same number of kernel taps."""
    divides = all(k % s == 0 for k, s in zip(w.kernel, w.strides, strict=True))
    return divides and set(w.dilations) == {1} and max(w.strides) > 1


def _by_phases(
    ctx: Context, x: relax.Expr, weight: np.ndarray, w: Window, sizes: tuple[int, ...]
) -> relax.Expr:
    """A dense convolution with one set of output channels per position within a stride.

    Output o = s*q + r takes the taps k = r + s*t: y[q, r] = sum over t of x[q-t] * w[r + s*t].
    """
    (sh, sw), (kh, kw) = w.strides, w.kernel
    th, tw = kh // sh, kw // sw
    batch, channels, height, width = ctx.shape(x)
    out = weight.shape[1]
    taps = weight.reshape(channels, out, th, sh, tw, sw)[:, :, ::-1, :, ::-1, :]
    dense = taps.transpose(3, 5, 1, 0, 2, 4).reshape(sh * sw * out, channels, th, tw)
    wide = sum_type(ctx.dtype(x))
    padding = [th - 1, tw - 1, th - 1, tw - 1]
    phases = ctx.emit(relax.op.nn.conv2d(x, ctx.const(dense), padding=padding, out_dtype=wide))
    limit = (sh * (height + th - 1), sw * (width + tw - 1))
    zero = literal(0, wide)

    def interleave(y: te.Tensor) -> te.Tensor:
        def element(n: Any, c: Any, i: Any, j: Any) -> Any:
            i, j = i + w.before[0], j + w.before[1]
            value = y(n, ((i % sh) * sw + j % sw) * out + c, i // sh, j // sw)
            inside = tirx.all(i >= 0, i < limit[0], j >= 0, j < limit[1])
            return tirx.if_then_else(inside, value, zero)

        return te.compute((batch, out, *sizes), element, name="interleave")

    return ctx.te("interleave", interleave, phases)


def _gathered(
    ctx: Context,
    x: relax.Expr,
    weight: relax.Expr,
    groups: int,
    w: Window,
    sizes: tuple[int, ...],
) -> relax.Expr:
    """Each output position sums the inputs that reach it, for any rank, stride and dilation."""
    batch, channels, *space = ctx.shape(x)
    per_group = ctx.shape(weight)[1]
    depth = channels // groups
    wide = sum_type(ctx.dtype(x))
    zero = literal(0, wide)

    def transposed(data: te.Tensor, filt: te.Tensor) -> te.Tensor:
        c = te.reduce_axis((0, depth), "c")
        taps = [te.reduce_axis((0, k), f"k{a}") for a, k in enumerate(w.kernel)]

        def element(n: Any, o: Any, *at: Any) -> Any:
            source, inside = [], []
            for a, tap in enumerate(taps):
                reach = at[a] + w.before[a] - tap.var * w.dilations[a]
                inside += [reach >= 0, reach < space[a] * w.strides[a]]
                if w.strides[a] > 1:
                    inside.append(tirx.floormod(reach, w.strides[a]) == 0)
                source.append(tirx.floordiv(reach, w.strides[a]))
            first = o // per_group * depth
            value = data(n, first + c.var, *source).astype(wide)
            value *= filt(first + c.var, o % per_group, *taps).astype(wide)
            return te.sum(tirx.if_then_else(tirx.all(*inside), value, zero), axis=[c, *taps])

        return te.compute((batch, per_group * groups, *sizes), element, name="conv_transpose")

    return ctx.te("conv_transpose", transposed, x, weight)


ENTRIES = {"Conv": conv, "ConvTranspose": conv_transpose}
