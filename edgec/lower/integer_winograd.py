"""Winograd's minimal filtering in integers: 3x3 convolutions of stride 1, exact to the bit.

A tile of 4 x 4 results is A^T [sum of (G g G^T) (B^T d B)] A as in `edgec.lower.winograd`, here by
the points 0, 1, -1, 2, -2 and infinity. Of its matrices only G has denominators. They are left
out of it, and 24 divided by each put into A^T, a power of two of that into G where it has room. So

    B^T d B     is within 100 * 255 and
    G g G^T     within 49 * 128: both are int16;
    A^T [...] A is the result times 24, 12, 6 or 6 for its row and for its column, modulo 2^32.

That is 9 times a power of two. The product with the inverse of 9 modulo 2^32 takes the 9 off, a
shift to the right the power of two, at most 2^6: exact where no result is beyond 2^25.

The plain sum has four times as many products. With VNNI an instruction multiplies two words or four
bytes; without, bytes are made words first, and it multiplies two of them.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
from tvm import relax, te, tirx

from edgec.lower.border import bordered
from edgec.lower.context import OUT_ELEMENTWISE_FUSABLE, Context, Shape, literal
from edgec.lower.dot import dot2, pair, rounded
from edgec.lower.image import spread
from edgec.lower.window import Window
from edgec.lower.winograd import KEPT

Rows = tuple[tuple[int, ...], ...]

SIZE = 4
"""Rows and columns of a tile of the result."""

_COUNT = SIZE + 2
_KERNEL = np.array([[6, 0, 0], [1, 1, 1], [1, -1, 1], [1, 2, 4], [1, -2, 4], [0, 0, 6]])
"""G."""

_IMAGE_TERMS: Rows = (
    (1, 0, -1, 0, 0, 0),
    (0, 0, 4, 0, -1, 0),
    (0, 4, 0, -1, 0, 0),
    (0, 0, -1, 0, 1, 0),
    (0, -2, 0, 2, 0, 0),
    (0, 0, 0, -1, 0, 1),
)
_IMAGE: Rows = (
    (4, 0, 0, 1, 0, 0),
    (0, 1, 1, 0, 0, 0),
    (0, 1, -1, 0, 0, 0),
    (0, 0, 0, 1, 1, 0),
    (0, 0, 0, 1, -1, 0),
    (0, 0, 0, 0, -2, 1),
)
"""B^T is the second times the first: what its rows have in common is computed once."""

_RESULT_TERMS: Rows = (
    (1, 0, 0, 0, 0, 0),
    (0, 1, 1, 0, 0, 0),
    (0, 1, -1, 0, 0, 0),
    (0, 0, 0, 1, 1, 0),
    (0, 0, 0, 1, -1, 0),
    (0, 0, 0, 0, 0, 1),
)
_RESULT: Rows = (
    (1, 4, 0, 1, 0, 0),
    (0, 0, 2, 0, 1, 0),
    (0, 1, 0, 1, 0, 0),
    (0, 0, 1, 0, 2, 1),
)
"""The same of A^T."""

_TWOS = (3, 2, 1, 1)
"""Each row of A^T makes of a result 3 times this power of two."""

_NINTH = pow(9, -1, 1 << 32)
"""The inverse of 9 modulo 2^32."""

_MOST = 1 << 25
"""Results of smaller magnitude are exact."""

_MOST_BYTES = 5 << 18
"""Of weights, eight times what they take as bytes: more would not stay near the processor, and make
modules large."""

_LEAST_SHARE, _LEAST_CYCLES = 0.1, 24
"""Of the plain sum's time, what has to be gained for an estimate to be trusted; and cycles per pair
of channels, whose weights take 63 bytes more."""


def pays(ctx: Context, x: relax.Expr, weights: np.ndarray, w: Window) -> bool:
    """Whether this is exact, and faster, for the convolution of `x`, uint8
    [N, blocks, H, W, lanes], by `weights`, int8 [O, I, kh, kw].

    Times are in cycles of a Zen 4 per pair of channels: products, transforms of the image shared by
    the outputs and of the results shared by the inputs, and weights from memory (measured on
    squares of 7 to 112 with 16 to 256 channels), with VNNI; without, the plain sum takes longer.
    """
    if ctx.dots != "words" or ctx.shape(x)[-1] != ctx.block:
        return False
    if w.kernel != (3, 3) or not w.strides == w.dilations == (1, 1):
        return False
    outputs, inputs = (-(-extent // ctx.block) * ctx.block for extent in weights.shape[:2])
    if 2 * _COUNT**2 * outputs * inputs > _MOST_BYTES or _largest(weights) >= _MOST:
        return False
    images = ctx.shape(x)[0]
    tiles = images * prod(-(-extent // SIZE) for extent in w.sizes)
    plain = 9 * images * prod(w.sizes) / 64 + 1
    by_tiles = _COUNT**2 * tiles / 32 * (1 + 4 / outputs + 15 / inputs) + 7
    return bool(plain - by_tiles > max(_LEAST_SHARE * plain, _LEAST_CYCLES))


def _largest(weights: np.ndarray) -> int:
    """The largest magnitude that a sum of bytes by these weights has."""
    wide = weights.astype(np.int64)
    ends = (np.maximum(part, 0).sum(axis=(1, 2, 3)).max() for part in (wide, -wide))
    return int(255 * max(ends))


def transformed(weights: np.ndarray, block: int) -> np.ndarray:
    """Weights int8 [O, I, 3, 3] as two words of neighbouring inputs each, int32
    [6, 6, O/b, I/b, b/2, b]."""
    outputs, inputs, *_ = weights.shape
    filled = np.zeros((outputs, -(-inputs // block) * block, 3, 3), np.int64)
    filled[:, :inputs] = weights
    made = np.einsum("ay,oiyx,bx->aboi", _KERNEL, filled, _KERNEL).astype("<i2")
    lanes = spread(made, 2, block).reshape(_COUNT, _COUNT, -(-outputs // block), -1, 2, block)
    words = np.ascontiguousarray(np.moveaxis(lanes, -2, -1)).view("<i4")
    return np.ascontiguousarray(
        words.reshape(*words.shape[:3], -1, block // 2, block), dtype=np.int32
    )


def sums(ctx: Context, x: relax.Expr, zero: int, weights: np.ndarray, w: Window) -> relax.Expr:
    """The convolution of `x`, uint8 [N, blocks, H, W, b], with `zero` around it, by `weights`, int8
    [O, I, 3, 3], that `pays`: an int32 image of blocks."""
    batch, blocks, _, _, lanes = ctx.shape(x)
    down, across = (-(-extent // SIZE) for extent in w.sizes)

    def compute(data: te.Tensor, taps: te.Tensor) -> te.Tensor:
        top, left = w.before
        padded = bordered(data, top, left, down * SIZE + 2, across * SIZE + 2, fill=zero)

        def stage(name: str, shape: Shape, element: Callable[..., Any]) -> te.Tensor:
            return te.compute(shape, element, name=f"winograd_{name}", attrs=KEPT)

        def row(n: Any, t: Any, a: Any, c: Any, j: Any, v: Any) -> Any:
            return _of_image(a, lambda k: padded(n, c, t * SIZE + k, j, v).astype("int16"))

        def tile(n: Any, t: Any, a: Any, b: Any, c: Any, s: Any, v: Any) -> Any:
            return _of_image(b, lambda k: rows(n, t, a, c, s * SIZE + k, v))

        def product(n: Any, t: Any, a: Any, b: Any, o: Any, s: Any, v: Any) -> Any:
            c, q = channel.var, word.var
            two = pair(*(tiles(n, t, a, b, c, s, 2 * q + k) for k in range(2)))
            return te.sum(dot2(two, taps(a, b, o, c, q, v)), axis=[channel, word])

        def column(n: Any, t: Any, i: Any, b: Any, o: Any, s: Any, v: Any) -> Any:
            return _of_products(i, lambda k: products(n, t, k, b, o, s, v))

        def result(n: Any, o: Any, i: Any, j: Any, v: Any) -> Any:
            t, s, a, b = i // SIZE, j // SIZE, i % SIZE, j % SIZE
            times = _of_products(b, lambda k: columns(n, t, a, k, o, s, v))
            twos = _chosen(_TWOS, a, "int32") + _chosen(_TWOS, b, "int32")
            return _opaque(times * literal(_NINTH, "int32")) >> twos

        outputs = taps.shape[2]
        channel, word = te.reduce_axis((0, blocks), "ib"), te.reduce_axis((0, lanes // 2), "q")
        wide, square = across * SIZE + 2, (_COUNT, _COUNT)
        rows = stage("rows", (batch, down, _COUNT, blocks, wide, lanes), row)
        tiles = stage("tiles", (batch, down, *square, blocks, across, lanes), tile)
        shape = (batch, down, *square, outputs, across, lanes)
        products = te.compute(shape, product, name="winograd_products")
        columns = stage("columns", (batch, down, SIZE, _COUNT, outputs, across, lanes), column)
        return stage("output", (batch, outputs, *w.sizes, lanes), result)

    taps = ctx.const(transformed(weights, lanes))
    attributes = {"op_pattern": OUT_ELEMENTWISE_FUSABLE}
    return ctx.te("conv2d_by_tiles", compute, x, taps, attributes=attributes)


def _opaque(x: Any) -> Any:
    """`x`, int32, with LLVM kept from what it concludes of products, which it takes not to wrap."""
    return tirx.reinterpret("int32", rounded(tirx.reinterpret("float32", x)))


def _of_image(row: Any, term: Callable[[int], Any]) -> Any:
    """Row `row` of B^T times a vector of six int16."""
    return _product(_IMAGE, _IMAGE_TERMS, row, term, "int16")


def _of_products(row: Any, term: Callable[[int], Any]) -> Any:
    """Row `row` of A^T times a vector of six int32."""
    return _product(_RESULT, _RESULT_TERMS, row, term, "int32")


def _product(matrix: Rows, terms: Rows, row: Any, term: Callable[[int], Any], dtype: str) -> Any:
    """Row `row`, known once loops are unrolled, of the product of two matrices times a vector."""
    parts = [
        _total([literal(factor, dtype) * term(k) for k, factor in enumerate(of) if factor])
        for of in terms
    ]
    columns = zip(*matrix, strict=True)
    return _total([_chosen(of, row, dtype) * part for of, part in zip(columns, parts, strict=True)])


def _total(parts: list[Any]) -> Any:
    whole = parts[0]
    for part in parts[1:]:
        whole = whole + part
    return whole


def _chosen(values: tuple[int, ...], index: Any, dtype: str) -> Any:
    made = literal(values[0], dtype)
    for place, value in enumerate(values[1:], 1):
        made = tirx.Select(index == place, literal(value, dtype), made)
    return made
