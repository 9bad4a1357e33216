"""Rows of a length that vectors do not divide: whole blocks are reduced apart from the end.

    total[row] = sum(x[row, k] for k < whole) + sum(x[row, k] for whole <= k < size)

A schedule can spread the first over the lanes of a vector.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import te

Fn = Callable[..., Any]


def over_row(
    name: str, rows: tuple[int, ...], size: int, block: int, term: Fn, reducer: Fn, combine: Fn
) -> te.Tensor:
    """A tensor of shape `rows`: `term(*row, k)` over k < `size`, reduced.

    Of at least one whole `block`, the end is reduced apart; `combine` makes one of two results.
    """
    whole = size - size % block if block else size

    def part(label: str, first: int, extent: int) -> te.Tensor:
        k = te.reduce_axis((0, extent), "k")
        return te.compute(rows, lambda *row: reducer(term(*row, first + k), axis=[k]), name=label)

    if whole in (0, size):
        return part(name, 0, size)
    body, end = part(f"{name}_blocks", 0, whole), part(f"{name}_end", whole, size - whole)
    return te.compute(rows, lambda *row: combine(body(*row), end(*row)), name=name)
