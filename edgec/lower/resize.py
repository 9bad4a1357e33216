"""Resize as one weighted gather per axis; where each output looks is computed here, in numpy.

Coordinates are float32 arithmetic, as ONNX Runtime does them: in float64 0.6's float32 value puts
sample 3 of asymmetric at 4.9999998 instead of 5.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from tvm import relax, te, tirx

from edgec.lower.context import Context, Refused, axis_of, is_float, literal
from edgec.lower.quantize import rounded
from edgec.lower.reduce import SUM
from edgec.lower.shape import picked

_NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


@dataclass(frozen=True)
class Axis:
    """Which inputs each output position of one axis mixes: tables [output, tap]."""

    indices: np.ndarray
    weights: np.ndarray
    outside: np.ndarray


@dataclass(frozen=True)
class Sampling:
    """The node's attributes."""

    mode: str
    transform: str
    nearest: str
    antialias: bool
    cubic_a: float
    exclude_outside: bool
    extrapolation: float


@dataclass(frozen=True)
class Resizing:
    """What a node does to an image of a known shape: the axes that change, and the new sizes."""

    sizes: tuple[int, ...]
    tables: dict[int, Axis]
    sampling: Sampling

    def apply(self, ctx: Context, x: relax.Expr, sizes: tuple[int, ...]) -> relax.Expr:
        """`x` resampled to `sizes`; axes of `x` beyond the image's are left alone."""
        if not self.tables:
            return x
        outside = any(table.outside.any() for table in self.tables.values())
        if self.sampling.mode == "nearest" and not outside:
            return _nearest(ctx, x, sizes, self.tables)
        return _weighted(ctx, x, self.tables, self.sampling.extrapolation)


def resize(ctx: Context, node: gs.Node, inputs: list[relax.Expr | None]) -> relax.Expr:
    x = inputs[0]
    resizing = resizing_of(ctx, node, ctx.shape(x))
    if prod(resizing.sizes) == 0:
        return ctx.empty(resizing.sizes, ctx.dtype(x))
    return resizing.apply(ctx, x, resizing.sizes)


def resizing_of(ctx: Context, node: gs.Node, shape: tuple[int, ...]) -> Resizing:
    """What the node does to an image of `shape`."""
    sampling = _sampling(ctx, node)
    axes = ctx.attr(node, "axes")
    axes = list(range(len(shape))) if axes is None else [axis_of(a, len(shape)) for a in axes]
    scales, sizes = _extents(ctx, node, shape, axes)
    regions = _regions(ctx, node, axes, len(shape), sampling)
    tables = {
        axis: table(shape[axis], sizes[axis], scales[axis], regions[axis], sampling)
        for axis in axes
        if prod(sizes)
        and not (sizes[axis] == shape[axis] and scales[axis] == 1.0 and regions[axis] == (0.0, 1.0))
    }
    return Resizing(sizes, tables, sampling)


def _sampling(ctx: Context, node: gs.Node) -> Sampling:
    sampling = Sampling(
        mode=ctx.attr(node, "mode", "nearest"),
        transform=ctx.attr(node, "coordinate_transformation_mode", "half_pixel"),
        nearest=ctx.attr(node, "nearest_mode", "round_prefer_floor"),
        antialias=bool(ctx.attr(node, "antialias", 0)),
        cubic_a=float(ctx.attr(node, "cubic_coeff_a", -0.75)),
        exclude_outside=bool(ctx.attr(node, "exclude_outside", 0)),
        extrapolation=float(ctx.attr(node, "extrapolation_value", 0.0)),
    )
    if sampling.mode not in ("nearest", "linear", "cubic"):
        raise Refused(f"mode={sampling.mode!r} is unknown")
    if sampling.nearest not in _NEAREST:
        raise Refused(f"nearest_mode={sampling.nearest!r} is unknown")
    if sampling.mode == "nearest" and sampling.antialias:
        raise Refused("antialias has no meaning with mode='nearest'")
    return sampling


def _given(ctx: Context, node: gs.Node, position: int, what: str) -> np.ndarray | None:
    """A parameter's value; None where it is absent or empty."""
    if position >= len(node.inputs) or not node.inputs[position].name:
        return None
    value = ctx.required(node, position, what)
    return None if value.size == 0 else value


