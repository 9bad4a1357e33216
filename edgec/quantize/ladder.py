"""The ladder: by what steps a layer gets more exact, from the bits of its scheme up to float32.

    w2a16 -> w4a16 -> w8a16 -> fp16 -> fp32          w8a8 -> w8a16 -> fp16 -> fp32

What a step costs is time: that of the layer's arithmetic, and of its weights, which come from
memory in every run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from edgec.quantize.gate import Times
from edgec.quantize.modelled import from_memory, modelled
from edgec.quantize.units import Unit
from edgec.quantize.work import elements
from edgec.targets import Target

FLOAT32 = "fp32"
BITS = {"w8a8": 8, "dynamic": 8, "w2a16": 2, "w4a16": 4, "w8a16": 8, "fp16": 16, "bf16": 16}
"""Of a weight, by rung."""

_INTEGERS = ("w8a8", "dynamic")
_ABOVE = ("w8a16", "fp16", FLOAT32)


def ladder(scheme: str) -> tuple[str, ...]:
    """The rungs above and with that of `scheme`, the least exact first."""
    below = {"w2a16": ("w2a16", "w4a16"), "fp16": (), "w8a16": ()}.get(scheme, (scheme,))
    first = "fp16" if scheme in ("fp16", "bf16") else "w8a16"
    return (*below, *_ABOVE[_ABOVE.index(first) :])


@dataclass(frozen=True)
class Step:
    """A layer that is raised to `rung`.

    `noise` is the error of the model's outputs that goes with it, in squares, as a share of the
    outputs'; `cost` is what it takes longer then, in whatever unit.
    """

    layer: str
    rung: str
    noise: float
    cost: float

    @property
    def gain(self) -> float:
        """Error that goes, for what that costs."""
        if self.noise <= 0:
            return 0.0
        return self.noise / self.cost if self.cost > 0 else math.inf


def steps(
    noises: Mapping[str, Mapping[str, float]], costs: Mapping[str, Mapping[str, float]]
) -> list[Step]:
    """The steps of all layers, those first that gain most; a layer's own in their order.

    `noises` and `costs` are by layer and rung, from the first to float32, which has no noise. A
    rung is left out where the next ones gain more for their cost than it does.
    """
    found: list[Step] = []
    for layer, noise in noises.items():
        found += _path(layer, {**noise, FLOAT32: 0.0}, costs[layer])
    return sorted(found, key=lambda step: -step.gain)


def _path(layer: str, noise: Mapping[str, float], cost: Mapping[str, float]) -> Iterable[Step]:
    """The way of a layer to float32 on the lower convex hull of (cost, noise)."""
    rungs = list(noise)
    at = rungs[0]
    while at != FLOAT32:
        ahead = [
            Step(layer, rung, noise[at] - noise[rung], cost[rung] - cost[at])
            for rung in rungs[rungs.index(at) + 1 :]
        ]
        # Of rungs that are the same for this layer, the last.
        best = max(reversed(ahead), key=lambda step: (step.gain, step.noise))
        if best.noise <= 0:
            best = ahead[-1]
        yield best
        at = best.rung


def costs_of(
    units: Sequence[Unit], rungs: Sequence[str], target: Target, measured: Times | None = None
) -> dict[str, dict[str, float]]:
    """What each of `units` takes on each of `rungs`: by the model of `target`, or as `measured` in
    floats and in integers; weights, and conversions of what was integers, are added."""
    model = modelled(units, target)
    times, unit_of_time = measured or model, 1.0
    if measured is not None:
        both = [(measured.units[n].floats, model.units[n].floats) for n in measured.units]
        unit_of_time = sum(a for a, _ in both) / max(sum(b for _, b in both), 1.0)
    found = {}
    for unit in units:
        pair = times.units.get(unit.name, model.units[unit.name])
        border = sum(map(times.conversion, {*unit.inputs, *unit.outputs}))
        weights = 0 if unit.weight is None else elements(unit.first.inputs[unit.weight])
        found[unit.name] = {
            rung: (pair.integers if rung in _INTEGERS else pair.floats)
            + (border if rungs[0] in _INTEGERS and rung not in _INTEGERS else 0.0)
            + unit_of_time * from_memory(weights * BITS.get(rung, 32) / 8, target)
            for rung in rungs
        }
    return found


def raised(path: Iterable[Step]) -> dict[str, str]:
    """The rung of each layer after the steps of `path`."""
    return {step.layer: step.rung for step in path}


def without(path: Sequence[Step], step: Step) -> list[Step]:
    """`path` without `step` and what follows it for the same layer."""
    place = path.index(step)
    return [each for i, each in enumerate(path) if i < place or each.layer != step.layer]
