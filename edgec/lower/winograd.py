"""Winograd's minimal filtering: 3x3 convolutions of stride 1 with fewer multiplications.

A tile of m x m outputs is computed from (m + 2) x (m + 2) inputs d as

    A^T [ sum over channels of (G g G^T) (B^T d B) ] A

with one multiplication per input instead of nine per output: 2.25 times fewer for m = 2, 4 times
fewer for m = 4 (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015). The
matrices interpolate polynomials at a few points (Toom and Cook); those for m = 4 are chosen for a
small rounding error, which is about five times that of the plain sum, and 1.5 times for m = 2.
"""

from __future__ import annotations

from fractions import Fraction
from math import prod
from typing import Any

import numpy as np
from tvm import relax, te, tirx

from edgec.lower.border import bordered
from edgec.lower.context import OUT_ELEMENTWISE_FUSABLE, Context, Shape, literal

POINTS = {
    2: (Fraction(0), Fraction(1), Fraction(-1)),
    4: (Fraction(0), Fraction(5, 8), Fraction(-5, 8), Fraction(5, 4), Fraction(-5, 4)),
}
"""Where the polynomials are evaluated, infinity apart, by the size of an output tile."""

WEIGHT_TIMES = {16: 1.0, 8: 0.25}
"""How long a weight takes to come from memory, in the time of 32 multiply-adds, by the channels of
a block: 16 of x86, which does them in a cycle, and 8 of Arm, which takes four cycles and more."""

KEPT = {"edgec.kept": True}
"""Marks a stage that schedules are not to inline."""


