"""The grid's convolutions; see `kernel_cases`."""

from __future__ import annotations

import numpy as np

from .many_nodes import Model


def conv2d(m: Model) -> None:
    """Dense: first layers, odd channels and sizes, strides, dilations, uneven borders, batches."""
    x, h, odd = m.input(1, 3, 17, 13), m.input(1, 32, 14, 14), m.input(2, 20, 9, 11)
    first = m.conv(x, (3, 24), 3, 3, pads=[1, 1, 1, 1])
    m.out(m.conv(x, (3, 16), 5, 5, strides=[2, 2], pads=[2, 1, 2, 3]))
    m.out(m.conv(x, (3, 7), 3, 3, bias=False, auto_pad="SAME_UPPER", strides=[2, 3]))
    m.out(m.conv(m.input(1, 3, 40, 36), (3, 64), 7, 7, strides=[2, 2], pads=[3, 3, 3, 3]))
    m.out(m.conv(m.input(1, 1, 28, 28), (1, 8), 3, 3, pads=[1, 1, 1, 1]))
    m.out(m.conv(first, (24, 40), 3, 3, pads=[0, 2, 1, 0], dilations=[2, 1]))
    m.out(m.conv(first, (24, 5), 3, 3, strides=[2, 1], bias=False))
    m.out(m.conv(odd, (20, 36), 3, 3, auto_pad="SAME_LOWER", strides=[2, 2]))
    m.out(m.conv(odd, (20, 16), 1, 7, pads=[0, 3, 0, 3]))
    m.out(m.conv(odd, (20, 16), 7, 1, pads=[6, 0, 0, 0], dilations=[1, 3]))
    m.out(m.conv(odd, (20, 32), 3, 3, dilations=[3, 2], pads=[3, 2, 3, 2]))
    m.out(m.conv(h, (32, 64), 3, 3, pads=[1, 1, 1, 1]))
    m.out(m.conv(m.input(1, 16, 1, 19), (16, 16), 3, 3, pads=[1, 1, 1, 1]))
    m.out(m.conv(m.input(1, 16, 19, 1), (16, 16), 3, 3, pads=[1, 1, 1, 1]))
    m.out(m.conv(m.input(3, 16, 2, 2), (16, 48), 5, 5, pads=[2, 2, 2, 2]))
    m.out(m.conv(m.input(0, 16, 5, 5), (16, 16), 3, 3))
    m.out(m.conv(m.input(1, 4, 5, 6, 7), (4, 6), 2, 3, 3, pads=[0, 1, 1, 1, 1, 0]))


def deep(m: Model) -> None:
    """Many channels on few rows: sums by parts, halved rows, one part only, odd channels."""
    x = m.conv(m.input(1, 32, 14, 14), (32, 160), 3, 3, strides=[2, 2], pads=[1, 1, 1, 1])
    small = m.node("Relu", x)
    wide = m.conv(small, (160, 160), 3, 3, pads=[1, 1, 1, 1])
    m.out(m.node("Relu", m.node("Add", wide, small)))
    m.out(m.conv(small, (160, 480), 1, 1), m.conv(small, (160, 96), 1, 1, bias=False))
    m.out(m.conv(small, (160, 83), 2, 2, pads=[0, 1, 1, 0]), m.conv(small, (160, 16), 1, 1))
    m.out(m.conv(m.conv(small, (160, 24), 3, 3, strides=[2, 2]), (24, 64), 1, 1))


def pointwise(m: Model) -> None:
    """1x1 convolutions."""
    for shape, out, attrs in (
        ((1, 32, 14, 14), 48, {}),
        ((1, 20, 9, 11), 5, {}),
        ((2, 24, 7, 7), 96, {}),
        ((1, 64, 28, 28), 17, {}),
        ((1, 48, 15, 13), 16, {"strides": [2, 2]}),
        ((1, 96, 1, 1), 24, {}),
        ((3, 10, 1, 1), 3, {}),
        ((1, 16, 6, 6), 32, {"pads": [1, 0, 1, 2]}),
    ):
        m.out(m.conv(m.input(*shape), (shape[1], out), 1, 1, **attrs))


