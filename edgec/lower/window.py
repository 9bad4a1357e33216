"""Sliding windows: the attributes that convolutions and pools share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import onnx_graphsurgeon as gs

from edgec.lower.context import Context, Refused, Shape


@dataclass(frozen=True)
class Window:
    """Per spatial axis: extent, step, spacing, padding before and after, positions it takes."""

    kernel: Shape
    strides: Shape
    dilations: Shape
    before: Shape
    after: Shape
    sizes: Shape

    @property
    def reach(self) -> Shape:
        """How far each axis' window extends, dilation included."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))


def window(ctx: Context, node: gs.Node, space: Shape, kernel: Shape | None = None) -> Window:
    """The node's window over an input of spatial sizes `space`; raises Refused if it is not valid.

    `kernel` is the weights' extent, which `kernel_shape` must equal.
    """
    rank = len(space)
    declared = ctx.attr(node, "kernel_shape")
    extent = tuple(int(k) for k in (declared if declared is not None else kernel or ()))
    if len(extent) != rank or (kernel is not None and extent != kernel):
        raise Refused(f"kernel_shape {extent} does not fit")
    strides = _ints(ctx.attr(node, "strides"), 1, rank)
    dilations = _ints(ctx.attr(node, "dilations"), 1, rank)
    pads = _ints(ctx.attr(node, "pads"), 0, 2 * rank)
    auto = ctx.attr(node, "auto_pad", "NOTSET") or "NOTSET"
    ceil = bool(ctx.attr(node, "ceil_mode", 0))
    reach = tuple((k - 1) * d + 1 for k, d in zip(extent, dilations, strict=True))
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        sizes = tuple(-(-n // s) for n, s in zip(space, strides, strict=True))
        totals = [
            (o - 1) * s + r - n for o, s, r, n in zip(sizes, strides, reach, space, strict=True)
        ]
        if min(totals, default=0) < -1:
            raise Refused(f"auto_pad={auto!r} would crop: strides {strides} exceed the kernel")
        totals = [max(t, 0) for t in totals]
        low = [t // 2 if auto == "SAME_UPPER" else t - t // 2 for t in totals]
        before, after = tuple(low), tuple(t - b for t, b in zip(totals, low, strict=True))
        return Window(extent, strides, dilations, before, after, sizes)
    if auto not in ("NOTSET", "VALID"):
        raise Refused(f"auto_pad={auto!r} is unknown")
    before, after = (pads[:rank], pads[rank:]) if auto == "NOTSET" else ((0,) * rank,) * 2
    sizes = tuple(
        _positions(n, r, s, b, a, ceil)
        for n, r, s, b, a in zip(space, reach, strides, before, after, strict=True)
    )
    if min(strides, default=1) < 1 or min(sizes, default=1) < 1:
        raise Refused(f"a window of {extent} does not fit an input of {space}")
    return Window(extent, strides, dilations, before, after, sizes)


def _positions(size: int, reach: int, stride: int, before: int, after: int, ceil: bool) -> int:
    room = size + before + after - reach
    if not ceil:
        return room // stride + 1
    count = -(-room // stride) + 1
    return count - 1 if (count - 1) * stride >= size + before else count


def _ints(value: Any, default: int, count: int) -> Shape:
    if value is None:
        return (default,) * count
    if len(value) != count:
        raise Refused(f"{list(value)} should have {count} entries")
    return tuple(int(v) for v in value)
