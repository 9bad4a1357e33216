"""Narrow elements as they are stored: uint8, several to a byte, the first in the low bits.

These are the integers of 4 and 2 bits and the floats of 8 and 4; numpy has them by `ml_dtypes`, one
to a byte.
"""

from __future__ import annotations

import math

import numpy as np

from edgec.arrays import Array
from edgec.program import bits_of, dtype_of
from edgec.runtime.load import raw


def is_packed(dtype: str) -> bool:
    """Whether elements of the type with that name are stored as uint8."""
    return bits_of(dtype) <= 8 and dtype not in ("bool", "int8", "uint8")


def stored_shape(dtype: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Of the uint8 that store a tensor: its own where an element is a byte, else a row."""
    bits = bits_of(dtype)
    return shape if bits == 8 else ((math.prod(shape) * bits + 7) // 8,)


def pack(array: Array) -> Array:
    """A narrow `array` as uint8."""
    return raw(array, np.dtype(np.uint8))


def unpack(stored: Array, dtype: str, shape: tuple[int, ...]) -> Array:
    """The array of a narrow `dtype` that the uint8 `stored` encode."""
    bits = bits_of(dtype)
    shifts = np.arange(0, 8, bits).astype(np.uint8)
    codes = (stored.reshape(-1, 1) >> shifts) & np.uint8(2**bits - 1)
    if dtype.startswith("int"):
        codes = (codes ^ np.uint8(1 << (bits - 1))) - np.uint8(1 << (bits - 1))
    array: Array = codes.ravel()[: math.prod(shape)].view(dtype_of(dtype)).reshape(shape)
    return array


def typed(array: Array, dtype: str, shape: tuple[int, ...]) -> Array:
    """What a module returned, as the array of `dtype` that it stands for."""
    if is_packed(dtype):
        return unpack(array, dtype, shape)
    return array.view(dtype_of(dtype)) if dtype == "bfloat16" else array