def matrices(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A^T [size, size + 2], G [size + 2, 3] and B^T [size + 2, size + 2] in float64."""
    points = POINTS[size]
    count = size + 2
    output, kernel, image = (np.zeros(shape) for shape in ((size, count), (count, 3), (count,) * 2))
    for row, point in enumerate(points):
        others = [other for other in points if other != point]
        scale = prod(point - other for other in others)
        output[:, row] = [float(point**power) for power in range(size)]
        kernel[row] = [float(point**power / scale) for power in range(3)]
        image[row, : len(points)] = _coefficients(others)
    output[-1, -1] = kernel[-1, -1] = 1
    image[-1] = _coefficients(points)
    return output, kernel, image


def best_size(most: int, outputs: int, inputs: int, sizes: Shape, block: int) -> int:
    """The tile size up to `most` that takes the least time, 0 where the plain sum does.

    `outputs` and `inputs` are numbers of channels, `sizes` the height and width of the result. Time
    is counted per pair of channels, in that of 32 multiply-adds: weights from memory take
    `WEIGHT_TIMES[block]` each, and the transforms' share grows with few channels.
    """
    weight = WEIGHT_TIMES[block]
    best, least = 0, 9 * (prod(sizes) / 32 + weight)
    for size in POINTS:
        tiles = prod(-(-extent // size) for extent in sizes)
        time = (size + 2) ** 2 * (tiles * (1 / 32 + 0.35 / outputs + 0.25 / inputs) + weight)
        if size <= most and time < least:
            best, least = size, time
    return best


def _coefficients(roots: Any) -> list[float]:
    """Of the polynomial with these roots, the constant first."""
    result = [Fraction(1)]
    for root in roots:
        shifted = [Fraction(0), *result]
        result = [a - root * b for a, b in zip(shifted, [*result, Fraction(0)], strict=True)]
    return [float(value) for value in result]


def transformed(taps: np.ndarray, size: int) -> np.ndarray:
    """Weights [..., 3, 3] as [size + 2, size + 2, ...]."""
    kernel = matrices(size)[1]
    spread = np.einsum("ay,...yx,bx->ab...", kernel, taps.astype(np.float64), kernel)
    return np.ascontiguousarray(spread.astype(np.float32))


def conv(
    ctx: Context, data: relax.Expr, taps: np.ndarray, before: Shape, sizes: Shape, size: int
) -> relax.Expr:
    """The convolution of a blocked image by weights [O, I, i, o, 3, 3] in blocks of i and o.

    `before` is the padding above and left of the image, `sizes` the height and width of the
    result, `size` that of a tile.
    """
    output, _, image = matrices(size)
    count = size + 2
    batch, blocks, _, _, lanes = ctx.shape(data)
    down, across = (-(-extent // size) for extent in sizes)

    def compute(x: te.Tensor, factors: te.Tensor) -> te.Tensor:
        padded = bordered(x, before[0], before[1], down * size + 2, across * size + 2)
        rows = te.compute(
            (batch, down, count, blocks, across * size + 2, lanes),
            lambda n, t, a, c, j, v: _spread(image, a, lambda k: padded(n, c, t * size + k, j, v)),
            name="winograd_rows",
            attrs=KEPT,
        )
        tiles = te.compute(
            (batch, down, count, count, blocks, across, lanes),
            lambda n, t, a, b, c, s, v: _spread(
                image, b, lambda k: rows(n, t, a, c, s * size + k, v)
            ),
            name="winograd_tiles",
            attrs=KEPT,
        )
        channel, lane = te.reduce_axis((0, blocks), "ib"), te.reduce_axis((0, lanes), "il")
        products = te.compute(
            (batch, down, count, count, factors.shape[2], across, factors.shape[5]),
            lambda n, t, a, b, o, s, v: te.sum(
                tiles(n, t, a, b, channel.var, s, lane.var)
                * factors(a, b, o, channel.var, lane.var, v),
                axis=[channel, lane],
            ),
            name="winograd_products",
        )
        columns = te.compute(
            (batch, down, size, count, factors.shape[2], across, factors.shape[5]),
            lambda n, t, i, b, o, s, v: _gathered(
                output, i, lambda k: products(n, t, k, b, o, s, v)
            ),
            name="winograd_columns",
            attrs=KEPT,
        )
        return te.compute(
            (batch, factors.shape[2], *sizes, factors.shape[5]),
            lambda n, o, i, j, v: _gathered(
                output,
                j % size,
                lambda k: columns(n, i // size, i % size, k, o, j // size, v),
            ),
            name="winograd_output",
            attrs=KEPT,
        )

    factors = ctx.const(transformed(taps, size))
    attributes = {"op_pattern": OUT_ELEMENTWISE_FUSABLE}
    return ctx.te("winograd", compute, data, factors, attributes=attributes)


def _spread(image: np.ndarray, row: Any, term: Any) -> Any:
    """Row `row` of the matrix `image`, known once loops are unrolled, times a vector of terms.

    The rows of a point and of its negative differ in the sign of every other coefficient only: what
    they have in common is written alike, for LLVM to compute it once.
    """
    lone = np.logical_not(image[:, ::2].any(axis=1))
    odd_part = image[:, 1::2]
    first = (odd_part != 0).argmax(axis=1)
    signs = np.where(lone, 1, np.sign(odd_part[np.arange(len(image)), first]))
    halves = []
    for parity, matrix in enumerate((image, image * signs[:, None])):
        columns = range(parity, image.shape[1], 2)
        fullest = sorted(columns, key=lambda k: np.count_nonzero(image[:, k] == 0))
        parts = [_chosen(matrix[:, k], row) * term(k) for k in fullest]
        halves.append(sum(parts[1:], parts[0]))
    even, odd = halves
    total = _where(row, np.greater(signs, 0), even + odd, even - odd)
    total = _where(row, np.equal(signs, 0), even, total)
    return _where(row, lone, odd, total)


def _gathered(output: np.ndarray, row: Any, term: Any) -> Any:
    """Row `row` of the matrix `output`, known once loops are unrolled, times a vector of terms;
    those of a point and of its negative are added or subtracted first, alike for all rows."""
    *inner, last = range(output.shape[1])
    total = _where(row, output[:, 0] != 0, term(0), literal(0.0, "float32"))
    for k in inner[1::2]:
        one, other = term(k), term(k + 1)
        both = _where(row, np.equal(output[:, k], output[:, k + 1]), one + other, one - other)
        total = _chosen(output[:, k], row) * both + total
    return _where(row, output[:, last] != 0, total + term(last), total)


def _chosen(values: np.ndarray, row: Any) -> Any:
    """The number of `values` at `row`."""
    chosen = literal(float(values[0]), "float32")
    for index in range(1, len(values)):
        chosen = tirx.Select(row == index, literal(float(values[index]), "float32"), chosen)
    return chosen


def _where(row: Any, flags: np.ndarray, one: Any, other: Any) -> Any:
    """`one` in the rows that are flagged, `other` elsewhere."""
    for index in np.flatnonzero(flags):
        other = tirx.Select(row == int(index), one, other)
    return other
