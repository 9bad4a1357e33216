"""Nodes drawn by hypothesis, of the operators that have many attributes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import oracle
from hypothesis import assume
from hypothesis import strategies as st
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from .many_nodes import Model

REFUSALS = (ort_errors.Fail, ort_errors.InvalidArgument, ort_errors.RuntimeException)
REFUSALS += (ort_errors.InvalidGraph, ort_errors.NotImplemented)

Pick = Callable[[st.SearchStrategy[Any]], Any]
Constant = np.ndarray | tuple[int, ...] | None


class Draw(NamedTuple):
    """One node: operator, shape of its input, what follows it (a shape is of random numbers)."""

    op: str
    shape: tuple[int, ...]
    constants: tuple[Constant, ...] = ()
    attrs: dict[str, Any] = {}  # noqa: RUF012

    def add(self, m: Model) -> None:
        """As a node of `m`, its result an output."""
        inputs = [m.input(*self.shape)]
        for value in self.constants:
            numbers = m.random.standard_normal(value) if isinstance(value, tuple) else value
            kind = np.float32 if isinstance(value, tuple) else getattr(value, "dtype", None)
            inputs.append("" if value is None else m.constant(np.asarray(numbers, kind)))
        m.out(m.node(self.op, *inputs, **self.attrs))


def _one(pick: Pick, *choices: Any) -> Any:
    return pick(st.sampled_from(choices))


def _int(pick: Pick, low: int, high: int) -> int:
    return int(pick(st.integers(low, high)))


def _ints(pick: Pick, low: int, high: int, count: int) -> list[int]:
    return [_int(pick, low, high) for _ in range(count)]


def _window(pick: Pick, rank: int, *, ceil: bool = False) -> dict[str, Any]:
    kernel = _ints(pick, 1, 3, rank)
    attrs: dict[str, Any] = {
        "kernel_shape": kernel,
        "strides": _ints(pick, 1, 3, rank),
        "dilations": _ints(pick, 1, 2, rank),
    }
    auto = _one(pick, "NOTSET", "NOTSET", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")
    if auto == "NOTSET":
        attrs["pads"] = [_int(pick, 0, k - 1) for k in kernel + kernel]
    else:
        attrs |= {"auto_pad": auto, "dilations": [1] * rank}
    return attrs | ({"ceil_mode": _int(pick, 0, 1)} if ceil else {})


@st.composite
def conv(pick: Pick) -> Draw:
    rank, groups = _int(pick, 1, 3), _one(pick, 1, 1, 2, 4, 16)
    depth = _one(pick, 1, 2, 8) if groups > 1 else _one(pick, 1, 3, 4, 17, 32)
    attrs = _window(pick, rank) | {"group": groups}
    weight = (groups * _one(pick, 1, 2, 8), depth, *attrs["kernel_shape"])
    bias = _one(pick, None, weight[:1])
    shape = (_int(pick, 1, 2), depth * groups, *_ints(pick, 5, 11, rank))
    return Draw("Conv", shape, (weight, bias), attrs)


@st.composite
def conv_transpose(pick: Pick) -> Draw:
    rank, groups = _int(pick, 1, 2), _one(pick, 1, 1, 2)
    attrs = _window(pick, rank) | {"group": groups}
    attrs["output_padding"] = [_int(pick, 0, s - 1) for s in attrs["strides"]]
    if "auto_pad" in attrs:
        attrs["auto_pad"] = "VALID"
    depth = _one(pick, 2, 4, 32)
    weight = (depth, _one(pick, 1, 2, 16), *attrs["kernel_shape"])
    bias = _one(pick, None, (weight[1] * groups,))
    return Draw("ConvTranspose", (2, depth, *_ints(pick, 2, 7, rank)), (weight, bias), attrs)


@st.composite
def deform_conv(pick: Pick) -> Draw:
    groups, offsets = _int(pick, 1, 2), _int(pick, 1, 2)
    attrs = _window(pick, 2) | {"group": groups, "offset_group": offsets}
    attrs.pop("auto_pad", None)
    space, pads = _ints(pick, 5, 8, 2), attrs.get("pads", [0] * 4)
    reach = [(k - 1) * d for k, d in zip(attrs["kernel_shape"], attrs["dilations"], strict=True)]
    out = [
        (n + pads[a] + pads[a + 2] - reach[a] - 1) // attrs["strides"][a] + 1
        for a, n in enumerate(space)
    ]
    taps = offsets * int(np.prod(attrs["kernel_shape"]))
    bias, mask = _one(pick, None, (4,)), _one(pick, None, (2, taps, *out))
    weight = (4, 4 // groups, *attrs["kernel_shape"])
    return Draw("DeformConv", (2, 4, *space), (weight, (2, 2 * taps, *out), bias, mask), attrs)


@st.composite
def pool(pick: Pick) -> Draw:
    rank = _int(pick, 1, 3)
    attrs = _window(pick, rank, ceil=True)
    op = _one(pick, "MaxPool", "AveragePool")
    if op == "AveragePool":
        attrs |= {"count_include_pad": _int(pick, 0, 1), "dilations": [1] * rank}
    return Draw(op, (2, _one(pick, 3, 16), *_ints(pick, 5, 9, rank)), (), attrs)


@st.composite
def resize(pick: Pick) -> Draw:
    """With mode nearest, factors are powers of 2: ONNX Runtime breaks inexact ties its own way."""
    mode = _one(pick, "nearest", "linear", "cubic")
    grids = ("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners")
    attrs = {"mode": mode, "coordinate_transformation_mode": _one(pick, *grids)}
    space, out = _ints(pick, 3, 8, 2), _ints(pick, 3, 12, 2)
    if mode == "nearest":
        rounding = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
        attrs["nearest_mode"] = _one(pick, *rounding)
        space = [2 * _int(pick, 2, 4) for _ in range(2)]
        out = [int(n * _one(pick, 0.5, 1, 2, 4)) for n in space]
    return Draw("Resize", (1, 2, *space), (None, None, np.array([1, 2, *out])), attrs)


@st.composite
def pad(pick: Pick) -> Draw:
    mode = _one(pick, "constant", "reflect", "edge", "wrap")
    pads = np.array(_ints(pick, -1 if mode == "constant" else 0, 2, 6))
    value = () if mode == "constant" else None
    return Draw("Pad", tuple(_ints(pick, 3, 5, 3)), (pads, value), {"mode": mode})


@st.composite
def slice_(pick: Pick) -> Draw:
    count, negative = _int(pick, 1, 3), _int(pick, 0, 1)
    axes = np.array(pick(st.permutations(range(3)))[:count]) - 3 * negative
    bounds = [np.array(_ints(pick, -8, 8, count)) for _ in range(2)]
    steps = np.array([_one(pick, 1, 2, 3, -1, -2) for _ in range(count)])
    return Draw("Slice", tuple(_ints(pick, 3, 6, 3)), (*bounds, axes, steps))


@st.composite
def reduce(pick: Pick) -> Draw:
    op = _one(pick, "Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "LogSumExp", "SumSquare")
    count, negative = _int(pick, 0, 3), _int(pick, 0, 1)
    axes = np.array(pick(st.permutations(range(4)))[:count], np.int64) - 4 * negative
    attrs = {"keepdims": _int(pick, 0, 1), "noop_with_empty_axes": _int(pick, 0, 1)}
    shape = tuple(_one(pick, 1, 2, 3, 5, 16, 33) for _ in range(4))
    return Draw(f"Reduce{op}", shape, (axes,), attrs)


@st.composite
def gemm(pick: Pick) -> Draw:
    m, k, n = (_one(pick, 1, 2, 5, 16, 31, 64) for _ in range(3))
    attrs = {
        "transA": _int(pick, 0, 1),
        "transB": _int(pick, 0, 1),
        "alpha": _one(pick, 1.0, 0.5),
        "beta": _one(pick, 1.0, 2.0),
    }
    b = (n, k) if attrs["transB"] else (k, n)
    c = _one(pick, (m, n), (1, n), (n,), (m, 1), ())
    return Draw("Gemm", (k, m) if attrs["transA"] else (m, k), (b, c), attrs)


OPERATORS = (conv, conv_transpose, deform_conv, pool, resize, pad, slice_, reduce, gemm)


@st.composite
def draws(pick: Pick, count: int) -> list[Draw]:
    """At most `count` different nodes that ONNX Runtime takes, every operator in turn."""
    drawn = [pick(OPERATORS[index % len(OPERATORS)]()) for index in range(count)]
    different = {repr(each): each for each in drawn}.values()
    assume(len(different) > count // 2)
    return list(filter(_accepted, different))


def _accepted(drawn: Draw) -> bool:
    """Whether ONNX Runtime takes the node, and the standard says what it means."""
    if _crops(drawn):
        return False
    m = Model()
    drawn.add(m)
    try:
        oracle.run(m.proto(), m.feeds)
    except REFUSALS:
        return False
    return True


def _crops(drawn: Draw) -> bool:
    """Whether SAME padding is negative, which edgec refuses: runtimes differ in what it means."""
    if not drawn.attrs.get("auto_pad", "").startswith("SAME"):
        return False
    windows = zip(drawn.shape[2:], drawn.attrs["strides"], drawn.attrs["kernel_shape"], strict=True)
    return any((-(-n // s) - 1) * s + k - n < -1 for n, s, k in windows)
