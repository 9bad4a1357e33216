"""Linear algebra beyond the plain product: Einsum, determinants, sums of columns."""

from __future__ import annotations

from math import prod
from typing import Any

import onnx_graphsurgeon as gs
from tvm import relax, te, tirx

from edgec.lower.context import Context, Refused, literal
from edgec.lower.loops import Loops
from edgec.lower.reduce import SUM


def einsum(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
    equation = str(ctx.attr(node, "equation")).replace(" ", "")
    ranks = [len(ctx.shape(x)) for x in inputs]
    terms, out = _labels(equation, ranks)
    sizes: dict[str, int] = {}
    for x, term in zip(inputs, terms, strict=True):
        for label, size in zip(term, ctx.shape(x), strict=True):
            if sizes.setdefault(label, size) != size and 1 not in (size, sizes[label]):
                raise Refused(f"{equation!r} gives {label!r} two sizes")
            sizes[label] = max(sizes[label], size)
    summed = sorted(set(sizes) - set(out))
    shape = tuple(sizes[label] for label in out)

    def compute(*tensors: te.Tensor) -> te.Tensor:
        axes = {label: te.reduce_axis((0, sizes[label]), f"k{label}") for label in summed}

        def element(*index: Any) -> Any:
            at = dict(zip(out, index, strict=True)) | {k: a.var for k, a in axes.items()}
            value: Any = None
            for tensor, term in zip(tensors, terms, strict=True):
                where = [
                    0 if int(n) == 1 else at[k] for k, n in zip(term, tensor.shape, strict=True)
                ]
                factor = tensor(*where)
                value = factor if value is None else value * factor
            return SUM(value, axis=list(axes.values())) if axes else value

        return te.compute(shape, element, name="einsum")

    return ctx.te("einsum", compute, *inputs)


def _labels(equation: str, ranks: list[int]) -> tuple[list[list[str]], list[str]]:
    """The axis labels of each input and of the output, an ellipsis spelled out by digits."""
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        raise Refused(f"{equation!r} does not have {len(ranks)} operands")
    widest = max(
        (r - len(t.replace("...", "")) for t, r in zip(terms, ranks, strict=True) if "..." in t),
        default=0,
    )

    def spelled(term: str, count: int) -> list[str]:
        before, dots, after = term.partition("...")
        filled = [str(k) for k in range(widest - count, widest)] if dots else []
        return [*before, *filled, *after]

    named = [spelled(t, r - len(t.replace("...", ""))) for t, r in zip(terms, ranks, strict=True)]
    if any(len(t) != r for t, r in zip(named, ranks, strict=True)):
        raise Refused(f"{equation!r} does not fit operands of rank {ranks}")
    if arrow:
        return named, spelled(right, widest)
    every = [label for term in named for label in term]
    once = sorted(k for k in set(every) if every.count(k) == 1 and k.isalpha())
    return named, [str(k) for k in range(widest)] + once


def determinant(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
    """By elimination with the largest pivot of each column."""
    (x,) = inputs
    *batch, size, _ = ctx.shape(x)
    dtype = ctx.dtype(x)

    def body(loops: Loops, data: Any, out: Any) -> None:
        work = loops.array((size, size), dtype)
        pivot, factor, total = loops.local("int32"), loops.local(dtype), loops.local(dtype)
        with loops.over(batch) as lead:
            with loops.over((size, size)) as (i, j):
                work[i, j] = data[[*lead, i, j]]
            total[0] = literal(1, dtype)
            for k in range(size):
                pivot[0] = literal(k, "int32")
                with loops.over((size,)) as (i,):
                    larger = tirx.abs(work[i, k]) > tirx.abs(work[pivot[0], k])
                    with loops.when(tirx.all(i > k, larger)):
                        pivot[0] = i.astype("int32")
                with loops.when(pivot[0] != k):
                    total[0] = -total[0]
                    with loops.over((size,)) as (j,):
                        factor[0] = work[k, j]
                        work[k, j] = work[pivot[0], j]
                        work[pivot[0], j] = factor[0]
                total[0] = total[0] * work[k, k]
                with (
                    loops.over((size,)) as (i,),
                    loops.when(tirx.all(i > k, work[k, k] != literal(0, dtype))),
                ):
                    factor[0] = work[i, k] / work[k, k]
                    with loops.over((size,)) as (j,):
                        work[i, j] = work[i, j] - factor[0] * work[k, j]
            out[lead if batch else ()] = total[0]

    return ctx.loops("determinant", body, [x], [(tuple(batch), dtype)])


def col2im(ctx: Context, node: gs.Node, inputs: list[relax.Expr | None]) -> relax.Expr:
    """Columns [N, C*prod(block), L] summed back into the image they were cut from."""
    x = inputs[0]
    image = [int(n) for n in ctx.required(node, 1, "image_shape")]
    block = [int(n) for n in ctx.required(node, 2, "block_shape")]
    rank = len(image)
    dilations = ctx.attr(node, "dilations", [1] * rank)
    strides = ctx.attr(node, "strides", [1] * rank)
    pads = ctx.attr(node, "pads", [0] * (2 * rank))
    batch, depth, columns = ctx.shape(x)
    counts = [
        (image[a] + pads[a] + pads[a + rank] - dilations[a] * (block[a] - 1) - 1) // strides[a] + 1
        for a in range(rank)
    ]
    if prod(counts) != columns or depth % prod(block):
        raise Refused(f"{columns} columns of {depth} do not make an image of {image}")
    channels = depth // prod(block)
    zero = literal(0, ctx.dtype(x))

    def compute(data: te.Tensor) -> te.Tensor:
        taps = [te.reduce_axis((0, k), f"k{a}") for a, k in enumerate(block)]

        def element(n: Any, c: Any, *at: Any) -> Any:
            row, column, inside = c, literal(0, "int64"), []
            for a, tap in enumerate(taps):
                reach = at[a] + pads[a] - tap.var * dilations[a]
                step = tirx.floordiv(reach, strides[a])
                inside += [reach >= 0, tirx.floormod(reach, strides[a]) == 0, step < counts[a]]
                row, column = row * block[a] + tap.var, column * counts[a] + step
            value = tirx.if_then_else(tirx.all(*inside), data(n, row, column), zero)
            return SUM(value, axis=taps)

        return te.compute((batch, channels, *image), element, name="col2im")

    return ctx.te("col2im", compute, x)


ENTRIES = {"Einsum": einsum, "Det": determinant, "Col2Im": col2im}
