"""Whether two kernels computed the same, by the bytes of their outputs."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from edgec.program import dtype_of
from edgec.tune.kernel import Kernel

_REALS = ("float", "bfloat")
RELATIVE, OF_LARGEST = 1e-4, 1e-5
"""What a sum of float32 may differ by when it is added up in another order: of each element, and of
the largest."""


def difference(kernel: Kernel, want: bytes, got: bytes) -> str:
    """How the outputs `got` differ from `want`, beyond what another order of sums does; or ""."""
    at = 0
    from_reals = any(_is_real(b.dtype) for b in kernel.buffers if b.role == "input")
    if len(want) != len(got):
        return f"{len(got)} bytes of outputs, not {len(want)}"
    for number, buffer in enumerate(b for b in kernel.buffers if b.role == "output"):
        dtype = dtype_of(buffer.dtype)
        expected = np.frombuffer(want, dtype, buffer.nbytes // dtype.itemsize, at)
        found = np.frombuffer(got, dtype, buffer.nbytes // dtype.itemsize, at)
        at += buffer.nbytes
        wrong = _wrong(buffer.dtype, expected, found, from_reals)
        if wrong.any():
            first = int(np.argmax(wrong))
            return (
                f"output {number}: {int(wrong.sum())} of {wrong.size} elements differ, the first "
                f"at {first}: {found[first]}, not {expected[first]}"
            )
    return ""


def _is_real(dtype: str) -> bool:
    return dtype.startswith(_REALS)


def _wrong(dtype: str, want: np.ndarray, got: np.ndarray, from_reals: bool) -> np.ndarray:
    """Which elements differ. Quantised ones may by one, where a real was rounded."""
    if not _is_real(dtype):
        slack = 1 if from_reals and dtype in ("int8", "uint8") else 0
        apart: np.ndarray = np.abs(got.astype(np.int64) - want.astype(np.int64)) > slack
        return apart
    eps = float(ml_dtypes.finfo(want.dtype).eps)  # type: ignore[no-untyped-call]
    coarser = max(1.0, 4 * eps / RELATIVE)
    a, b = got.astype(np.float64), want.astype(np.float64)
    finite = np.isfinite(b)
    largest = float(np.abs(b[finite]).max(initial=0.0))
    with np.errstate(invalid="ignore", over="ignore"):
        far = np.abs(a - b) > coarser * (RELATIVE * np.abs(b) + OF_LARGEST * largest)
        far |= ~np.isfinite(a)
    other = ~((a == b) | (np.isnan(a) & np.isnan(b)))
    wrong: np.ndarray = np.where(finite, far, other)
    return wrong
