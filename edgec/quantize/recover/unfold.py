"""What a product multiplies its weights with, as the rows of a matrix."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgec.arrays import Array
from edgec.quantize.units import Unit

MOST_ROWS = 1 << 10
"""Of one sample; where a layer has more, so many are drawn."""


def can_unfold(unit: Unit) -> bool:
    """Whether `rows` and `columns` know the unit's product."""
    if unit.weight is None or unit.first.op not in ("Conv", "Gemm", "MatMul"):
        return False
    return unit.first.op != "Conv" or len(unit.first.inputs[1].shape) in (3, 4)


def columns(unit: Unit, weights: Array) -> Array:
    """`weights` of the unit's shape as [groups, inputs, outputs]: rows times these are results."""
    if unit.first.op == "Conv":
        groups = unit.first.attrs.get("group", 1)
        split = weights.reshape(groups, weights.shape[0] // groups, -1)
        return np.asarray(split.transpose(0, 2, 1))
    return np.asarray((weights.T if unit.axis == 0 else weights)[None])


def weights(unit: Unit, matrices: Array) -> Array:
    """The inverse of `columns`."""
    shape = unit.first.inputs[1].shape
    if unit.first.op == "Conv":
        return np.asarray(matrices.transpose(0, 2, 1).reshape(shape))
    return np.asarray(matrices[0].T if unit.axis == 0 else matrices[0])


def rows(unit: Unit, values: Array, random: np.random.Generator) -> Array:
    """What the unit reads as [groups, rows, inputs]; `MOST_ROWS` drawn by `random` at most.

    The same `random` state draws the same rows.
    """
    if unit.first.op != "Conv":
        flat = values.reshape(-1, values.shape[-1])
        return flat[_drawn(len(flat), random)][None]
    node = unit.first
    kernel = node.inputs[1].shape[2:]
    rank = len(kernel)
    strides = node.attrs.get("strides", [1] * rank)
    dilations = node.attrs.get("dilations", [1] * rank)
    padded = np.pad(values, [(0, 0), (0, 0), *_pads(node.attrs, values.shape[2:], kernel)])
    reach = [(size - 1) * step + 1 for size, step in zip(kernel, dilations, strict=True)]
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, tuple(range(2, 2 + rank)))
    places = tuple(slice(None, None, step) for step in strides)
    taps = tuple(slice(None, None, step) for step in dilations)
    windows = windows[(slice(None), slice(None), *places, *taps)]
    # [N, C, places.., taps..] -> [N, places.., C, taps..]
    moved = np.moveaxis(windows, 1, 1 + rank)
    count = int(np.prod(moved.shape[: 1 + rank]))
    chosen = np.unravel_index(_drawn(count, random), moved.shape[: 1 + rank])
    picked = moved[chosen]
    groups = node.attrs.get("group", 1)
    return picked.reshape(len(picked), groups, -1).transpose(1, 0, 2)


def _drawn(count: int, random: np.random.Generator) -> Array:
    if count <= MOST_ROWS:
        return np.arange(count)
    return np.sort(random.choice(count, MOST_ROWS, replace=False))


def _pads(attrs: dict[str, Any], sizes: tuple[int, ...], kernel: tuple[int, ...]) -> list[Any]:
    """(before, after) of each spatial axis."""
    rank = len(kernel)
    auto = attrs.get("auto_pad", "NOTSET")
    if auto == "NOTSET":
        pads = attrs.get("pads", [0] * 2 * rank)
        return list(zip(pads[:rank], pads[rank:], strict=True))
    found = []
    for i, size in enumerate(sizes):
        stride = attrs.get("strides", [1] * rank)[i]
        reach = (kernel[i] - 1) * attrs.get("dilations", [1] * rank)[i] + 1
        total = 0 if auto == "VALID" else max((-(-size // stride) - 1) * stride + reach - size, 0)
        less, more = total // 2, total - total // 2
        found.append((more, less) if auto == "SAME_LOWER" else (less, more))
    return found
