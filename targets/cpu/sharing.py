"""When a kernel's loop is shared among threads.

Waking threads that spin takes less than a microsecond. What they then need of each other's results
has to move between their caches, which takes more: where kernels take a few microseconds each
(`edgec profile --threads 2` of DS-CNN, with `_VECTORS` lowered) two threads are slower than one.
"""

from __future__ import annotations

from edgec.targets import Target

PARALLEL_ITERATIONS = 16384
"""A loop with fewer scalar iterations than this costs less than waking a thread."""

_VECTORS = 40960
"""Vectors of multiply-adds that take about 8 microseconds."""


def products_pay(count: int, target: Target) -> bool:
    """Whether `count` multiply-adds, vectorised, are enough work for several threads."""
    return count >= _VECTORS * target.vector_bits // 32
