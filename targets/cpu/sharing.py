"""When a kernel's loop is shared among threads.

Starting a job on threads that spin takes 0.4 microseconds, measured; it pays from about 2
microseconds of work on.
"""

from __future__ import annotations

from edgec.targets import Target

PARALLEL_ITERATIONS = 16384
"""A loop with fewer scalar iterations than this costs less than waking a thread."""

_VECTORS = 8192


def products_pay(count: int, target: Target) -> bool:
    """Whether `count` multiply-adds, vectorised, are enough work for several threads."""
    return count >= _VECTORS * target.vector_bits // 32
