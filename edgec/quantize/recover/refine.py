"""A plan's weights and biases, refined on data: rounding and bias correction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
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
    error that is left into the biases of `graph`, where layers have one or may; both in place.

    `samples` may be read several times. How many layers were changed. Those of too many inputs for
    `BYTES` keep their rounding; `plan.notes` names them.
    """
    chosen = set(plan.units)
    units = [u for u in find_units(graph, profile)[0] if u.name in chosen and can_unfold(u)]
    needs = {unit: 0 if how == "nearest" else _bytes(unit) for unit in units}
    for unit in [unit for unit, need in needs.items() if need > BYTES]:
        plan.notes.append(f"{unit.first} has too many inputs for {how}")
        needs[unit] = 0
    for part in _parts(needs):
        for unit, moments in _measure(graph, plan, part, samples).items():
            if moments.second:
                plan.weights[unit.name] = _rounded(unit, plan.weights[unit.name], moments, how)
            if correct_bias:
                _correct(unit, plan.weights[unit.name], moments, graph)
    return len(units)


def _bytes(unit: Unit) -> int:
    """Of the second moments of what `unit` reads."""
    groups, inputs, _ = columns(unit, unit.first.inputs[1].values).shape
    return int(2 * 8 * groups * inputs**2)


def _parts(needs: Mapping[Unit, int]) -> Iterator[dict[Unit, int]]:
    """`needs`, bytes of each unit, in parts that fit into `BYTES`."""
    part: dict[Unit, int] = {}
    for unit, need in needs.items():
        if part and sum(part.values()) + need > BYTES:
            yield part
            part = {}
        part[unit] = need
    if part:
        yield part


def _measure(
    graph: Graph, plan: Plan, needs: Mapping[Unit, int], samples: Iterable[Sample]
) -> dict[Unit, Moments]:
    """The moments of what each unit of `needs` reads, second ones where those need bytes."""
    tensors = list(dict.fromkeys(unit.inputs[0] for unit in needs))
    found = {unit: Moments(need > 0) for unit, need in needs.items()}
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
