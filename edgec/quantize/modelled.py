"""Times of units where nothing can be measured: what a target's facts allow at best, in cycles.

A unit takes as long as its arithmetic or its data, whichever is the longer (the roofline model;
Williams, Waterman and Patterson, 2009). Integers move a quarter of the bytes, and multiply and add
as many at once as the target's instructions do: `DOTS`.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx_graphsurgeon as gs

from edgec.quantize.gate import MODELLED, Pair, Times
from edgec.quantize.units import Unit
from edgec.quantize.work import elements, macs
from edgec.targets import Target

DOTS = {"signed": 4.0, "pairs": 1.3, "vnni": 4.0, "unsigned": 1.25, "words": 1.25}
"""Multiply-adds of bytes in the time of one of floats: by SDOT; by SMULL, SMLAL and SADALP, sixteen
in three instructions; by VPDPBUSD, or DP4A of a GPU; by two multiply-adds of 16-bit pairs on x86,
as measured on a Zen 4."""
DEPTHWISE = 0.3
"""What a depthwise convolution gets of that: measured on a Zen 4. A grouped one is computed as a
dense one, with zeros."""
REQUANTIZED = 6
"""Instructions for each result: to float, multiply, round, add the zero point, clip, narrow."""
_BYTES = {"floats": 4, "integers": 1}


def modelled(units: Iterable[Unit], target: Target) -> Times:
    """The times of `units` on one core of `target`."""
    pairs = {unit.name: _pair(unit, target) for unit in units}

    def conversion(tensor: gs.Tensor) -> float:
        count = elements(tensor)
        return max(
            REQUANTIZED * count / _lanes(target), _moving(count * sum(_BYTES.values()), target)
        )

    return Times(pairs, conversion, MODELLED, lambda cycles: f"{cycles:.0f} cycles")


def _pair(unit: Unit, target: Target) -> Pair:
    results = sum(map(elements, unit.outputs))
    read = sum(map(elements, unit.inputs)) + results
    weights = 0 if unit.weight is None else elements(unit.first.inputs[unit.weight])
    lanes = _lanes(target)
    floats, integers = (_moving(each * (read + weights), target) for each in _BYTES.values())
    if unit.kind == "move":
        return Pair(floats, integers)
    if unit.kind != "product":
        return Pair(max(results / lanes, floats), max(REQUANTIZED * results / lanes, integers))
    products = macs(unit)
    rate = lanes * target.fma_units / (1 if target.fuses_multiply_add else 2)
    dots = rate * _dots(unit, target)
    tail = REQUANTIZED * results / lanes
    return Pair(max(products / rate, floats), max(products / dots + tail, integers))


def _dots(unit: Unit, target: Target) -> float:
    vnni = target.gpu_arch or not {"avx512_vnni", "avx_vnni"}.isdisjoint(target.cpu_flags)
    dots = DOTS["vnni" if vnni else target.dots]
    group = int(unit.first.attrs.get("group", 1))
    if unit.first.op != "Conv" or group == 1:
        return dots
    depthwise = unit.first.inputs[1].shape[1] == 1
    return dots * DEPTHWISE if depthwise else dots / group


def _lanes(target: Target) -> int:
    return target.vector_bits // 32


def from_memory(nbytes: float, target: Target) -> float:
    """Cycles to fetch data that no cache holds."""
    return 8 * nbytes / (target.vector_bits / 8)


def _moving(nbytes: float, target: Target) -> float:
    """Cycles to move data of `nbytes`, a vector a cycle from the first cache, a half, a quarter and
    an eighth from those behind it and from memory."""
    caches = (target.l1_bytes, target.l2_bytes, target.l3_bytes)
    farther = sum(nbytes > size for size in caches)
    return nbytes * float(1 << farther) / (target.vector_bits / 8)