def _extents(
    ctx: Context,
    node: gs.Node,
    shape: tuple[int, ...],
    axes: list[int],
) -> tuple[list[float], tuple[int, ...]]:
    """Scale and output size of every axis."""
    scales, sizes = [1.0] * len(shape), list(shape)
    policy = ctx.attr(node, "keep_aspect_ratio_policy", "stretch")
    wanted = _given(ctx, node, 3, "sizes")
    if wanted is not None:
        goal = [int(n) for n in wanted]
        each = [
            float(np.float32(n) / np.float32(shape[a])) for n, a in zip(goal, axes, strict=True)
        ]
        if policy != "stretch":
            if policy not in ("not_larger", "not_smaller"):
                raise Refused(f"keep_aspect_ratio_policy={policy!r} is unknown")
            common = min(each) if policy == "not_larger" else max(each)
            each = [common] * len(axes)
            goal = [int(common * shape[a] + 0.5) for a in axes]
        for axis, scale, size in zip(axes, each, goal, strict=True):
            scales[axis], sizes[axis] = scale, size
        return scales, tuple(sizes)
    factors = _given(ctx, node, 2, "scales")
    if factors is None:
        raise Refused("neither scales nor sizes are given")
    if not np.isfinite(factors).all():
        raise Refused("a scale is not finite")
    for axis, factor in zip(axes, factors, strict=True):
        scales[axis] = float(factor)
        sizes[axis] = int(np.floor(np.float32(factor) * np.float32(shape[axis])))
    return scales, tuple(sizes)


def _regions(
    ctx: Context,
    node: gs.Node,
    axes: list[int],
    rank: int,
    sampling: Sampling,
) -> list[tuple[float, float]]:
    """The part of each axis that is sampled, as fractions of its length."""
    regions = [(0.0, 1.0)] * rank
    if sampling.transform != "tf_crop_and_resize":
        return regions
    roi = _given(ctx, node, 1, "roi")
    if roi is None or len(roi) != 2 * len(axes):
        raise Refused("tf_crop_and_resize needs a region")
    for k, axis in enumerate(axes):
        regions[axis] = (float(roi[k]), float(roi[k + len(axes)]))
    return regions


def table(
    size: int, out: int, scale: float, region: tuple[float, float], sampling: Sampling
) -> Axis:
    """Taps and weights of `out` positions over `size` inputs."""
    at = _coordinates(size, out, scale, region, sampling.transform)
    outside = np.zeros(out, np.bool_)
    if sampling.transform == "tf_crop_and_resize":
        outside = (at < 0) | (at > size - 1)
    if sampling.mode == "nearest":
        index = np.clip(_round(at, sampling.nearest), 0, size - 1).astype(np.int64)
        return Axis(index[:, None], np.ones((out, 1)), outside)
    low = np.floor(at)
    ratio = (at - low).astype(np.float64)
    offsets, weights = _taps(ratio, scale, sampling)
    indices = low.astype(np.int64)[:, None] + offsets[None, :]
    if sampling.exclude_outside:
        weights = np.where((indices < 0) | (indices >= size), 0.0, weights)
        total = weights.sum(1, keepdims=True)
        weights = weights / np.where(total == 0, 1.0, total)
    return Axis(np.clip(indices, 0, size - 1), weights, outside)


def _coordinates(
    size: int, out: int, scale: float, region: tuple[float, float], transform: str
) -> np.ndarray:
    """Where each output lies among the inputs, float32."""
    f = np.float32
    y, s = np.arange(out, dtype=f), f(scale)
    length = f(scale) * f(size)
    if transform == "half_pixel":
        return (y + f(0.5)) / s - f(0.5)
    if transform == "pytorch_half_pixel":
        return (y + f(0.5)) / s - f(0.5) if out > 1 else np.full(out, f(-0.5))
    if transform == "half_pixel_symmetric":
        offset = f(size) / f(2) * (f(1) - f(out) / length)
        return offset + (y + f(0.5)) / s - f(0.5)
    if transform == "asymmetric":
        return y / s
    if transform == "align_corners":
        return y * f(size - 1) / (length - f(1)) if length != 1 else np.zeros(out, f)
    if transform == "tf_crop_and_resize":
        start, end = f(region[0]), f(region[1])
        if length == 1:
            return np.full(out, f(0.5) * (start + end) * f(size - 1))
        return start * f(size - 1) + y * (end - start) * f(size - 1) / (length - f(1))
    raise Refused(f"coordinate_transformation_mode={transform!r} is unknown")


def _round(at: np.ndarray, mode: str) -> np.ndarray:
    half = np.float32(0.5)
    rounded_to: np.ndarray = {
        "floor": np.floor(at),
        "ceil": np.ceil(at),
        "round_prefer_floor": np.ceil(at - half),
        "round_prefer_ceil": np.floor(at + half),
    }[mode]
    return rounded_to


