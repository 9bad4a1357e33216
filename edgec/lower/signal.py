"""Signals: Fourier transforms, as products with the transform's matrix, and mel filters."""

from __future__ import annotations

from math import log, pi
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from tvm import relax, te

from edgec.lower.cast import element_type
from edgec.lower.context import Context, Refused, axis_of, select
from edgec.lower.reduce import SUM


def dft(ctx: Context, node: gs.Node, inputs: list[relax.Expr | None]) -> relax.Expr:
    """The discrete Fourier transform as a product with its matrix; the last axis is (re, im)."""
    x = inputs[0]
    shape = ctx.shape(x)
    inverse = bool(ctx.attr(node, "inverse", 0))
    onesided = bool(ctx.attr(node, "onesided", 0))
    axis_value = ctx.attr(node, "axis")
    if axis_value is None:
        given = len(inputs) > 2 and inputs[2] is not None
        axis_value = ctx.required(node, 2, "axis").item() if given else -2
    axis = axis_of(axis_value, len(shape))
    given = len(inputs) > 1 and inputs[1] is not None
    whole = 2 * (shape[axis] - 1) if onesided and inverse else shape[axis]
    length = int(ctx.required(node, 1, "dft_length").item()) if given else whole
    if axis == len(shape) - 1 or shape[-1] not in (1, 2) or length < 1:
        raise Refused(f"a transform of {shape} along axis {axis} to {length}")
    if onesided and inverse:
        return _real_inverse(ctx, x, axis, length)
    kept = length // 2 + 1 if onesided else length
    turn = _turns(kept, min(shape[axis], length), length)
    scale = 1 / length if inverse else 1.0
    sine = np.sin(turn) * (scale if inverse else -scale)
    return _rotated(ctx, x, axis, np.cos(turn) * scale, sine, 2)


def _turns(rows: int, columns: int, length: int) -> np.ndarray:
    """The angles of the transform's matrix."""
    turns: np.ndarray = 2 * pi * (np.outer(np.arange(rows), np.arange(columns)) % length) / length
    return turns


def _real_inverse(ctx: Context, x: relax.Expr, axis: int, length: int) -> relax.Expr:
    """The real signal whose one-sided spectrum is `x`: inner frequencies count twice."""
    used = min(ctx.shape(x)[axis], length // 2 + 1)
    weight = np.full(used, 2 / length)
    weight[0] = 1 / length
    if length % 2 == 0 and used == length // 2 + 1:
        weight[-1] = 1 / length
    turn = _turns(length, used, length)
    return _rotated(ctx, x, axis, np.cos(turn) * weight, np.sin(turn) * weight, 1)


def _rotated(
    ctx: Context, x: relax.Expr, axis: int, cosine: np.ndarray, sine: np.ndarray, parts: int
) -> relax.Expr:
    """The sum of x * (cosine + i * sine)[output, input] along `axis`: its real part, or both."""
    shape, dtype = ctx.shape(x), ctx.dtype(x)
    kept, used = cosine.shape
    out = (*(kept if a == axis else n for a, n in enumerate(shape[:-1])), parts)

    def compute(data: te.Tensor, real: te.Tensor, imaginary: te.Tensor) -> te.Tensor:
        tap = te.reduce_axis((0, used), "k")

        def element(*i: Any) -> Any:
            def at(part: int) -> Any:
                return data(*(tap.var if a == axis else v for a, v in enumerate(i[:-1])), part)

            c, s = real(i[axis], tap.var), imaginary(i[axis], tap.var)
            if shape[-1] == 1:
                return SUM(at(0) * select(i[-1] == 0, c, s), axis=[tap])
            value = select(i[-1] == 0, at(0) * c - at(1) * s, at(0) * s + at(1) * c)
            return SUM(value, axis=[tap])

        return te.compute(out, element, name="dft")

    return ctx.te("dft", compute, x, ctx.const(cosine, dtype), ctx.const(sine, dtype))


def stft(ctx: Context, node: gs.Node, inputs: list[relax.Expr | None]) -> relax.Expr:
    """Transforms of frames [N, frames, bins, 2] cut from signals [N, length, 1 or 2]."""
    x, _, window, length = [*inputs, None, None][:4]
    onesided = bool(ctx.attr(node, "onesided", 1))
    step = int(ctx.required(node, 1, "frame_step").item())
    shape = ctx.shape(x)
    if len(shape) != 3:
        raise Refused(f"signals of shape {shape} are not lowered")
    size = shape[1] if window is None else ctx.shape(window)[0]
    if length is not None and int(ctx.required(node, 3, "frame_length").item()) != size:
        if window is not None:
            raise Refused(f"a window of {size} for frames of another length is not lowered")
        size = int(ctx.required(node, 3, "frame_length").item())
    frames = (shape[1] - size) // step + 1 if step > 0 else 0
    if frames < 1 or size < 1:
        raise Refused(f"frames of {size} at steps of {step} do not fit {shape[1]}")
    if window is None:
        window = ctx.full((size,), 1, ctx.dtype(x))

    def compute(data: te.Tensor, weight: te.Tensor) -> te.Tensor:
        return te.compute(
            (shape[0], frames, size, shape[2]),
            lambda n, f, t, part: data(n, f * step + t, part) * weight(t),
            name="frames",
        )

    turn = _turns(size // 2 + 1 if onesided else size, size, size)
    cut = ctx.te("frames", compute, x, ctx.cast(window, ctx.dtype(x)))
    return _rotated(ctx, cut, 2, np.cos(turn), -np.sin(turn), 2)


def mel_weight_matrix(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
    """Triangles [dft_length / 2 + 1, bins], evenly spaced in mel between two frequencies."""
    known = ctx.constant(node, 0)
    bins = ctx.output_shape(node)[1] if known is None else int(known.item())
    length, rate, low, high = (
        ctx.required(node, k, what).item()
        for k, what in enumerate(("dft_length", "sample_rate", "lower_edge", "upper_edge"), 1)
    )
    if length < 1 or rate < 1 or bins < 1 or not -700 < low <= high:
        raise Refused(f"{bins} bins from {low} to {high} Hz of {length} samples at {rate} Hz")
    bottom, top = (2595 * np.log1p(edge / 700) / log(10) for edge in (low, high))
    mel = bottom + np.arange(bins + 2) * (top - bottom) / (bins + 2)
    edges = ((length + 1) * 700 * np.expm1(mel / 2595 * log(10)) // rate).astype(np.int64)
    at = np.arange(length // 2 + 1)[:, None]
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    rising = (at - left) / np.maximum(centre - left, 1)
    falling = (right - at) / np.maximum(right - centre, 1)
    rising = np.where(centre == left, at == centre, rising * ((left <= at) & (at <= centre)))
    inside = (centre <= at) & (at < right)
    target = ctx.attr(node, "output_datatype", 1)
    return ctx.const(np.where(inside, falling, rising), element_type(target))


ENTRIES = {"DFT": dft, "MelWeightMatrix": mel_weight_matrix, "STFT": stft}