def depthwise(m: Model) -> None:
    """One channel to a group, or two made of each."""
    border = [1, 1, 1, 1]
    for shape, out, kernel, attrs in (
        ((1, 48, 14, 14), 48, (3, 3), {"pads": border, "strides": [2, 2]}),
        ((1, 48, 14, 14), 48, (5, 5), {"dilations": [2, 2]}),
        ((1, 20, 9, 11), 20, (3, 3), {"pads": border}),
        ((2, 24, 9, 11), 24, (3, 5), {"pads": [2, 0, 0, 3]}),
        ((1, 32, 7, 7), 32, (3, 3), {"pads": border}),
        ((1, 64, 33, 30), 64, (3, 3), {"pads": [0, 0, 1, 1], "strides": [2, 1]}),
        ((1, 32, 5, 5), 32, (7, 7), {"pads": [3, 3, 3, 3]}),
        ((1, 3, 17, 13), 3, (3, 3), {"pads": border}),
        ((1, 48, 8, 8), 96, (3, 3), {}),
        ((1, 16, 1, 21), 16, (1, 5), {"pads": [0, 4, 0, 0]}),
        ((1, 8, 12, 12), 8, (31, 31), {"pads": [15, 15, 15, 15]}),
    ):
        x = m.node("Relu", m.conv(m.input(*shape), (shape[1], shape[1]), 1, 1))
        groups = {"group": shape[1], **attrs}
        m.out(m.conv(x, (1, out), *kernel, bias=shape[1] != 48, **groups))


def chained(m: Model) -> None:
    """Large images that only a depthwise convolution reads."""
    for channels, size, kernel, attrs in (
        (96, (40, 37), (3, 3), {"pads": [1, 1, 1, 1]}),
        (84, (43, 45), (3, 3), {"pads": [0, 1, 1, 0], "strides": [2, 2]}),
        (64, (57, 40), (5, 5), {"pads": [2, 2, 2, 2], "dilations": [1, 1]}),
        (128, (33, 34), (3, 3), {"dilations": [2, 2]}),
    ):
        x = m.input(1, 16, *size)
        wide = m.node("Relu", m.conv(x, (16, channels), 1, 1))
        deep = m.node("Relu", m.conv(wide, (1, channels), *kernel, group=channels, **attrs))
        m.out(m.conv(deep, (channels, 24), 1, 1))


def grouped(m: Model) -> None:
    """Groups of several channels: whole blocks of them, less, and more."""
    for depth, out, groups, attrs in (
        (3, 12, 4, {}),
        (16, 32, 2, {"pads": [1, 1, 1, 1]}),
        (8, 16, 2, {"strides": [2, 2], "pads": [1, 1, 0, 0]}),
        (4, 32, 8, {"dilations": [2, 2]}),
        (20, 10, 2, {"bias": False}),
        (32, 96, 3, {"pads": [1, 1, 1, 1]}),
    ):
        m.out(m.conv(m.input(2, depth * groups, 9, 10), (depth, out), 3, 3, group=groups, **attrs))


