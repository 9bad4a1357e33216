"""Boxes: suppression of overlapping ones, sampling of regions."""

from __future__ import annotations

from math import ceil
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from tvm import relax, te, tirx

from edgec.lower.context import Context, Refused, literal, select
from edgec.lower.elementwise import maximum
from edgec.lower.loops import Loops
from edgec.lower.reduce import SUM, lowest, reducer


def non_max_suppression(ctx: Context, node: gs.Node, inputs: list[relax.Expr | None]) -> relax.Expr:
    """Boxes kept per batch and class, best first.

    How many are kept is known at run time only. Where more is computed from them, the output's
    first dimension must be given, and be large enough for all that could be: further rows are -1.
    """
    boxes, scores, _, overlap, threshold = [*inputs, None, None, None][:5]
    batch, classes, count = ctx.shape(scores)
    centred = bool(ctx.attr(node, "center_point_box", 0))
    limit = ctx.constant(node, 2)
    if limit is None and len(inputs) > 2 and inputs[2] is not None:
        raise Refused("max_output_boxes_per_class must be constant")
    most = min(0 if limit is None else int(limit.item()), count)
    possible = batch * classes * max(most, 0)
    try:
        rows, _ = ctx.output_shape(node)
        counted = False
    except Refused:
        rows, counted = possible, True
    if counted and not ctx.open_ended(node):
        raise Refused(
            "how many boxes it keeps is known at run time only: take it, or the boxes and scores "
            f"before it, as outputs, or declare its output as [{possible},3], filled up with -1"
        )
    if rows < possible:
        raise Refused(f"its output has {rows} rows, but {possible} boxes could be kept")
    if rows == 0:
        return ctx.empty((0, 3), "int64")
    zero = ctx.const(np.float32(0))
    overlap = zero if overlap is None else ctx.reshape(overlap, ())
    least = ctx.const(np.float32(-np.inf)) if threshold is None else ctx.reshape(threshold, ())

    def body(loops: Loops, box: Any, score: Any, iou: Any, bound: Any, out: Any, row: Any) -> None:
        gone = loops.array((count,), "int8")
        best = loops.local("int64")
        top = loops.local("float32")
        if not counted:
            with loops.over((rows, 3)) as i:
                out[i] = literal(-1, "int64")
        row[0] = literal(0, "int64")
        with loops.over((batch, classes)) as (b, c):
            with loops.over((count,)) as (j,):
                gone[j] = literal(0, "int8")
            best[0] = literal(0, "int64")
            with loops.over((most,)), loops.when(best[0] >= 0):
                best[0] = literal(-1, "int64")
                top[0] = literal(0, "float32")
                with loops.over((count,)) as (j,):
                    value = score[b, c, j]
                    better = tirx.any(best[0] < 0, value > top[0])
                    free = tirx.all(gone[j] == literal(0, "int8"), value > bound[()])
                    with loops.when(tirx.all(free, better)):
                        best[0] = j.astype("int64")
                        top[0] = value
                with loops.when(best[0] >= 0):
                    for column, value in enumerate((b, c, best[0])):
                        out[row[0], column] = value.astype("int64")
                    row[0] = row[0] + 1
                    kept = tirx.max(best[0], literal(0, "int64"))
                    with loops.over((count,)) as (j,):
                        near = _overlap(box, b, kept, j, centred) > iou[()]
                        with loops.when(tirx.any(near, j.astype("int64") == kept)):
                            gone[j] = literal(1, "int8")

    kept, number = ctx.loops(
        "non_max_suppression",
        body,
        [boxes, scores, overlap, least],
        [((rows, 3), "int64"), ((1,), "int64")],
    )
    return ctx.with_extent(node, kept, 0, number) if counted else kept


def _overlap(box: Any, batch: Any, a: Any, b: Any, centred: bool) -> Any:
    """Intersection over union of two boxes; 0 where they do not meet."""
    (ay0, ax0, ay1, ax1), (by0, bx0, by1, bx1) = (
        _corners([box[batch, i, k] for k in range(4)], centred) for i in (a, b)
    )
    zero = literal(0, "float32")
    height = tirx.max(tirx.min(ay1, by1) - tirx.max(ay0, by0), zero)
    width = tirx.max(tirx.min(ax1, bx1) - tirx.max(ax0, bx0), zero)
    shared = height * width
    union = (ay1 - ay0) * (ax1 - ax0) + (by1 - by0) * (bx1 - bx0) - shared
    return select(shared > zero, shared / union, zero)


def _corners(box: list[Any], centred: bool) -> tuple[Any, Any, Any, Any]:
    if centred:
        x, y, width, height = box
        half = literal(0.5, "float32")
        return y - height * half, x - width * half, y + height * half, x + width * half
    y0, x0, y1, x1 = box
    return tirx.min(y0, y1), tirx.min(x0, x1), tirx.max(y0, y1), tirx.max(x0, x1)


