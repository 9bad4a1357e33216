"""Transposed convolutions that write blocked images.

Along an axis of stride s, output s*q + r takes the taps k = r + s*t of the kernel:

    y[q, r] = sum over t of x[q - t] * w[r + s*t]

So each phase r is a small convolution of the image itself. All phases are one reduction here, its
kernel filled up with zeros to a multiple of the stride; a schedule writes the phases of one column
side by side.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from tvm import relax, te, tirx

from edgec.lower.blocked_conv import biased, operands
from edgec.lower.border import bordered
from edgec.lower.context import Context, Shape, literal
from edgec.lower.conv import transposed_window
from edgec.lower.image import Blocked, spread
from edgec.lower.window import Window


def conv_transpose(ctx: Context, node: gs.Node, inputs: list[Any]) -> Blocked | None:
    """Dense transposed convolutions of float32 images by constant weights."""
    found = operands(ctx, node, inputs)
    if found is None:
        return None
    x, shape, weight, bias = found
    if int(ctx.attr(node, "group", 1)) != 1 or weight.shape[0] != shape[1]:
        return None
    w, sizes = transposed_window(ctx, node, shape[2:], weight.shape[2:])
    if set(w.dilations) != {1} or min(*sizes, *shape) < 1 or min(w.before) < 0:
        return None
    y = _dense(ctx, x, shape, weight, w)
    return Blocked(biased(ctx, y, bias), weight.shape[1])


def _dense(ctx: Context, x: Any, shape: Shape, weight: np.ndarray, w: Window) -> relax.Expr:
    """The sum over input channels in blocks where they come so, else one by one."""
    block, channels = ctx.block, shape[1]
    whole = isinstance(x, Blocked) and channels % block == 0
    taps = _taps(weight, w.strides, block)
    taps_missing = any(size % stride for size, stride in zip(w.kernel, w.strides, strict=True))
    if whole:
        taps = np.moveaxis(taps.reshape(*taps.shape[:3], -1, block, *taps.shape[4:]), 4, -2)
    taps = np.ascontiguousarray(taps)
    steps = (taps.shape[-3 - whole], taps.shape[-2 - whole])

    def compute(data: te.Tensor, filt: te.Tensor) -> te.Tensor:
        padded = _padded(data, w, steps)
        th, tw = (te.reduce_axis((0, n), f"t{a}") for a, n in enumerate(steps))
        if whole:
            channel = te.reduce_axis((0, channels // block), "ib")
            lane = te.reduce_axis((0, block), "il")
            axes = [channel, th, tw, lane]
        else:
            channel = te.reduce_axis((0, channels), "ic")
            axes = [channel, th, tw]

        def element(n: Any, o: Any, i: Any, j: Any, v: Any) -> Any:
            (q, r), (p, s) = (
                (tirx.floordiv(at + before, stride), tirx.floormod(at + before, stride))
                for at, before, stride in zip((i, j), w.before, w.strides, strict=True)
            )
            row, column = q - th.var + (steps[0] - 1), p - tw.var + (steps[1] - 1)
            at = channel.var
            if whole:
                value = padded(n, at, row, column, lane.var)
                factor = filt(o, r, s, at, th.var, tw.var, lane.var, v)
            elif isinstance(x, Blocked):
                value = padded(n, at // block, row, column, at % block)
                factor = filt(o, r, s, at, th.var, tw.var, v)
            else:
                value = padded(n, at, row, column)
                factor = filt(o, r, s, at, th.var, tw.var, v)
            term = value * factor
            if taps_missing:
                there = [
                    phase + tap.var * stride < size
                    for phase, tap, stride, size in zip(
                        (r, s), (th, tw), w.strides, w.kernel, strict=True
                    )
                ]
                term = tirx.if_then_else(tirx.all(*there), term, literal(0, "float32"))
            return te.sum(term, axis=axes)

        out = (shape[0], taps.shape[0], *w.sizes, block)
        return te.compute(
            out, element, name="conv2d_transpose_blocked", attrs={"strides": list(w.strides)}
        )

    image = x.expr if isinstance(x, Blocked) else x
    return ctx.te("conv2d_transpose", compute, image, ctx.const(taps))


def _taps(weight: np.ndarray, strides: Shape, block: int) -> np.ndarray:
    """Weights [C, O, kh, kw] as [O / b, phase, phase, C, tap, tap, b]."""
    fill = [(0, -k % s) for k, s in zip(weight.shape[2:], strides, strict=True)]
    filled = np.pad(weight, [(0, 0), (0, 0), *fill])
    channels, out, kh, kw = filled.shape
    sh, sw = strides
    phases = filled.reshape(channels, out, kh // sh, sh, kw // sw, sw)
    return spread(phases.transpose(1, 3, 5, 0, 2, 4), 0, block)


def _padded(data: te.Tensor, w: Window, steps: Shape) -> te.Tensor:
    """The image with zeros where taps reach beyond it; itself where none does."""
    rows, columns = (
        (size - 1 + before) // stride + step
        for size, before, stride, step in zip(w.sizes, w.before, w.strides, steps, strict=True)
    )
    return bordered(data, steps[0] - 1, steps[1] - 1, rows, columns)
