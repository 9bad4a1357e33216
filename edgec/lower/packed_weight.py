"""Constant weights as they are stored: numbers of few bits that kernels widen in registers.

A weight is `scale * (code - zero)` with integer codes of 2, 4 or 8 bits, or a 16-bit float. Codes
that lie behind each other in memory along the axis that is summed share an element of up to 32
bits, the first in the low bits: one load then brings the codes of several terms for a vector of
outputs, and a shift by a constant singles each of them out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np
from tvm import tirx

Array = np.ndarray[Any, Any]

_WIDTHS = (2, 4, 8)
_MOST_CODES = 8
"""In one element: all of them are written out in a kernel."""


@dataclass(frozen=True)
class Stored:
    """A constant float32 tensor before it was widened.

    `codes` has its shape: int8 or uint8 numbers, or 16-bit floats. `scale` (float32) and `zero` (of
    the codes' type), if any, have as many axes; `step` is how many codes share one along each axis,
    0 for all.
    """

    codes: Array
    scale: Array | None = None
    zero: Array | None = None
    step: tuple[int, ...] = ()

    def scaled(self, factor: float) -> Stored:
        """The same tensor times `factor`."""
        if factor == 1.0:
            return self
        scale = self.scale
        if scale is None:
            ones = (1,) * self.codes.ndim
            return replace(self, scale=np.full(ones, factor, np.float32), step=(0,) * len(ones))
        return replace(self, scale=scale * np.float32(factor))

    def transposed(self, axes: Sequence[int]) -> Stored:
        """The same tensor with its axes permuted."""
        return replace(
            self,
            codes=self.codes.transpose(axes),
            scale=None if self.scale is None else self.scale.transpose(axes),
            zero=None if self.zero is None else self.zero.transpose(axes),
            step=tuple(self.step[axis] for axis in axes) if self.step else (),
        )


@dataclass(frozen=True)
class Codes:
    """How the numbers of a weight lie in elements: `bits` each, `each` to an element of type
    `dtype`. `kind` is what they are: "int", "uint", "float16" or "bfloat16"."""

    kind: str
    bits: int
    each: int

    @property
    def dtype(self) -> str:
        """The element type that kernels load."""
        if self.kind == "float16" and self.each == 1:
            return "float16"
        signed = self.kind == "int" and self.each == 1
        return f"{'' if signed else 'u'}int{self.bits * self.each}"

    def pack(self, numbers: Array, axis: int) -> Array:
        """The elements of `numbers`: `each` times fewer along `axis`."""
        if self.each == 1 and self.kind != "bfloat16":
            return np.ascontiguousarray(numbers.astype(self.dtype))
        whole = numbers.view(np.uint16) if self.bits == 16 else numbers
        moved = np.moveaxis(whole, axis, -1).astype(np.int64) & ((1 << self.bits) - 1)
        parts = moved.reshape(*moved.shape[:-1], -1, self.each)
        shifts = np.arange(self.each, dtype=np.int64) * self.bits
        elements = (parts << shifts).sum(-1).astype(f"u{self.bits * self.each // 8}")
        return np.ascontiguousarray(np.moveaxis(elements, -1, axis)).view(self.dtype)

    def number(self, element: Any, place: Any, zero: Any = None) -> Any:
        """The number at `place` of an `element` as float32, less `zero`, an int32."""
        if self.kind == "float16":
            return element.astype("float32")
        if self.kind == "bfloat16":
            return tirx.reinterpret("float32", self._high(element, place))
        code = self._integer(element, place)
        return (code if zero is None else code - zero).astype("float32")

    def _high(self, element: Any, place: Any) -> Any:
        """The 16 bits at `place` as the upper half of an uint32, the lower one zero."""
        wide = element.astype("uint32")
        if self.each == 1:
            return wide << tirx.const(16, "uint32")
        mask = tirx.const(0xFFFF0000, "uint32")
        return tirx.bitwise_and(wide << ((1 - place) * 16).astype("uint32"), mask)

    def _integer(self, element: Any, place: Any) -> Any:
        """The code at `place` as int32. TVM takes shifts of signed numbers for products that do not
        overflow, and cancels them: bits are shifted out of unsigned ones."""
        if self.each == 1:
            return element.astype("int32")
        wide, first = element.astype("uint32"), (place * self.bits).astype("uint32")
        above = tirx.const(32 - self.bits, "uint32")
        if self.kind == "int":
            return tirx.reinterpret("int32", wide << (above - first)) >> (32 - self.bits)
        mask = tirx.const((1 << self.bits) - 1, "uint32")
        return tirx.reinterpret("int32", tirx.bitwise_and(wide >> first, mask))


def codes_of(numbers: Array, run: int) -> Codes | None:
    """How to store `numbers`, of which `run` lie behind each other wherever they are summed: codes
    as narrow as their values allow. None for values that need more than 16 bits, or are infinite.
    """
    if numbers.dtype in (np.float16, ml_dtypes.bfloat16):
        if not np.isfinite(numbers.astype(np.float32)).all():
            return None
        if numbers.dtype == np.float16:
            return Codes("float16", 16, 1)
        return Codes("bfloat16", 16, 2 if run % 2 == 0 else 1)
    low, high = int(numbers.min()), int(numbers.max())
    for bits in _WIDTHS:
        each = next((n for n in _each(bits) if run % n == 0), 0)
        for kind, least in (("int", -(1 << bits - 1)), ("uint", 0)):
            if each and least <= low and high < least + (1 << bits):
                return Codes(kind, bits, each)
    return None


def _each(bits: int) -> list[int]:
    """Numbers of codes that elements of 32, 16 and 8 bits hold, no more than a kernel takes."""
    if bits == 8:
        return [1]
    return [width // bits for width in (32, 16, 8) if width // bits <= _MOST_CODES]


def centred(stored: Stored) -> tuple[Array, Array | None]:
    """The integer codes, and their zero points where these cannot be taken off beforehand.

    They can where that makes no number wider than the codes are.
    """
    codes = stored.codes
    if stored.zero is None or not stored.zero.any():
        return codes, None
    moved = codes.astype(np.int16) - spread(stored.zero, stored.step, codes.shape)
    for narrow in (np.int8, np.uint8):
        limits = np.iinfo(narrow)
        if limits.min <= moved.min() and moved.max() <= limits.max:
            taken_off = moved.astype(narrow)
            if _width(taken_off) <= _width(codes):
                return taken_off, None
    return codes, stored.zero


def _width(numbers: Array) -> int:
    """Bits of the narrowest codes for integers, 16 where there are none."""
    found = codes_of(numbers, _MOST_CODES)
    return found.bits if found is not None else 16


def spread(array: Array, step: Sequence[int], shape: Sequence[int]) -> Array:
    """A scale or zero point for each element of a tensor of that `shape`."""
    for axis, (each, size) in enumerate(zip(step, shape, strict=True)):
        if each > 1:
            array = np.repeat(array, each, axis)[(slice(None),) * axis + (slice(size),)]
    return np.broadcast_to(array, shape)