def roi_align(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
    """Each region as a grid of bins, each the average or maximum of bilinear samples."""
    x, rois, batches = inputs
    _, channels, height, width = ctx.shape(x)
    count, dtype = ctx.shape(rois)[0], ctx.dtype(x)
    mode = ctx.attr(node, "mode", "avg")
    half_pixel = ctx.attr(node, "coordinate_transformation_mode", "half_pixel") == "half_pixel"
    out_h, out_w = int(ctx.attr(node, "output_height", 1)), int(ctx.attr(node, "output_width", 1))
    ratio = int(ctx.attr(node, "sampling_ratio", 0))
    scale = float(ctx.attr(node, "spatial_scale", 1.0))
    if dtype != "float32" or mode not in ("avg", "max"):
        raise Refused(f"mode={mode!r} over {dtype} is not lowered")
    most = (ratio, ratio) if ratio > 0 else (_reach(height, out_h), _reach(width, out_w))
    offset = literal(0.5 if half_pixel else 0.0, dtype)
    one = literal(1, dtype)

    def compute(data: te.Tensor, region: te.Tensor, batch: te.Tensor) -> te.Tensor:
        def bins(n: Any) -> tuple[Any, ...]:
            x0, y0, x1, y1 = (region(n, k) * literal(scale, dtype) - offset for k in range(4))
            tall, wide = y1 - y0, x1 - x0
            if not half_pixel:
                tall, wide = tirx.max(tall, one), tirx.max(wide, one)
            return y0, x0, tall / literal(out_h, dtype), wide / literal(out_w, dtype)

        def samples(n: Any) -> tuple[Any, Any]:
            _, _, tall, wide = bins(n)
            if ratio > 0:
                return literal(ratio, dtype), literal(ratio, dtype)
            return tuple(
                tirx.min(tirx.max(tirx.ceil(v), one), literal(m, dtype))
                for v, m in zip((tall, wide), most, strict=True)
            )

        def sample(n: Any, c: Any, i: Any, j: Any, p: Any, q: Any) -> tuple[Any, ...]:
            y0, x0, tall, wide = bins(n)
            rows, columns = samples(n)
            half = literal(0.5, dtype)
            y = y0 + (i.astype(dtype) + (p.astype(dtype) + half) / rows) * tall
            x = x0 + (j.astype(dtype) + (q.astype(dtype) + half) / columns) * wide
            used = tirx.all(p.astype(dtype) < rows, q.astype(dtype) < columns)
            return used, bilinear_parts(
                lambda a, b: data(batch(n), c, a, b), y, x, height, width, dtype
            )

        p, q = te.reduce_axis((0, most[0]), "p"), te.reduce_axis((0, most[1]), "q")
        shape = (count, channels, out_h, out_w)
        if mode == "max":
            largest = reducer(maximum, lowest, "max")

            def strongest(*i: Any) -> Any:
                n, c, row, column = i
                used, parts = sample(n, c, row, column, p.var, q.var)
                best = parts[0]
                for part in parts[1:]:
                    best = tirx.max(best, part)
                return largest(select(used, best, lowest(dtype)), axis=[p, q])

            return te.compute(shape, strongest, name="roi_align")

        def total(*i: Any) -> Any:
            n, c, row, column = i
            used, parts = sample(n, c, row, column, p.var, q.var)
            return SUM(select(used, sum(parts[1:], parts[0]), literal(0, dtype)), axis=[p, q])

        sums = te.compute(shape, total, name="roi_sum")

        def average(*i: Any) -> Any:
            rows, columns = samples(i[0])
            return sums(*i) / (rows * columns)

        return te.compute(shape, average, name="roi_align")

    return ctx.te("roi_align", compute, x, rois, batches)


def _reach(size: int, bins: int) -> int:
    """The most samples a bin of a region inside the input takes."""
    return max(ceil(size / bins), 1)


def bilinear_parts(read: Any, y: Any, x: Any, height: int, width: int, dtype: str) -> list[Any]:
    """The four weighted neighbours of (y, x), 0 beyond one element outside the input."""
    zero = literal(0, dtype)
    outside = tirx.any(y < -1.0, y > float(height), x < -1.0, x > float(width))

    def axis(v: Any, size: int) -> tuple[Any, Any, Any]:
        v = tirx.min(tirx.max(v, zero), literal(size - 1, dtype))
        low = tirx.min(tirx.floor(v), literal(max(size - 2, 0), dtype))
        part = v - low
        start = low.astype("int32")
        return start, tirx.min(start + 1, size - 1), part

    y0, y1, dy = axis(y, height)
    x0, x1, dx = axis(x, width)
    one = literal(1, dtype)
    weights = [(one - dy) * (one - dx), (one - dy) * dx, dy * (one - dx), dy * dx]
    places = [(y0, x0), (y0, x1), (y1, x0), (y1, x1)]
    return [
        select(outside, zero, w * read(a, b)) for w, (a, b) in zip(weights, places, strict=True)
    ]


ENTRIES = {"NonMaxSuppression": non_max_suppression, "RoiAlign": roi_align}