def channels_last(m: Model) -> None:
    """Plain images whose channels come last, or almost: borders, none, batches, one used twice."""
    for shape, out, attrs in (
        ((1, 17, 13, 3), 8, {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
        ((2, 9, 9, 9), 24, {}),
        ((1, 12, 12, 20), 16, {"pads": [0, 2, 1, 0], "dilations": [1, 2]}),
    ):
        image = m.node("Transpose", m.input(*shape), perm=[0, 3, 1, 2])
        m.out(m.conv(image, (shape[3], out), 3, 3, **attrs))
    m.out(m.node("Relu", image))
    turned = m.node("Transpose", m.input(1, 9, 9, 9), perm=[0, 3, 2, 1])
    m.out(m.conv(turned, (9, 8), 3, 3))


def conv_tails(m: Model) -> None:
    """What follows a convolution in its own kernel, and what stands between two."""
    h = m.input(1, 32, 14, 14)
    a = m.conv(h, (32, 32), 3, 3, pads=[1, 1, 1, 1])
    b, odd = m.conv(h, (32, 32), 1, 1), m.conv(h, (32, 20), 1, 1)
    total = m.node("Add", a, b)
    m.out(m.node("Add", total, h), m.node("Relu", m.node("Add", m.conv(b, (32, 32), 1, 1), a)))
    six = m.constant(np.float32(6))
    m.out(m.node("Clip", m.conv(a, (32, 16), 1, 1), m.constant(np.float32(0)), six))
    m.out(m.node("HardSwish", m.conv(b, (32, 16), 3, 3)), m.node("HardSigmoid", odd))
    squeezed = m.node("GlobalAveragePool", total)
    gate = m.node("Sigmoid", m.conv(squeezed, (32, 32), 1, 1))
    m.out(m.node("Mul", total, gate), m.node("Flatten", squeezed))
    m.out(m.node("Mul", total, m.weight(32, 1, 1)), m.node("PRelu", odd, m.weight(20, 1, 1)))
    m.out(m.node("Div", odd, m.weight(1)), m.node("Log", m.node("Abs", m.node("Exp", odd))))
    m.out(m.node("Concat", a, b, odd, axis=1), m.node("Concat", odd, a, axis=1))
    m.out(m.node("Concat", a, b, axis=2), m.node("Transpose", odd, perm=[0, 2, 3, 1]))
    spatial = m.constant([-1, 2])
    m.out(m.node("ReduceMean", odd, spatial, keepdims=0), m.node("Softmax", total, axis=1))
    m.out(m.conv(m.node("ReduceMean", total, spatial), (32, 8), 1, 1))
    m.out(m.node("ReduceMean", odd, m.constant([1])))
    m.out(m.conv(m.node("Sqrt", m.node("Relu", odd)), (20, 16), 3, 3))
    m.out(m.node("MaxPool", odd, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 0, 0, 1]))
    m.out(m.node("AveragePool", total, kernel_shape=[3, 2], pads=[1, 1, 1, 0]))
    for mode, scale in (("nearest", 2.0), ("linear", 1.5), ("cubic", 0.5)):
        scales = m.constant(np.array([1, 1, scale, 2 * scale], np.float32))
        m.out(m.node("Resize", odd, "", scales, mode=mode))


def conv1d(m: Model) -> None:
    """Of sequences: strides, dilated causal ones, depthwise, batches."""
    for shape, (depth, out), kernel, attrs in (
        ((1, 24, 50), (24, 32), 3, {"pads": [1, 1]}),
        ((3, 10, 31), (10, 7), 5, {"strides": [2], "pads": [2, 1]}),
        ((1, 32, 64), (32, 32), 3, {"dilations": [8], "pads": [16, 0]}),
        ((1, 20, 33), (1, 20), 5, {"group": 20, "pads": [2, 2]}),
        ((2, 32, 17), (16, 48), 4, {"group": 2}),
        ((1, 40, 101), (40, 64), 1, {}),
        ((1, 1, 400), (1, 16), 25, {"strides": [5]}),
        ((1, 16, 1), (16, 8), 3, {"pads": [1, 1]}),
    ):
        m.out(m.node("Relu", m.conv(m.input(*shape), (depth, out), kernel, **attrs)))


def conv_transpose(m: Model) -> None:
    """Strides with and without overlap, borders, groups, dilations, odd channels."""
    for shape, out, kernel, attrs in (
        ((1, 32, 7, 7), 16, (2, 2), {"strides": [2, 2]}),
        ((1, 24, 9, 8), 20, (3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
        ((2, 16, 5, 6), 32, (3, 3), {"strides": [2, 3], "output_padding": [1, 2]}),
        ((1, 16, 8, 8), 8, (4, 4), {"strides": [2, 2], "pads": [1, 1, 1, 1], "group": 2}),
        ((1, 5, 6, 4), 3, (3, 2), {"dilations": [2, 3], "pads": [0, 1, 2, 0]}),
        ((1, 32, 10, 10), 1, (3, 3), {"pads": [1, 1, 1, 1]}),
        ((1, 16, 1, 9), 16, (1, 5), {"strides": [1, 4], "auto_pad": "SAME_UPPER"}),
        ((1, 12, 21), 10, (4,), {"strides": [2], "pads": [1, 1]}),
        ((1, 8, 16), 1, (8,), {"strides": [4], "group": 8}),
    ):
        x = m.input(*shape)
        m.out(m.conv(x, (shape[1], out), *kernel, op="ConvTranspose", **attrs))
