"""Winograd's minimal filtering in integers: 3x3 convolutions of stride 1, exact to the bit.

As `edgec.lower.winograd`, by the points 0, 1, -1, 2, -2 and infinity, whose matrices are integers
but for the denominators 4, 6, 6, 24, 24 and 1 of G. Here G is left without them, and what they
divide 24 by is part of A^T, or of G where that keeps numbers small. So with

    B^T d B   within 100 * 255, and G g G^T within 49 * 128, both int16

the rows of A^T make 24, 12, 6 and 6 times those of the result, modulo 2^32: a power of two times 9.
The product with the inverse of 9 modulo 2^32 takes the 9 off, a shift to the right the power of
two, of 2^6 at most; which is exact where no sum is beyond 2^25.

A step of a sum multiplies two words, where the plain one multiplies four bytes, and there are four
times fewer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from tvm import relax, te, tirx

from edgec.lower.border import bordered
from edgec.lower.context import OUT_ELEMENTWISE_FUSABLE, Context, Shape, literal
from edgec.lower.dot import dot2, pair
from edgec.lower.image import spread
from edgec.lower.winograd import KEPT
from edgec.lower.window import Window

SIZE = 4
"""Of a tile of the result."""

_COUNT = SIZE + 2
_KERNEL = np.array([[6, 0, 0], [1, 1, 1], [1, -1, 1], [1, 2, 4], [1, -2, 4], [0, 0, 6]])
_IMAGE_PARTS = (
    (1, 0, -1, 0, 0, 0),
    (0, 0, 4, 0, -1, 0),
    (0, 4, 0, -1, 0, 0),
    (0, 0, -1, 0, 1, 0),
    (0, -2, 0, 2, 0, 0),
    (0, 0, 0, -1, 0, 1),
)
_IMAGE = (
    (4, 0, 0, 1, 0, 0),
    (0, 1, 1, 0, 0, 0),
    (0, 1, -1, 0, 0, 0),
    (0, 0, 0, 1, 1, 0),
    (0, 0, 0, 1, -1, 0),
    (0, 0, 0, 0, -2, 1),
)
_OUTPUT_PARTS = (
    (1, 0, 0, 0, 0, 0),
    (0, 1, 1, 0, 0, 0),
    (0, 1, -1, 0, 0, 0),
    (0, 0, 0, 1, 1, 0),
    (0, 0, 0, 1, -1, 0),
    (0, 0, 0, 0, 0, 1),
)
_OUTPUT = (
    (1, 4, 0, 1, 0, 0),
    (0, 0, 2, 0, 1, 0),
    (0, 1, 0, 1, 0, 0),
    (0, 0, 1, 0, 2, 1),
)
_TWOS = (3, 2, 1, 1)
_NINTH = pow(9, -1, 1 << 32) - (1 << 32)
"""The inverse of 9 modulo 2^32, as an int32."""



def factors(weights: np.ndarray, block: int) -> np.ndarray:
    """Weights int8 [O, I, 3, 3], I a multiple of `block`, as pairs of words of input channels,
    int32 [6, 6, O/b, I/b, b/2, b]."""
    made = np.einsum("ay,oiyx,bx->aboi", _KERNEL, weights.astype(np.int64), _KERNEL)
    lanes = spread(made.astype(np.int16), 2, block)
    words = lanes.reshape(_COUNT, _COUNT, lanes.shape[2], -1, block // 2, 2, block)
    moved = np.ascontiguousarray(np.moveaxis(words, 5, 6))
    return np.ascontiguousarray(moved.view("<i4")[..., 0], np.int32)


def sums(ctx: Context, x: relax.Expr, zero: int, weights: np.ndarray, w: Window) -> relax.Expr:
    """The convolution of `x`, uint8 [N, I/b, H, W, b] inside of a border of `zero`, by `weights`,
    int8 [O, I, 3, 3]: an int32 image of blocks."""
    batch, blocks, _, _, lanes = ctx.shape(x)
    down, across = (-(-extent // SIZE) for extent in w.sizes)

    def compute(data: te.Tensor, taps: te.Tensor) -> te.Tensor:
        top, left = w.before
        rows_in, columns_in = down * SIZE + 2, across * SIZE + 2
        padded = bordered(data, top, left, rows_in, columns_in, fill=zero)
        rows = te.compute(
            (batch, down, _COUNT, blocks, columns_in, lanes),
            lambda n, t, a, c, j, v: _image(
                a, lambda k: padded(n, c, t * SIZE + k, j, v).astype("int16")
            ),
            name="winograd_rows",
            attrs=KEPT,
        )
        tiles = te.compute(
            (batch, down, _COUNT, _COUNT, blocks, across, lanes),
            lambda n, t, a, b, c, s, v: _image(b, lambda k: rows(n, t, a, c, s * SIZE + k, v)),
            name="winograd_tiles",
            attrs=KEPT,
        )
        channel, word = te.reduce_axis((0, blocks), "ib"), te.reduce_axis((0, lanes // 2), "q")
        products = te.compute(
            (batch, down, _COUNT, _COUNT, taps.shape[2], across, taps.shape[5]),
            lambda n, t, a, b, o, s, v: te.sum(
                dot2(
                    pair(*(tiles(n, t, a, b, channel.var, s, 2 * word.var + k) for k in range(2))),
                    taps(a, b, o, channel.var, word.var, v),
                ),
                axis=[channel, word],
            ),
            name="winograd_products",
        )
        columns = te.compute(
            (batch, down, SIZE, _COUNT, taps.shape[2], across, taps.shape[5]),
            lambda n, t, i, b, o, s, v: _output(i, lambda k: products(n, t, k, b, o, s, v)),
            name="winograd_columns",
            attrs=KEPT,
        )

        def element(n: Any, o: Any, i: Any, j: Any, v: Any) -> Any:
            times = _output(
                j % SIZE, lambda k: columns(n, i // SIZE, i % SIZE, k, o, j // SIZE, v)
            )
            twos = (_chosen(_TWOS, each % SIZE, "int32") for each in (i, j))
            return (times * literal(_NINTH, "int32")) >> (next(twos) + next(twos))

        return te.compute(
            (batch, taps.shape[2], *w.sizes, taps.shape[5]),
            element,
            name="winograd_output",
            attrs=KEPT,
        )

    attributes = {"op_pattern": OUT_ELEMENTWISE_FUSABLE}
    taps = ctx.const(factors(weights, ctx.block))
    return ctx.te("winograd", compute, x, taps, attributes=attributes)


def _image(row: Any, term: Callable[[int], Any]) -> Any:
    """Row `row` of B^T times a vector of six int16."""
    parts = [_fixed(part, term, "int16") for part in _IMAGE_PARTS]
    return _combined(_IMAGE, row, parts, "int16")


def _output(row: Any, term: Callable[[int], Any]) -> Any:
    """Row `row` of A^T times a vector of six int32."""
    parts = [_fixed(part, term, "int32") for part in _OUTPUT_PARTS]
    return _combined(_OUTPUT, row, parts, "int32")


def _fixed(row: tuple[int, ...], term: Callable[[int], Any], dtype: str) -> Any:
    total = None
    for k, factor in enumerate(row):
        if factor:
            value = term(k) if factor == 1 else term(k) * literal(factor, dtype)
            total = value if total is None else total + value
    return total


def _combined(matrix: Any, row: Any, parts: list[Any], dtype: str) -> Any:
    """Row `row` of `matrix`, known once loops are unrolled, times a vector."""
    total = None
    for column, part in zip(zip(*matrix, strict=True), parts, strict=True):
        value = _chosen(column, row, dtype) * part
        total = value if total is None else total + value
    return total


def _chosen(values: tuple[int, ...], index: Any, dtype: str) -> Any:
    made = literal(values[0], dtype)
    for place, value in enumerate(values[1:], 1):
        made = tirx.Select(index == place, literal(value, dtype), made)
    return made
