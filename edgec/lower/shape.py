"""Operators that move elements without computing: their number may change, their values do not."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from math import prod
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from tvm import relax, te, tirx
from tvm.ir import Constant

from edgec.lower.context import Context, Refused, Shape, axis_of, literal
from edgec.lower.views import cut_out, joined


def reshape(ctx: Context, node: gs.Node, inputs: list[relax.Expr | None]) -> relax.Expr:
    x = inputs[0]
    shape = ctx.shape(x)
    keep_zero = bool(ctx.attr(node, "allowzero", 0))
    wanted = ctx.attr(node, "shape")
    if wanted is None:
        wanted = ctx.constant(node, 1)
    if wanted is None:
        return ctx.reshape(x, ctx.output_shape(node))
    sizes = [int(n) for n in wanted]
    if not keep_zero:
        if any(n == 0 and a >= len(shape) for a, n in enumerate(sizes)):
            raise Refused(f"cannot reshape {shape} to {sizes}")
        sizes = [shape[a] if n == 0 else n for a, n in enumerate(sizes)]
    if sizes.count(-1) > 1 or min(sizes, default=0) < -1:
        raise Refused(f"cannot reshape {shape} to {sizes}")
    if -1 in sizes:
        rest = prod(n for n in sizes if n != -1)
        sizes[sizes.index(-1)] = prod(shape) // rest if rest else 0
    return ctx.reshape(x, tuple(sizes))


def flatten(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
    shape = ctx.shape(inputs[0])
    axis = int(ctx.attr(node, "axis", 1))
    axis = axis + len(shape) if axis < 0 else axis
    if not 0 <= axis <= len(shape):
        raise Refused(f"axis {axis} is outside a tensor of rank {len(shape)}")
    return ctx.reshape(inputs[0], (prod(shape[:axis]), prod(shape[axis:])))


def _axes(ctx: Context, node: gs.Node) -> Any:
    axes = ctx.attr(node, "axes")
    return ctx.constant(node, 1) if axes is None else axes


def squeeze(ctx: Context, node: gs.Node, inputs: list[relax.Expr | None]) -> relax.Expr:
    shape = ctx.shape(inputs[0])
    axes = _axes(ctx, node)
    if axes is None and len(inputs) > 1 and inputs[1] is not None:
        return ctx.reshape(inputs[0], ctx.output_shape(node))
    if axes is None:
        gone = {a for a, n in enumerate(shape) if n == 1}
    else:
        gone = {axis_of(a, len(shape)) for a in np.atleast_1d(axes)}
    return ctx.reshape(inputs[0], tuple(n for a, n in enumerate(shape) if a not in gone))


def unsqueeze(ctx: Context, node: gs.Node, inputs: list[relax.Expr | None]) -> relax.Expr:
    shape = ctx.shape(inputs[0])
    axes = _axes(ctx, node)
    if axes is None:
        return ctx.reshape(inputs[0], ctx.output_shape(node))
    rank = len(shape) + len(np.atleast_1d(axes))
    new = {axis_of(a, rank) for a in np.atleast_1d(axes)}
    rest = iter(shape)
    return ctx.reshape(inputs[0], tuple(1 if a in new else next(rest) for a in range(rank)))


def transpose(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
    rank = len(ctx.shape(inputs[0]))
    axes = [int(a) for a in ctx.attr(node, "perm", list(range(rank))[::-1])]
    if sorted(axes) != list(range(rank)):
        raise Refused(f"perm={axes} is not a permutation of {rank} axes")
    stored = ctx.stored.get(node.inputs[0].name)
    if stored is not None:
        ctx.stored[node.outputs[0].name] = stored.transposed(axes)
    return ctx.transpose(inputs[0], axes)


def concat(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
    axis = axis_of(ctx.attr(node, "axis", 1), len(ctx.shape(inputs[0])))
    full = [x for x in inputs if prod(ctx.shape(x)) > 0]
    if not full:
        shape = np.concatenate([np.empty(ctx.shape(x)) for x in inputs], axis).shape
        return ctx.empty(shape, ctx.dtype(inputs[0]))
    return joined(ctx, full, axis)


def expand(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
    wanted = ctx.constant(node, 1)
    if wanted is None:
        return ctx.broadcast(inputs[0], ctx.output_shape(node))
    shape = np.broadcast_shapes(ctx.shape(inputs[0]), tuple(int(n) for n in wanted))
    return ctx.broadcast(inputs[0], tuple(shape))


def tile(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
    x = inputs[0]
    shape = ctx.shape(x)
    repeats = ctx.constant(node, 1)
    if repeats is None:
        sizes = ctx.output_shape(node)
    else:
        sizes = tuple(n * int(r) for n, r in zip(shape, repeats, strict=True))
    return picked(ctx, "tile", x, sizes, lambda *i: [v % n for v, n in zip(i, shape, strict=True)])


def picked(ctx: Context, name: str, x: relax.Expr, shape: Shape, source: Any) -> relax.Expr:
    """A tensor of `shape` whose element at i is `x` at source(*i)."""
    if prod(shape) == 0:
        return ctx.empty(shape, ctx.dtype(x))
    return ctx.te(name, lambda data: te.compute(shape, lambda *i: data(*source(*i)), name=name), x)


def slice_(ctx: Context, node: gs.Node, inputs: list[relax.Expr | None]) -> relax.Expr:
    x = inputs[0]
    shape = ctx.shape(x)
    taken = slices(ctx, node, shape)
    if taken == [range(size) for size in shape]:
        return x
    first, stride = [each.start for each in taken], [each.step for each in taken]
    return strided(ctx, x, first, stride, tuple(map(len, taken)))


def slices(ctx: Context, node: gs.Node, shape: Shape) -> list[range]:
    """The places that a Slice takes along each axis of a tensor of `shape`."""
    rank = len(shape)
    starts, ends = _bounds(ctx, node, 1, "starts", []), _bounds(ctx, node, 2, "ends", [])
    axes = [axis_of(a, rank) for a in _bounds(ctx, node, 3, "axes", list(range(len(starts))))]
    steps = _bounds(ctx, node, 4, "steps", [1] * len(starts))
    taken = [range(size) for size in shape]
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step == 0:
            raise Refused("a step of 0")
        taken[axis] = _taken(start, end, step, shape[axis])
    return taken


def _bounds(ctx: Context, node: gs.Node, position: int, name: str, default: list[int]) -> list[int]:
    """A parameter of Slice, an attribute in old opsets and an input since."""
    value = ctx.attr(node, name)
    if value is None and len(node.inputs) > position and node.inputs[position].name:
        value = ctx.required(node, position, name)
    return default if value is None else [int(v) for v in value]


def _taken(start: int, end: int, step: int, size: int) -> range:
    """The places a slice takes. Unlike Python's, a backward one never starts before place 0."""
    start, end = (bound + size if bound < 0 else bound for bound in (start, end))
    if step > 0:
        return range(min(max(start, 0), size), min(max(end, 0), size), step)
    return range(min(max(start, 0), size - 1), min(max(end, -1), size - 1), step)