def _taps(ratio: np.ndarray, scale: float, sampling: Sampling) -> tuple[np.ndarray, np.ndarray]:
    """Offsets from the input left of the position, and their weights [output, tap]."""
    reach = 2 if sampling.mode == "cubic" else 1
    shrink = min(scale, 1.0) if sampling.antialias else 1.0
    first = int(np.floor(-reach / shrink)) + 1
    offsets = np.arange(first, 2 - first)
    distance = np.abs((offsets[None, :] - ratio[:, None]) * shrink)
    if sampling.mode == "linear":
        weights = np.clip(1 - distance, 0, 1)
    else:
        a = sampling.cubic_a
        near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
        far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
        weights = np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))
    if sampling.antialias:
        weights = weights / weights.sum(1, keepdims=True)
    return offsets, weights


def _nearest(
    ctx: Context, x: relax.Expr, sizes: tuple[int, ...], tables: dict[int, Axis]
) -> relax.Expr:
    """One element per output; whole factors need no table."""
    shape = ctx.shape(x)
    looked: dict[int, relax.Expr] = {}
    factors: dict[int, int] = {}
    for axis, axis_table in tables.items():
        index = axis_table.indices[:, 0]
        factor = max(sizes[axis] // shape[axis], 1)
        if np.array_equal(index, np.arange(sizes[axis]) // factor):
            factors[axis] = factor
        else:
            looked[axis] = ctx.const(index, "int32")
    if not looked:
        return picked(
            ctx,
            "resize",
            x,
            sizes,
            lambda *i: [v // factors.get(a, 1) for a, v in enumerate(i)],
        )

    def compute(data: te.Tensor, *places: te.Tensor) -> te.Tensor:
        of = dict(zip(looked, places, strict=True))

        def element(*i: Any) -> Any:
            return data(*(of[a](v) if a in of else v // factors.get(a, 1) for a, v in enumerate(i)))

        return te.compute(sizes, element, name="resize")

    return ctx.te("resize", compute, x, *looked.values())


def _weighted(
    ctx: Context, x: relax.Expr, tables: dict[int, Axis], extrapolation: float
) -> relax.Expr:
    """A weighted sum along each axis in turn, in float32 or wider."""
    dtype = ctx.dtype(x)
    wide = dtype if dtype in ("float32", "float64") else "float32"
    y = ctx.cast(x, wide)
    for axis, axis_table in tables.items():
        y = _along(ctx, y, axis, axis_table)
    fill = literal(extrapolation, wide)
    outside = {a: t.outside for a, t in tables.items() if t.outside.any()}
    for axis, mask in outside.items():
        column = mask.reshape([-1 if a == axis else 1 for a in range(len(ctx.shape(y)))])
        y = ctx.map("extrapolate", lambda v, m: tirx.Select(m, fill, v), y, ctx.const(column))
    if wide == dtype:
        return y
    if is_float(dtype):
        return ctx.cast(y, dtype)
    if dtype not in ("int8", "uint8", "int16", "uint16"):
        raise Refused(f"interpolating {dtype} is not lowered")
    zero = literal(0, "float32")
    return ctx.map("saturate", lambda v: rounded(tirx.trunc(v), zero, dtype), y)


def _along(ctx: Context, x: relax.Expr, axis: int, axis_table: Axis) -> relax.Expr:
    shape, dtype = ctx.shape(x), ctx.dtype(x)
    out, taps = axis_table.indices.shape
    sizes = tuple(out if a == axis else n for a, n in enumerate(shape))

    def compute(data: te.Tensor, places: te.Tensor, weights: te.Tensor) -> te.Tensor:
        def term(i: Any, k: Any) -> Any:
            o = i[axis]
            return data(*i[:axis], places(o, k), *i[axis + 1 :]) * weights(o, k)

        if taps <= 4:
            return te.compute(
                sizes, lambda *i: sum((term(i, k) for k in range(1, taps)), term(i, 0)), "resize"
            )
        tap = te.reduce_axis((0, taps), "k")
        return te.compute(sizes, lambda *i: SUM(term(i, tap.var), axis=[tap]), "resize")

    return ctx.te(
        "resize",
        compute,
        x,
        ctx.const(axis_table.indices, "int32"),
        ctx.const(axis_table.weights, dtype),
    )


ENTRIES = {"Resize": resize}
