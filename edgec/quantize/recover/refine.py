"""A plan's weights and biases, refined on data: rounding and bias correction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from edgec.data import Sample
from edgec.graph import Graph
from edgec.quantize.calibrate import Run
from edgec.quantize.formulas import QuantizedWeight, along, limits
from edgec.quantize.plan import Plan
from edgec.quantize.profiles import Profile
from edgec.quantize.recover import rounding
from edgec.quantize.recover.moments import Moments
from edgec.quantize.recover.unfold import can_unfold, columns, weights
from edgec.quantize.units import Unit, find_units

BYTES = 1 << 29
"""Of moments held at once; the data is read again where a model needs more."""


def refine(
    graph: Graph,
    plan: Plan,
    profile: Profile,
    samples: Iterable[Sample],
    *,
    how: str = "nearest",
    correct_bias: bool = False,
) -> int:
    """Round the weights of `plan` by `how` ("nearest" leaves them as they are), and fold the mean
    error that is left into the biases of `graph`; both in place.

    `samples` may be read several times. How many layers were changed.
    """
    chosen = set(plan.units)
    units = [u for u in find_units(graph, profile)[0] if u.name in chosen and can_unfold(u)]
    for part in _parts(units, second=how != "nearest"):
        for unit, moments in _measure(graph, plan, part, samples, second=how != "nearest").items():
            if how != "nearest":
                plan.weights[unit.name] = _rounded(unit, plan.weights[unit.name], moments, how)
            if correct_bias:
                _correct(unit, plan.weights[unit.name], moments, graph)
    return len(units)


def _parts(units: Sequence[Unit], second: bool) -> Iterator[list[Unit]]:
    """The units in parts whose moments fit into `BYTES`."""
    part: list[Unit] = []
    held = 0
    for unit in units:
        matrices = columns(unit, unit.first.inputs[1].values)
        need = 2 * 8 * matrices.shape[0] * matrices.shape[1] ** 2 if second else 0
        if part and held + need > BYTES:
            yield part
            part, held = [], 0
        part.append(unit)
        held += need
    if part:
        yield part


def _measure(
    graph: Graph, plan: Plan, units: Sequence[Unit], samples: Iterable[Sample], second: bool
) -> dict[Unit, Moments]:
    """The moments of what each of `units` reads."""
    tensors = list(dict.fromkeys(unit.inputs[0] for unit in units))
    found = {unit: Moments(second) for unit in units}
    random = np.random.default_rng(0)
    with Run(graph, tensors) as run:
        for sample in samples:
            values = run(sample)
            for unit, moments in found.items():
                name = unit.inputs[0].name
                moments.add(unit, values[name], plan.activations[name], random)
    return found


def _rounded(unit: Unit, weight: QuantizedWeight, moments: Moments, how: str) -> QuantizedWeight:
    """`weight` with the integers that change the unit's results least."""
    values = unit.first.inputs[1].values.astype(np.float64)
    scale = np.broadcast_to(along(weight.scale, weight.axis, values.ndim), values.shape)
    most = limits(weight.integers.dtype.name)[1]
    plain, steps = columns(unit, values), columns(unit, values / scale)
    step = columns(unit, scale.astype(np.float64))[:, :1]
    choose = rounding.adaround if how == "adaround" else rounding.gptq
    rounded = np.empty_like(steps)
    for group in range(len(steps)):
        h, g = np.asarray(moments.h)[group], np.asarray(moments.g)[group]
        damping = rounding.DAMPING * max(np.diag(h).mean(), 1e-30) * np.eye(len(h))
        target = (g + damping) @ plain[group] / step[group]
        rounded[group] = choose(target, h + damping, steps[group], -most, most)
    integers = weights(unit, rounded).astype(weight.integers.dtype)
    return replace(weight, integers=np.ascontiguousarray(integers))


def _correct(unit: Unit, weight: QuantizedWeight, moments: Moments, graph: Graph) -> None:
    """Add to the unit's bias what its results are too small by in the mean."""
    wanted = columns(unit, unit.first.inputs[1].values.astype(np.float64))
    given = columns(unit, weight.dequantize().astype(np.float64))
    means = (np.asarray(m)[:, None] / moments.count for m in (moments.plain, moments.quantized))
    x, quantized = means
    error = (x @ wanted - quantized @ given).reshape(-1)
    if unit.bias is not None:
        node = next(n for n in unit.nodes if unit.bias in n.inputs)
        values = unit.bias.values
        better = graph.constant(
            (values + error.reshape(values.shape)).astype(values.dtype), unit.bias.name
        )
        node.inputs[node.inputs.index(unit.bias)] = better
    elif unit.first.op == "Conv":
        bias = graph.constant(error.astype(np.float32), f"{unit.name}_bias")
        if len(unit.first.inputs) > 2:
            unit.first.inputs[2] = bias
        else:
            unit.first.inputs.append(bias)
