"""GridSample: a tensor read at positions that another tensor gives."""

from __future__ import annotations

from itertools import product
from typing import Any

import onnx_graphsurgeon as gs
from tvm import relax, te, tirx

from edgec.lower.context import Context, Refused, literal, select

_MODES = {
    "nearest": "nearest",
    "linear": "linear",
    "bilinear": "linear",
    "cubic": "cubic",
    "bicubic": "cubic",
}


def grid_sample(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
    """x[N,C,D...] at grid[N,O...,rank], whose last axis counts the spatial axes from the last."""
    x, grid = inputs
    mode = ctx.attr(node, "mode", "linear")
    padding = ctx.attr(node, "padding_mode", "zeros")
    aligned = bool(ctx.attr(node, "align_corners", 0))
    if mode not in _MODES or padding not in ("zeros", "border", "reflection"):
        raise Refused(f"mode={mode!r} with padding_mode={padding!r} is unknown")
    mode = _MODES[mode]
    batch, channels, *space = ctx.shape(x)
    out = ctx.shape(grid)[1:-1]
    dtype = ctx.dtype(x)
    if dtype not in ("float32", "float64") or ctx.dtype(grid) != dtype:
        raise Refused(f"sampling {dtype} is not lowered")
    rank = len(space)
    bounds = [(0.0, n - 1.0) if aligned else (-0.5, n - 0.5) for n in space]

    def compute(data: te.Tensor, places: te.Tensor) -> te.Tensor:
        def coordinate(n: Any, *rest: Any) -> Any:
            *at, axis = rest
            result = literal(0, dtype)
            for a in range(rank):
                value = _position(places(n, *at, rank - 1 - a), space[a], aligned, dtype)
                if mode == "nearest":
                    value = tirx.nearbyint(value)
                value = _bounded(value, space[a], bounds[a], padding, dtype)
                result = select(axis == a, value, result)
            return result

        positions = te.compute((batch, *out, rank), coordinate, name="positions")

        def element(n: Any, c: Any, *at: Any) -> Any:
            taps = [
                _taps(positions(n, *at, a), space[a], bounds[a], mode, padding, dtype)
                for a in range(rank)
            ]
            total: Any = None
            for combination in product(*taps):
                inside = tirx.all(*(ok for _, _, ok in combination))
                value = data(n, c, *(index for index, _, _ in combination))
                for _, weight, _ in combination:
                    value = value * weight if weight is not None else value
                value = tirx.if_then_else(inside, value, literal(0, dtype))
                total = value if total is None else total + value
            return total

        return te.compute((batch, channels, *out), element, name="grid_sample")

    return ctx.te("grid_sample", compute, x, grid)


def _position(value: Any, size: int, aligned: bool, dtype: str) -> Any:
    """A coordinate of -1..1 as a place among `size` elements."""
    one, half = literal(1, dtype), literal(0.5, dtype)
    if aligned:
        return (value + one) * half * literal(size - 1, dtype)
    return ((value + one) * literal(size, dtype) - one) * half


def _bounded(value: Any, size: int, bounds: tuple[float, float], padding: str, dtype: str) -> Any:
    low, high = (literal(b, dtype) for b in bounds)
    if padding == "border":
        outside = tirx.any(value < low, value > high)
        zero, last = literal(0, dtype), literal(size - 1, dtype)
        return select(outside, tirx.min(tirx.max(value, zero), last), value)
    return _reflected(value, bounds, dtype) if padding == "reflection" else value


def _reflected(value: Any, bounds: tuple[float, float], dtype: str) -> Any:
    """`value` mirrored at both bounds until it lies between them."""
    low, high = (literal(b, dtype) for b in bounds)
    if bounds[0] == bounds[1]:
        return low
    span, two = high - low, literal(2, dtype)

    def folded(beyond: Any, near: Any, far: Any) -> Any:
        turns = tirx.floor(beyond / span)
        rest = beyond - turns * span
        even = turns - two * tirx.floor(turns / two) == literal(0, dtype)
        towards = select(near < far, rest, -rest)
        return select(even, near + towards, far - towards)

    return select(
        value < low,
        folded(low - value, low, high),
        select(value > high, folded(value - high, high, low), value),
    )


def _taps(
    value: Any, size: int, bounds: tuple[float, float], mode: str, padding: str, dtype: str
) -> list[tuple[Any, Any, Any]]:
    """Index, weight and whether it counts, for each element along one axis that is mixed."""
    if mode == "nearest":
        return [_tap(value, None, size, bounds, padding, dtype)]
    low = tirx.floor(value)
    part, one = value - low, literal(1, dtype)
    if mode == "linear":
        offsets = {0: one - part, 1: part}
    else:
        offsets = {k - 1: weight for k, weight in enumerate(_cubic(part, dtype))}
    return [
        _tap(low + literal(k, dtype), weight, size, bounds, padding, dtype)
        for k, weight in offsets.items()
    ]


def _tap(
    place: Any, weight: Any, size: int, bounds: tuple[float, float], padding: str, dtype: str
) -> tuple[Any, Any, Any]:
    zero, last = literal(0, dtype), literal(size - 1, dtype)
    inside: Any = tirx.const(True, "bool")
    if padding == "zeros":
        inside = tirx.all(place >= zero, place <= last)
    elif padding == "reflection":
        place = _reflected(place, bounds, dtype)
    index = tirx.min(tirx.max(place, zero), last).astype("int32")
    return index, weight, inside


def _cubic(part: Any, dtype: str) -> list[Any]:
    """Weights of the four neighbours by the cubic convolution of parameter -0.75."""
    a = -0.75

    def near(x: Any) -> Any:
        return ((x * literal(a + 2, dtype)) - literal(a + 3, dtype)) * x * x + literal(1, dtype)

    def far(x: Any) -> Any:
        inner = (literal(a, dtype) * x - literal(5 * a, dtype)) * x + literal(8 * a, dtype)
        return inner * x - literal(4 * a, dtype)

    one, two = literal(1, dtype), literal(2, dtype)
    return [far(part + one), near(part), near(one - part), far(two - part)]


ENTRIES = {"GridSample": grid_sample}
