"""Sums of products of bytes, as lowering writes them down for the ways there are to multiply.

    "unsigned"   dot4(four elements, four weights)
    "words"      the same
    "signed"     signed_dot4(four elements - 128, four weights)
    "pairs"      pairs(four elements - 128, two weights, two more)

The elements less 128 are a stage of their own, TERMS, which schedules keep in registers. So the sum
is one of elements less `origin`: what that makes is a constant per output, as a zero point's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from tvm import te, tirx

from edgec.lower.context import at
from edgec.lower.dot import dot4, pairs, quad, signed_dot4
from edgec.targets.cpu.tiles import TERMS

BYTES = 4
"""Elements that are multiplied and added at once."""

MIDDLE = 128
"""Taken from a byte without a sign, it makes one with a sign: as bits, the highest changes."""

SIGNS = tirx.const(-0x7F7F7F80, "int32")
"""The highest bits of four bytes."""

WORDS = 4
"""Columns that are multiplied by pairs at once."""

Index = tuple[Any, ...]


@dataclass(frozen=True)
class Form:
    """One of the ways: `packed` makes of weights int8 [..., 4] the array that `product` reads."""

    packed: Callable[[np.ndarray], np.ndarray]
    factors: Callable[[te.Tensor, int, bool], te.Tensor]
    """What of a tensor uint8 [..., elements], of which so many are used, products read; whether the
    origin was taken from it."""
    product: Callable[[te.Tensor, Index, Any, te.Tensor, Index, Any], Any]
    """Of the four elements `q` at a place of the factors, and of the weights at a place, column
    `v`."""
    rank: int = 1
    """The last axes of that array, of four weights of neighbouring columns."""
    integers: int = 1
    """In which four weights of a column are."""
    origin: int = 0
    """What is taken from elements first."""

    def columns(self, shape: Index) -> int:
        """How many columns lie together in an array of this shape."""
        return int(prod(shape[-self.rank :])) // self.integers

    @property
    def staged(self) -> bool:
        return self.origin != 0


def form_for(dots: str, weights: np.ndarray, columns: int) -> Form:
    """How bytes are multiplied by these weights, which lie together for so many columns, where the
    target does it by `dots`."""
    if dots == "pairs" and (columns % WORDS or not weights.size or weights.min() == -MIDDLE):
        return UNSIGNED
    return {"unsigned": UNSIGNED, "words": UNSIGNED, "signed": SIGNED, "pairs": PAIRED}[dots]


def quads(values: np.ndarray) -> np.ndarray:
    """int8 [..., 4] as int32 [...], the first byte lowest."""
    whole = np.ascontiguousarray(values, np.int8).view("<i4")[..., 0]
    return np.ascontiguousarray(whole, np.int32)


def _halves(values: np.ndarray) -> np.ndarray:
    """int8 [..., columns, 4] as int16 [..., columns / 4, 2, 4], the first byte lowest: what four
    columns are multiplied by lies together."""
    whole = np.ascontiguousarray(values, np.int8).view("<i2")
    apart = whole.reshape(*whole.shape[:-2], -1, WORDS, 2)
    return np.ascontiguousarray(np.moveaxis(apart, -1, -2), np.int16)


def _unsigned(x: te.Tensor, place: Index, q: Any, weights: te.Tensor, to: Index, v: Any) -> Any:
    four = (at(x, (*place, BYTES * q + k)) for k in range(BYTES))
    return dot4(quad(*four), at(weights, (*to, v)))


def less_middle(byte: Any) -> Any:
    """A byte without a sign, less 128, as the bits of one with a sign."""
    return byte ^ tirx.const(MIDDLE, "uint8")


def _quads_of(x: te.Tensor, used: int, moved: bool) -> te.Tensor:
    def element(*index: Any) -> Any:
        *place, q = index
        four = quad(*(x(*place, BYTES * q + k) for k in range(BYTES)))
        return four if moved else four ^ SIGNS

    shape = (*x.shape[:-1], used // BYTES)
    return te.compute(shape, element, name=TERMS, attrs={"edgec.kept": True})


def _signed(terms: te.Tensor, place: Index, q: Any, weights: te.Tensor, to: Index, v: Any) -> Any:
    return signed_dot4(at(terms, (*place, q)), at(weights, (*to, v)))


def _paired(terms: te.Tensor, place: Index, q: Any, weights: te.Tensor, to: Index, v: Any) -> Any:
    two = (at(weights, (*to, v // WORDS, k, v % WORDS)) for k in range(2))
    return pairs(at(terms, (*place, q)), *two)


UNSIGNED = Form(quads, lambda x, used, moved: x, _unsigned)
SIGNED = Form(quads, _quads_of, _signed, origin=MIDDLE)
PAIRED = Form(_halves, _quads_of, _paired, rank=3, integers=2, origin=MIDDLE)
