"""Dynamic quantization: activations whose scale and zero point a run finds out, and the integer
products and convolutions that follow.

    sum((x - zero) * w) = sum(x * w) - zero * sum(w)

The sums are those of `edgec.lower.integer_matmul` and `edgec.lower.integer_conv`; what a zero point
adds that a run computes is taken off afterwards, and the border of an image holds it.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from tvm import relax, te, tirx
from tvm.ir import Constant

from edgec.lower import integer_conv, integer_matmul, integer_stem
from edgec.lower.context import Context, literal
from edgec.lower.image import Blocked, spread
from edgec.lower.matmul import matmul_integer
from edgec.lower.quantize import rounded
from edgec.lower.window import Window, window

_LANES = 64
"""Parts of a tensor whose extremes are found beside each other."""


def dynamic_quantize(
    ctx: Context, node: gs.Node, inputs: list[relax.Expr | None]
) -> list[relax.Expr]:
    """A float32 tensor as uint8, its scale and its zero point."""
    scale, zero = _range(ctx, inputs[0])
    return [_quantized(ctx, inputs[0], scale, zero), scale, zero]


def blocked_dynamic_quantize(ctx: Context, node: gs.Node, inputs: list[Any]) -> list[Any] | None:
    """The same of a blocked image without lanes beyond its channels."""
    image = inputs[0]
    if not isinstance(image, Blocked) or image.channels % ctx.block or image.rank != 4:
        return None
    scale, zero = _range(ctx, image.expr)
    return [Blocked(_quantized(ctx, image.expr, scale, zero), image.channels), scale, zero]


def _range(ctx: Context, x: relax.Expr) -> tuple[relax.Expr, relax.Expr]:
    """Scale, float32, and zero point, uint8, by which all of `x` and 0 fit into a byte."""
    size = prod(ctx.shape(x))
    lanes = next(n for n in range(min(size, _LANES), 0, -1) if size % n == 0)

    def extreme(reduce: Any, data: te.Tensor) -> te.Tensor:
        row = te.reduce_axis((0, size // lanes), "row")
        return te.compute((lanes,), lambda j: reduce(data(row, j), axis=row), name="extreme")

    rows = ctx.reshape(x, (size // lanes, lanes))
    least = ctx.te("least", lambda data: extreme(te.min, data), rows)
    most = ctx.te("most", lambda data: extreme(te.max, data), rows)

    def scales(low: te.Tensor, high: te.Tensor) -> list[te.Tensor]:
        j, k = te.reduce_axis((0, lanes), "j"), te.reduce_axis((0, lanes), "k")
        bottom = te.compute((1,), lambda _: te.min(low(j), axis=j), name="bottom")
        top = te.compute((1,), lambda _: te.max(high(k), axis=k), name="top")
        none = literal(0, "float32")

        def scale(i: Any) -> Any:
            spread = tirx.max(top(i), none) - tirx.min(bottom(i), none)
            step = spread / literal(255, "float32")
            return tirx.Select(spread == none, literal(1, "float32"), step)

        def zero(i: Any) -> Any:
            return rounded(-tirx.min(bottom(i), none) / step(i), none, "uint8")

        step = te.compute((1,), scale, name="step")
        return [step, te.compute((1,), zero, name="zero")]

    scale, zero = ctx.te("range", scales, least, most)
    return ctx.reshape(scale, ()), ctx.reshape(zero, ())


def _quantized(ctx: Context, x: relax.Expr, scale: relax.Expr, zero: relax.Expr) -> relax.Expr:
    def element(value: Any, step: Any, origin: Any) -> Any:
        return rounded(value / step, origin, "uint8")

    return ctx.map("quantize", element, x, scale, zero)


def integer_product(
    ctx: Context, node: gs.Node, inputs: list[relax.Expr | None]
) -> relax.Expr | None:
    """MatMulInteger; where a zero point is of rows or columns, its factors are widened."""
    a, b, zero, other = [*inputs, None, None][:4]
    shapes = [ctx.shape(a), ctx.shape(b)]
    if min(map(len, shapes)) < 2 or 0 in (*shapes[0], *shapes[1]) or not _is_scalar(ctx, zero):
        return matmul_integer(ctx, node, inputs)
    weights = _signed(ctx, node, -1)
    if weights is None or weights.ndim != 2:
        if not _is_scalar(ctx, other) or shapes[1][-2] > integer_matmul.MOST_TERMS:
            return matmul_integer(ctx, node, inputs)
        (a, zero), (b, other) = _unsigned(ctx, a, zero), _unsigned(ctx, b, other)
        return integer_matmul.sums_of_two(ctx, a, b, zero, other)
    a, zero = _unsigned(ctx, a, zero)
    if isinstance(zero, Constant):
        return integer_matmul.sums(ctx, a, int(zero.value.numpy()), weights)
    sums = integer_matmul.sums(ctx, a, 0, weights)
    return _without_zero(ctx, sums, zero, weights.sum(0, dtype=np.int32))


def integer_convolution(ctx: Context, node: gs.Node, inputs: list[Any]) -> Blocked | None:
    """ConvInteger of images by constant weights, blocked; None for other convolutions."""
    x, _, zero = [*inputs, None, None][:3]
    weights = _signed(ctx, node, 0)
    shape = x.shape(ctx) if isinstance(x, Blocked) else ctx.shape(x)
    if weights is None or weights.ndim != 4 or not _is_scalar(ctx, zero):
        return None
    groups = int(ctx.attr(node, "group", 1))
    w = window(ctx, node, shape[2:], weights.shape[2:])
    if shape[1] != weights.shape[1] * groups or min(*w.sizes, *shape, *weights.shape) < 1:
        return None
    expr, zero = _unsigned(ctx, x.expr if isinstance(x, Blocked) else x, zero)
    if isinstance(zero, Constant) and not isinstance(x, Blocked) and groups == 1:
        origin = int(zero.value.numpy())
        narrow = integer_stem.side_by_side(ctx, expr, origin, weights, w)
        if narrow is not None:
            sums = integer_conv.sums(ctx, narrow[0], origin, *narrow[1:], groups)
            return Blocked(sums, weights.shape[0])
    image = expr if isinstance(x, Blocked) else integer_conv.in_lanes(ctx, expr, groups)
    if isinstance(zero, Constant):
        sums = integer_conv.sums(ctx, image, int(zero.value.numpy()), weights, w, groups)
        return Blocked(sums, weights.shape[0])
    inside = Window(w.kernel, w.strides, w.dilations, (0, 0), (0, 0), w.sizes)
    sums = integer_conv.sums(ctx, _bordered(ctx, image, zero, w), 0, weights, inside, groups)
    whole = weights.sum((1, 2, 3), dtype=np.int32).reshape(1, -1, 1, 1)
    made = _without_zero(ctx, sums, zero, spread(whole, 1, ctx.block))
    return Blocked(made, weights.shape[0])


def _signed(ctx: Context, node: gs.Node, axis: int) -> np.ndarray | None:
    """The constant weights less their zero point, one or one for each index of `axis`, as int8;
    None where they are not constant, or do not fit."""
    weights, zero = ctx.constant(node, 1), ctx.constant(node, 3)
    if weights is None or (zero is None and len(node.inputs) > 3 and node.inputs[3].name):
        return None
    moved = weights.astype(np.int16)
    if zero is not None:
        if zero.size not in (1, weights.shape[axis]):
            return None
        along = [1] * weights.ndim
        along[axis] = zero.size
        moved = moved - zero.astype(np.int16).reshape(along)
    fits = moved.size and moved.min() >= -128 and moved.max() <= 127
    return moved.astype(np.int8) if fits else None


def _is_scalar(ctx: Context, zero: relax.Expr | None) -> bool:
    return zero is None or prod(ctx.shape(zero)) == 1


def _unsigned(
    ctx: Context, x: relax.Expr, zero: relax.Expr | None
) -> tuple[relax.Expr, relax.Expr]:
    """`x` as uint8 and its zero point as a scalar int32, both 128 higher where `x` is int8."""
    origin = ctx.const(np.int32(0)) if zero is None else ctx.cast(ctx.reshape(zero, ()), "int32")
    if ctx.dtype(x) == "uint8":
        return x, origin
    high = literal(128, "int32")
    moved = ctx.map("unsigned", lambda v: (v.astype("int32") + high).astype("uint8"), x)
    return moved, ctx.map("unsigned_zero", lambda z: z + high, origin)


def _without_zero(
    ctx: Context, sums: relax.Expr, zero: relax.Expr, weights: np.ndarray
) -> relax.Expr:
    """`sums` less `zero` times the sums of weights."""
    return ctx.map("less_zero", lambda v, z, w: v - z * w, sums, zero, ctx.const(weights))


def _bordered(ctx: Context, image: relax.Expr, zero: relax.Expr, w: Window) -> relax.Expr:
    """A blocked image with the zero point around it, as far as windows reach."""
    batch, blocks, height, width, lanes = ctx.shape(image)
    rows, columns = (
        (size - 1) * stride + reach
        for size, stride, reach in zip(w.sizes, w.strides, w.reach, strict=True)
    )
    top, left = w.before
    if (top, left) == (0, 0) and rows <= height and columns <= width:
        return image

    def compute(data: te.Tensor, origin: te.Tensor) -> te.Tensor:
        def element(n: Any, c: Any, i: Any, j: Any, v: Any) -> Any:
            row, column = i - top, j - left
            inside = tirx.all(row >= 0, row < height, column >= 0, column < width)
            return tirx.if_then_else(inside, data(n, c, row, column, v), origin().astype("uint8"))

        return te.compute((batch, blocks, rows, columns, lanes), element, name="border")

    return ctx.te("border", compute, image, zero)


ENTRIES = {"DynamicQuantizeLinear": dynamic_quantize, "MatMulInteger": integer_product}
