"""First convolutions of images of one or two channels, in integers.

Four elements are multiplied at once, and one channel does not fill them. So those that a window has
in one of its rows, columns and channels, are put side by side, once for each column of the result:
the convolution then goes over rows alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax, te, tirx

from edgec.lower.context import Context, literal
from edgec.lower.dot_forms import BYTES
from edgec.lower.window import Window

_LEAST_GAIN = 2
"""How many times fewer products pay for putting elements side by side."""


def side_by_side(
    ctx: Context, x: relax.Expr, zero: int, weights: np.ndarray, w: Window
) -> tuple[relax.Expr, np.ndarray, Window] | None:
    """The image of one block, the weights int8 [O, elements, kh, 1] and the window that stand for
    the convolution of a plain uint8 image [N, C, H, W], around which is `zero`, by `weights`, int8
    [O, C, kh, kw]; None where that would not save much."""
    batch, channels, height, width = ctx.shape(x)
    across = w.kernel[1]
    used = across * channels
    lanes = -(-used // BYTES) * BYTES
    if _LEAST_GAIN * lanes > across * -(-channels // BYTES) * BYTES:
        return None

    def compute(data: te.Tensor) -> te.Tensor:
        def element(n: Any, _: Any, i: Any, j: Any, v: Any) -> Any:
            column = j * w.strides[1] + v // channels * w.dilations[1] - w.before[1]
            inside = tirx.all(column >= 0, column < width, v < used)
            value = data(n, v % channels, i, column)
            return tirx.if_then_else(inside, value, literal(zero, "uint8"))

        return te.compute((batch, 1, height, w.sizes[1], lanes), element, name="side_by_side")

    kernel, strides, dilations = ((of[0], 1) for of in (w.kernel, w.strides, w.dilations))
    rows = Window(kernel, strides, dilations, (w.before[0], 0), (w.after[0], 0), w.sizes)
    outputs, _, down, _ = weights.shape
    taps = weights.transpose(0, 3, 1, 2).reshape(outputs, used, down, 1)
    return ctx.te("side_by_side", compute, x), np.ascontiguousarray(taps), rows
