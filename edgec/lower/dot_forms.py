"""Sums of products of bytes, as lowering writes them down for the ways there are to multiply.

    "unsigned"   dot4(four elements, four weights)
    "signed"     signed_dot4(four elements - 128, four weights)
    "pairs"      pairs(two elements - 128, two more, two weights, two more)

The elements less 128 are a stage of their own, TERMS, which schedules keep in registers. So the sum
is one of elements less `origin`: what that makes is a constant per output, as a zero point's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import te, tirx

from edgec.lower.context import at
from edgec.lower.dot import dot4, pair, pairs, quad, signed_dot4
from edgec.targets.cpu.tiles import TERMS

BYTES = 4
"""Elements that are multiplied and added at once."""

MIDDLE = 128
"""Taken from a byte without a sign, it makes one with a sign: as bits, the highest changes."""

SIGNS, _TWO_SIGNS = tirx.const(-0x7F7F7F80, "int32"), tirx.const(-0x7F80, "int16")
"""The highest bits of four bytes, and of two."""

Index = tuple[Any, ...]


@dataclass(frozen=True)
class Form:
    """One of the ways: `packed` makes of weights int8 [..., 4] the array that `product` reads."""

    packed: Callable[[np.ndarray], np.ndarray]
    factors: Callable[[te.Tensor, int], te.Tensor]
    """What of a tensor uint8 [..., elements], of which so many are used, products read."""
    product: Callable[[te.Tensor, Index, Any, te.Tensor, Index, Any], Any]
    """Of the four elements `q` at a place of the factors, and of the weights at a place, column
    `v`."""
    rank: int = 1
    """Axes of the weights' array that four weights take."""
    origin: int = 0

    @property
    def staged(self) -> bool:
        return self.origin != 0


def form_for(dots: str, weights: np.ndarray) -> Form:
    """How bytes are multiplied by these weights, where the target does it by `dots`."""
    if dots == "pairs" and (weights.size == 0 or weights.min() == -MIDDLE):
        return UNSIGNED
    return {"unsigned": UNSIGNED, "signed": SIGNED, "pairs": PAIRED}[dots]


def quads(values: np.ndarray) -> np.ndarray:
    """int8 [..., 4] as int32 [...], the first byte lowest."""
    whole = np.ascontiguousarray(values, np.int8).view("<i4")[..., 0]
    return np.ascontiguousarray(whole, np.int32)


def _halves(values: np.ndarray) -> np.ndarray:
    """int8 [..., columns, 4] as int16 [..., 2, columns], the first byte lowest."""
    whole = np.ascontiguousarray(values, np.int8).view("<i2")
    return np.ascontiguousarray(np.moveaxis(whole, -1, -2), np.int16)


def _unsigned(x: te.Tensor, place: Index, q: Any, weights: te.Tensor, to: Index, v: Any) -> Any:
    four = (at(x, (*place, BYTES * q + k)) for k in range(BYTES))
    return dot4(quad(*four), at(weights, (*to, v)))


def _quads_of(x: te.Tensor, used: int) -> te.Tensor:
    def element(*index: Any) -> Any:
        *place, q = index
        return quad(*(x(*place, BYTES * q + k) for k in range(BYTES))) ^ SIGNS

    return _stage(x, used // BYTES, element)


def _signed(terms: te.Tensor, place: Index, q: Any, weights: te.Tensor, to: Index, v: Any) -> Any:
    return signed_dot4(at(terms, (*place, q)), at(weights, (*to, v)))


def _pairs_of(x: te.Tensor, used: int) -> te.Tensor:
    def element(*index: Any) -> Any:
        *place, p = index
        return pair(x(*place, 2 * p), x(*place, 2 * p + 1)) ^ _TWO_SIGNS

    return _stage(x, used // 2, element)


def _paired(terms: te.Tensor, place: Index, q: Any, weights: te.Tensor, to: Index, v: Any) -> Any:
    two = (at(terms, (*place, 2 * q + k)) for k in range(2))
    return pairs(*two, *(at(weights, (*to, k, v)) for k in range(2)))


def _stage(x: te.Tensor, count: int, element: Callable[..., Any]) -> te.Tensor:
    return te.compute((*x.shape[:-1], count), element, name=TERMS, attrs={"edgec.kept": True})


UNSIGNED = Form(quads, lambda x, used: x, _unsigned)
SIGNED = Form(quads, _quads_of, _signed, origin=MIDDLE)
PAIRED = Form(_halves, _pairs_of, _paired, rank=2, origin=MIDDLE)
