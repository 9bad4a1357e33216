"""The grid: for each family of kernels the shapes and attributes at which schedules may go wrong.

Odd sizes, sizes that fill vectors and blocks of channels and those that do not, borders, strides,
dilations, groups, more than one image, nothing at all; small ones that stay on one thread and large
ones that are shared. A function adds its family's nodes to a model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from .convolution_cases import (
    chained,
    channels_last,
    conv1d,
    conv2d,
    conv_tails,
    conv_transpose,
    deep,
    depthwise,
    grouped,
    pointwise,
)
from .many_nodes import Model

Family = Callable[[Model], None]


def matmul(m: Model) -> None:
    """Rows, depth and columns that fill tiles and those that do not; batches; vectors; nothing."""
    for rows, depth, columns in (
        (1, 64, 10),
        (1, 129, 96),
        (1, 300, 257),
        (2, 5, 17),
        (3, 64, 48),
        (7, 33, 100),
        (16, 48, 1),
        (33, 20, 3),
        (64, 100, 128),
        (5, 1, 40),
        (37, 64, 31),
    ):
        m.out(m.node("MatMul", m.input(rows, depth), m.weight(depth, columns)))
        m.out(m.node("MatMul", m.input(rows, depth), m.input(depth, columns)))
    sequence = m.input(2, 3, 5, 16)
    m.out(m.node("MatMul", sequence, m.weight(16, 24)))
    m.out(m.node("MatMul", m.input(2, 1, 5, 16), m.input(3, 16, 6)))
    m.out(m.node("MatMul", sequence, m.node("Transpose", sequence, perm=[0, 1, 3, 2])))
    m.out(m.node("MatMul", m.node("Transpose", m.input(24, 40), perm=[1, 0]), m.weight(24, 33)))
    m.out(m.node("MatMul", m.weight(9, 30), m.input(30, 34)))
    m.out(
        m.node("MatMul", m.input(19), m.input(19, 6)), m.node("MatMul", m.input(7, 65), m.input(65))
    )
    m.out(m.node("MatMul", m.input(50), m.input(50)))
    m.out(m.node("MatMul", m.input(0, 4), m.weight(4, 3)))
    m.out(m.node("MatMul", m.input(3, 0), m.input(0, 4)))
    decayed = m.node("Mul", m.input(2, 4, 8, 8), m.node("Exp", m.input(2, 4, 8, 1)))
    m.out(m.node("Add", decayed, m.node("MatMul", m.input(2, 4, 8, 1), m.input(2, 4, 1, 8))))


def gemm(m: Model) -> None:
    """Both sides transposed or not, scaled, every shape of C, and a tail."""
    for n, bias in enumerate(((18, 35), (1, 35), (35,), (18, 1), ())):
        for flipped in (0, 1):
            b = (35, 24) if flipped else (24, 35)
            second = m.weight(*b) if n % 2 else m.input(*b)
            x = m.input(24, 18) if n > 2 else m.input(18, 24)
            attrs = {"transA": int(n > 2), "transB": flipped, "alpha": 0.5 * (n + 1), "beta": 2.0}
            m.out(m.node("Gemm", x, second, m.weight(*bias), **attrs))
    for rows, columns in ((1, 250), (4, 64), (130, 50)):
        dense = m.node("Gemm", m.input(rows, 128), m.weight(128, columns), m.weight(columns))
        m.out(m.node("Tanh", dense), m.node("Gemm", m.node("Relu", dense), m.weight(columns, 9)))


def attention(m: Model) -> None:
    """Spelled out as exporters do, masked and not, and as the operator."""
    for batch, heads, queries, keys, size in (
        (2, 2, 7, 7, 8),
        (1, 3, 33, 20, 12),
        (1, 1, 1, 65, 64),
        (1, 6, 64, 64, 64),
        (1, 1, 15, 256, 20),
    ):
        q, k, v = (m.input(batch, n, heads, size) for n in (queries, keys, keys))
        q, v = (m.node("Transpose", x, perm=[0, 2, 1, 3]) for x in (q, v))
        scores = m.node("MatMul", q, m.node("Transpose", k, perm=[0, 2, 3, 1]))
        scores = m.node("Div", scores, m.constant(np.float32(np.sqrt(size))))
        mask = np.where(np.arange(keys) < (keys + 1) // 2, 0, -1e4).astype(np.float32)
        for masked in (False, True):
            given = m.node("Add", scores, m.given(mask)) if masked else scores
            value = m.node("MatMul", m.node("Softmax", given, axis=-1), v)
            value = m.node("Transpose", value, perm=[0, 2, 1, 3])
            m.out(m.node("Reshape", value, m.constant([batch, queries, heads * size])))
        if keys % 16:
            parts = [m.input(batch, heads, n, size) for n in (queries, keys, keys)]
            m.out(m.node("Attention", *parts), m.node("Attention", *parts, is_causal=1))
    weights = m.node("Softmax", m.node("MatMul", m.input(2, 3, 12, 9), m.input(9, 20)), axis=-1)
    m.out(m.node("MatMul", weights, m.input(20, 10)))
    few = [m.input(2, h, n, 16) for h, n in ((4, 9), (2, 11), (2, 11))]
    m.out(m.node("Attention", *few, scale=0.3))


def pooling(m: Model) -> None:
    """Windows beyond the image, ceiling, dilation, what counts as padding, 1 to 3 dimensions."""
    x, odd = m.input(1, 32, 14, 14), m.input(2, 5, 9, 11)
    for op in ("MaxPool", "AveragePool"):
        m.out(m.node(op, x, kernel_shape=[2, 2], strides=[2, 2]))
        m.out(m.node(op, odd, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 0, 0, 1]))
        m.out(m.node(op, odd, kernel_shape=[3, 2], strides=[2, 3], ceil_mode=1))
        m.out(m.node(op, m.input(1, 3, 21), kernel_shape=[4], strides=[3], pads=[1, 2]))
        m.out(m.node(op, m.input(1, 2, 5, 6, 7), kernel_shape=[2, 3, 2], auto_pad="SAME_UPPER"))
        m.out(m.node(f"Global{op}", m.input(1, 40, 7, 7)), m.node(f"Global{op}", odd))
        m.out(m.node(op, m.input(1, 64, 33, 35), kernel_shape=[3, 3], strides=[2, 2]))
    m.out(m.node("MaxPool", odd, kernel_shape=[2, 3], dilations=[3, 2]))
    m.out(m.node("AveragePool", odd, kernel_shape=[2, 2], pads=[1, 1, 0, 0], count_include_pad=1))


def reductions(m: Model) -> None:
    """Over the last axis, the first, the middle, several, all, and an empty one."""
    x, wide = m.input(3, 17, 5, 16), m.input(40, 700)
    for op in ("ReduceSum", "ReduceMax", "ReduceLogSumExp"):
        m.out(m.node(op, wide, m.constant([1]), keepdims=0), m.node(op, wide, m.constant([0])))
        m.out(m.node(op, x, m.constant([1])), m.node(op, x, m.constant([0, 3]), keepdims=0))
    for op in ("ReduceMean", "ReduceL2"):
        m.out(m.node(op, x, keepdims=0), m.node(op, x, m.constant([2, 3])))
        m.out(m.node(op, m.input(1, 7), m.constant([0])), m.node(op, m.input(9), m.constant([0])))
    m.out(m.node("ReduceSum", m.input(0, 5), m.constant([0])))
    m.out(m.node("ReduceSum", m.input(4, 0, 3), m.constant([2])))
    m.out(m.node("ArgMax", wide, axis=1), m.node("ArgMin", x, axis=0, keepdims=0))
    m.out(m.node("CumSum", x, m.constant(1)), m.node("CumSum", wide, m.constant(1), reverse=1))


def softmax(m: Model) -> None:
    """Rows of few and many values, other axes."""
    for op in ("Softmax", "LogSoftmax"):
        for shape, axis in (
            ((1, 10), -1),
            ((33, 3), -1),
            ((2, 257), 1),
            ((64, 512), -1),
            ((2, 21, 9, 7), 1),
            ((5, 8, 16), 0),
            ((0, 8), -1),
        ):
            m.out(m.node(op, m.input(*shape), axis=axis))
    m.out(m.node("Softmax", m.node("Mul", m.input(3, 40), m.constant(np.float32(50)))))


def normalization(m: Model) -> None:
    """By layer and root mean square, whole and in pieces; by instance, group and batch."""
    for shape, axis in (
        ((1, 7, 32), -1),
        ((2, 5, 33), -1),
        ((64, 384), -1),
        ((3, 4, 6, 5), 2),
        ((1, 1), -1),
        ((0, 16), -1),
    ):
        scale = m.weight(*shape[axis:])
        x = m.input(*shape)
        m.out(m.node("RMSNormalization", x, scale, axis=axis))
        m.out(m.node("LayerNormalization", x, scale, m.weight(*shape[axis:]), axis=axis))
        m.out(m.node("LayerNormalization", m.node("Add", x, x), scale, axis=axis, epsilon=1e-3))
    x, last = m.input(4, 9, 48), m.constant([-1])
    centred = m.node("Sub", x, m.node("ReduceMean", x, last))
    square = m.node("ReduceMean", m.node("Mul", centred, centred), last)
    spread = m.node("Sqrt", m.node("Add", square, m.constant(np.float32(1e-5))))
    scaled = m.node("Mul", m.node("Div", centred, spread), m.weight(48))
    m.out(m.node("Add", scaled, m.weight(48)))
    image = m.input(2, 12, 7, 9)
    m.out(m.node("InstanceNormalization", image, m.weight(12), m.weight(12)))
    m.out(m.node("GroupNormalization", image, m.weight(12), m.weight(12), num_groups=3))
    m.out(m.node("LpNormalization", x, axis=1), m.node("LRN", image, size=3))


def resize(m: Model) -> None:
    """Modes and grids, growing and shrinking, odd sizes."""
    for n, (mode, grid) in enumerate(
        (mode, grid)
        for mode in ("linear", "cubic")
        for grid in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
    ):
        sizes = m.constant([1, 5, 4 + 3 * n, 9 + n])
        x = m.input(1, 5, 9, 7)
        m.out(m.node("Resize", x, "", "", sizes, mode=mode, coordinate_transformation_mode=grid))
    for shape, factors in (
        ((1, 32, 7, 7), (2, 2)),
        ((2, 3, 8, 6), (0.5, 4)),
        ((1, 1, 1, 5), (3, 1)),
    ):
        scales = m.constant(np.array([1, 1, *factors], np.float32))
        x = m.input(*shape)
        m.out(m.node("Resize", x, "", scales, mode="nearest"))
        m.out(m.node("Resize", x, "", scales, mode="linear"))
    scales = m.constant(np.array([1, 1, 2.5], np.float32))
    m.out(m.node("Resize", m.input(1, 4, 11), "", scales, mode="linear"))


def movement(m: Model) -> None:
    """Data that are only moved: transposed, joined, cut, padded, picked, repeated."""
    x, large = m.input(3, 5, 7, 4), m.input(1, 33, 40, 16)
    for perm in ([3, 2, 1, 0], [0, 2, 3, 1], [0, 3, 1, 2], [1, 0, 2, 3], [0, 1, 3, 2]):
        m.out(m.node("Transpose", x, perm=perm), m.node("Transpose", large, perm=perm))
    m.out(m.node("Transpose", m.input(67, 130), perm=[1, 0]))
    for axis in range(4):
        other = m.node(
            "Relu", m.input(*(2 if a == axis else n for a, n in enumerate((3, 5, 7, 4))))
        )
        m.out(m.node("Concat", x, other, x, axis=axis))
        parts = m.node_of("Split", [large, m.constant(_parts((1, 33, 40, 16)[axis]))], 2, axis=axis)
        m.out(*parts)
    m.out(m.node("Concat", m.input(0, 5), m.input(2, 5), axis=0))
    for bounds in (([1], [6], [2], [1]), ([0, -1], [2, -9], [0, 2], [1, -2]), ([4], [4], [1], [1])):
        starts, ends, axes, steps = map(m.constant, bounds)
        m.out(m.node("Slice", x, starts, ends, axes, steps))
    for mode in ("constant", "reflect", "edge", "wrap"):
        m.out(m.node("Pad", x, m.constant([0, 1, 2, 0, 1, 0, 1, 3]), mode=mode))
        m.out(m.node("Pad", large, m.constant([0, 0, 1, 1, 0, 0, 1, 1]), mode=mode))
    m.out(m.node("Pad", x, m.constant([0, 0, -1, 1, 0, 0, 0, -2])))
    m.out(m.node("Gather", x, m.constant([[2, 0], [-1, 1]]), axis=1))
    m.out(
        m.node("Tile", x, m.constant([1, 2, 1, 3])),
        m.node("Expand", x, m.constant([2, 1, 1, 1, 1])),
    )
    m.out(m.node("DepthToSpace", large, blocksize=1), m.node("SpaceToDepth", large, blocksize=4))
    m.out(m.node("Transpose", m.node("Reshape", large, m.constant([33, 40, 16])), perm=[2, 0, 1]))


def elementwise(m: Model) -> None:
    """Chains, broadcasting on every side, odd sizes, what several read."""
    for shape in ((1,), (17,), (2, 33, 31), (100_003,), (0, 4), ()):
        x = m.input(*shape)
        chain = m.node("Mul", m.node("Sigmoid", m.node("Add", x, m.weight(1))), x)
        m.out(m.node("Tanh", chain), m.node("Sub", chain, m.node("Abs", x)))
        m.out(m.node("Where", m.node("Greater", x, chain), x, m.node("Neg", chain)))
    for a, b in (
        ((4, 1, 5), (3, 1)),
        ((1, 64, 32, 32), (64, 1, 1)),
        ((7, 40), (7, 1)),
        ((16, 300), (300,)),
        ((1,), (2, 3, 130)),
        ((2, 1, 1, 65), (9, 33, 1)),
    ):
        x, y = m.input(*a), m.node("Exp", m.input(*b))
        m.out(m.node("Add", x, y), m.node("Div", x, y), m.node("Max", x, y))
        m.out(m.node("Gelu", x), m.node("Pow", y, x))


def recurrent(m: Model) -> None:
    """LSTM, GRU and RNN: directions, batches, states given, every output."""
    for op, gates, results in (("LSTM", 4, 3), ("GRU", 3, 2), ("RNN", 1, 2)):
        for steps, batch, depth, hidden, direction in (
            (5, 1, 10, 16, "forward"),
            (3, 2, 7, 5, "reverse"),
            (4, 3, 16, 33, "bidirectional"),
            (1, 1, 40, 64, "forward"),
        ):
            ways = 2 if direction == "bidirectional" else 1
            weights = [m.weight(ways, gates * hidden, n) for n in (depth, hidden)]
            biases = m.weight(ways, 2 * gates * hidden)
            state = [m.input(ways, batch, hidden) for _ in range(results - 1)] if batch > 1 else []
            inputs = [
                m.input(steps, batch, depth),
                *weights,
                biases,
                *([""] if state else []),
                *state,
            ]
            attrs = {"hidden_size": hidden, "direction": direction}
            if op == "GRU" and hidden % 16 == 0:
                attrs["linear_before_reset"] = 1
            m.out(*m.node_of(op, inputs, results, **attrs))


def _parts(size: int) -> Iterable[int]:
    return [size // 3, size - size // 3]


FAMILIES: dict[str, tuple[Family, ...]] = {
    "convolutions": (
        conv2d,
        channels_last,
        deep,
        pointwise,
        depthwise,
        chained,
        grouped,
        conv1d,
        conv_transpose,
    ),
    "images": (conv_tails, pooling, resize),
    "products": (matmul, gemm, attention),
    "rows": (reductions, softmax, normalization, recurrent),
    "elements": (movement, elementwise),
}
"""Those compiled together."""