def strided(
    ctx: Context, x: relax.Expr, first: list[int], stride: list[int], sizes: Shape
) -> relax.Expr:
    """`x` from `first` on, every `stride`-th element, `sizes` of them per axis."""
    if set(stride) == {1} and 0 not in sizes:
        view = cut_out(ctx, x, first, sizes)
        if view is not None:
            return view
    return picked(
        ctx,
        "slice",
        x,
        sizes,
        lambda *i: [f + v * s for v, f, s in zip(i, first, stride, strict=True)],
    )


def split(ctx: Context, node: gs.Node, inputs: list[relax.Expr | None]) -> list[relax.Expr]:
    x = inputs[0]
    shape = ctx.shape(x)
    axis, places = splits(ctx, node, inputs, shape)
    parts = []
    for place in places:
        first = [place.start if a == axis else 0 for a in range(len(shape))]
        out = tuple(len(place) if a == axis else n for a, n in enumerate(shape))
        parts.append(strided(ctx, x, first, [1] * len(shape), out))
    return parts


def splits(
    ctx: Context, node: gs.Node, inputs: Sequence[Any], shape: Shape
) -> tuple[int, list[range]]:
    """The axis along which a Split divides a tensor of `shape`, and the places of each part."""
    axis = axis_of(ctx.attr(node, "axis", 0), len(shape))
    sizes = ctx.attr(node, "split")
    count = int(ctx.attr(node, "num_outputs", len(node.outputs)))
    if sizes is None and len(inputs) > 1 and inputs[1] is not None:
        sizes = ctx.constant(node, 1)
        if sizes is None:
            sizes = [ctx.output_shape(node, k)[axis] for k in range(len(node.outputs))]
    if sizes is None:
        chunk = -(-shape[axis] // count)
        sizes = [min(chunk, shape[axis] - k * chunk) for k in range(count)]
    if sum(int(n) for n in sizes) != shape[axis] or min(sizes) < 0:
        raise Refused(f"parts of {list(sizes)} do not make up {shape[axis]}")
    ends = [0, *accumulate(int(size) for size in sizes)]
    return axis, [range(start, end) for start, end in pairwise(ends)]


def pad(ctx: Context, node: gs.Node, inputs: list[relax.Expr | None]) -> relax.Expr:
    x = inputs[0]
    shape, dtype = ctx.shape(x), ctx.dtype(x)
    rank = len(shape)
    mode = ctx.attr(node, "mode", "constant")
    pads = ctx.attr(node, "pads")
    pads = ctx.required(node, 1, "pads") if pads is None else pads
    axes_value = None
    if len(inputs) > 3 and inputs[3] is not None:
        axes_value = ctx.required(node, 3, "axes")
    axes = list(range(rank)) if axes_value is None else [axis_of(a, rank) for a in axes_value]
    before, after = [0] * rank, [0] * rank
    for k, axis in enumerate(axes):
        before[axis], after[axis] = int(pads[k]), int(pads[k + len(axes)])
    sizes = tuple(n + b + a for n, b, a in zip(shape, before, after, strict=True))
    if min(sizes, default=0) < 0:
        raise Refused(f"pads {list(pads)} take more than there is of {shape}")
    if sizes == shape and not any(before):
        return x
    fill = ctx.attr(node, "value")
    filler = inputs[2] if len(inputs) > 2 else None
    if mode == "constant":
        known = ctx.constant(node, 2)
        if known is not None:
            fill = known.item()
        if filler is not None and known is None:
            return _filled(ctx, x, ctx.reshape(filler, ()), before, after, sizes)
        value = ctx.const(np.asarray(0 if fill is None else fill), dtype)
        return _filled(ctx, x, value, before, after, sizes)
    places = {"edge": _edge, "reflect": _reflect, "wrap": _wrap}
    if mode not in places:
        raise Refused(f"mode={mode!r} is unknown")
    if 0 in shape:
        raise Refused("padding an empty tensor with its own elements")
    place = places[mode]
    return picked(
        ctx,
        "pad",
        x,
        sizes,
        lambda *i: [
            place(v - b, n) if b or n != o else v
            for v, b, n, o in zip(i, before, shape, sizes, strict=True)
        ],
    )


def _filled(
    ctx: Context, x: relax.Expr, fill: relax.Expr, before: list[int], after: list[int], sizes: Shape
) -> relax.Expr:
    shape, dtype = ctx.shape(x), ctx.dtype(x)
    if 0 in shape:
        return ctx.broadcast(fill, sizes)
    known = literal(fill.value.numpy().item(), dtype) if isinstance(fill, Constant) else None

    def compute(data: te.Tensor, *filler: te.Tensor) -> te.Tensor:
        def element(*index: Any) -> Any:
            where = [i - b for i, b in zip(index, before, strict=True)]
            inside = [
                condition
                for i, n, b, a in zip(where, shape, before, after, strict=True)
                for condition in ([i >= 0] if b > 0 else []) + ([i < n] if a > 0 else [])
            ]
            outside = known if known is not None else filler[0]()
            if not inside:
                return data(*where)
            return tirx.if_then_else(tirx.all(*inside), data(*where), outside)

        return te.compute(sizes, element, name="pad")

    return ctx.te("pad", compute, x, *([] if known is not None else [fill]))


def _edge(i: Any, n: int) -> Any:
    return tirx.min(tirx.max(i, 0), n - 1)


def _reflect(i: Any, n: int) -> Any:
    if n == 1:
        return i * 0
    period = 2 * (n - 1)
    folded = tirx.floormod(i, period)
    return tirx.min(folded, period - folded)


def _wrap(i: Any, n: int) -> Any:
    return tirx.floormod(i, n)


def depth_to_space(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
    (x,) = inputs
    n, c, h, w = ctx.shape(x)
    b = int(ctx.attr(node, "blocksize"))
    mode = ctx.attr(node, "mode", "DCR")
    if mode not in ("DCR", "CRD") or c % (b * b):
        raise Refused(f"mode={mode!r} with {c} channels in blocks of {b}")
    split_shape = (n, b, b, c // b**2, h, w) if mode == "DCR" else (n, c // b**2, b, b, h, w)
    axes = [0, 3, 4, 1, 5, 2] if mode == "DCR" else [0, 1, 4, 2, 5, 3]
    moved = ctx.transpose(ctx.reshape(x, split_shape), axes)
    return ctx.reshape(moved, (n, c // b**2, h * b, w * b))


def space_to_depth(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
    (x,) = inputs
    n, c, h, w = ctx.shape(x)
    b = int(ctx.attr(node, "blocksize"))
    mode = ctx.attr(node, "mode", "DCR")
    if mode not in ("DCR", "CRD") or h % b or w % b:
        raise Refused(f"mode={mode!r} with {h}x{w} in blocks of {b}")
    parts = ctx.reshape(x, (n, c, h // b, b, w // b, b))
    axes = [0, 3, 5, 1, 2, 4] if mode == "DCR" else [0, 1, 3, 5, 2, 4]
    return ctx.reshape(ctx.transpose(parts, axes), (n, c * b * b, h // b, w // b))


def trilu(ctx: Context, node: gs.Node, inputs: list[relax.Expr | None]) -> relax.Expr:
    x = inputs[0]
    shape, dtype = ctx.shape(x), ctx.dtype(x)
    upper = bool(ctx.attr(node, "upper", 1))
    k = inputs[1] if len(inputs) > 1 else None
    if k is None:
        k = ctx.const(np.int64(0))
    if prod(shape) == 0:
        return x

    def compute(data: te.Tensor, shift: te.Tensor) -> te.Tensor:
        def element(*i: Any) -> Any:
            off = i[-1].astype("int64") - i[-2].astype("int64")
            by = shift(*[0] * len(shift.shape))
            keep = off >= by if upper else off <= by
            return tirx.Select(keep, data(*i), literal(0, dtype))

        return te.compute(shape, element, name="trilu")

    return ctx.te("trilu", compute, x, k)


ENTRIES = {
    "Reshape": reshape,
    "Flatten": flatten,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Transpose": transpose,
    "Concat": concat,
    "Expand": expand,
    "Tile": tile,
    "Slice": slice_,
    "Split": split,
    "Pad": pad,
    "DepthToSpace": depth_to_space,
    "SpaceToDepth": space_to_depth,
    "Trilu": trilu,
}
