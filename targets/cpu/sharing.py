"""When a kernel's loop is shared among threads.

Waking threads that spin takes less than a microsecond. What they then need of each other's results
has to move between their caches, which takes more: where kernels take a few microseconds each
(`edgec profile --threads 2` of DS-CNN, with `_VECTORS` lowered) two threads are slower than one.
"""

from __future__ import annotations

from edgec.targets import Target
from edgec.targets.cpu.knobs import Choose, whether

PARALLEL_ITERATIONS = 16384
"""A loop with fewer scalar iterations than this costs less than waking a thread."""

_VECTORS = 20480
"""Vectors of multiply-adds that take 6 microseconds where one goes through in a cycle."""


_DOUBTFUL = 2
"""Work within this factor of the least that is shared may be shared or not."""


def products_pay(count: int, target: Target, choose: Choose) -> bool:
    """Whether `count` multiply-adds, vectorised, are enough work for several threads."""
    return _pays(count, _VECTORS * target.vector_bits // 32, choose)


def iterations_pay(count: int, choose: Choose) -> bool:
    """Whether so many scalar iterations are enough work for several threads."""
    return _pays(count, PARALLEL_ITERATIONS, choose)


def _pays(count: int, least: int, choose: Choose) -> bool:
    if not least / _DOUBTFUL <= count <= least * _DOUBTFUL:
        return count >= least
    return whether(choose, "parallel", count >= least)
