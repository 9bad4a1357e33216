"""The plan: which units become integers, and the scale and zero point of every tensor of theirs.

It is plain data by names, so that it may be edited before `edgec.quantize.insert` writes it into
the graph: a unit removed from `units` stays in floats, a `Grid` or the integers of a weight may be
replaced. Biases follow from both, and are made when it is written.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs

from edgec.graph import Graph
from edgec.quantize.formulas import (
    Grid,
    QuantizedWeight,
    grid,
    least_weight_scale,
    quantize_weight,
    weight_scale,
)
from edgec.quantize.profiles import Profile
from edgec.quantize.units import Unit, bounds, find_units, in_integers, name_of
from edgec.tensors import Constant

Ranges = Mapping[str, tuple[float, float]]
"""The least and the largest value of tensors, by name."""

WEIGHTS = "int8"


@dataclass
class Plan:
    """What is quantized, and how.

    `units` are names of units; `activations` holds the grid of each tensor that they read, by its
    name; `weights` the constant weights of products by the unit's name. `left` says, by name of a
    node's first result, why a node stays in floats, and `notes` what the user should know.
    """

    units: list[str]
    activations: dict[str, Grid]
    weights: dict[str, QuantizedWeight]
    left: dict[str, str]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Structure:
    """The units that are to be integers, and why nodes stay in floats, by their first result."""

    units: list[Unit]
    left: dict[str, str]

    def tensors(self) -> list[gs.Tensor]:
        """The computed tensors that are quantized, each once."""
        read = dict.fromkeys(t for unit in self.units for t in unit.inputs)
        return [t for t in read if not isinstance(t, Constant)]


def structure(
    graph: Graph,
    profile: Profile,
    exclude: Collection[str] = (),
    unknown: Collection[str] = (),
) -> Structure:
    """What of `graph` is worth computing in integers by `profile`.

    `exclude` are operators and names of nodes and units that stay in floats, `unknown` the names of
    tensors that have no range.
    """
    found, reasons = find_units(graph, profile)
    left = {name_of(node): reason for node, reason in reasons.items()}
    able = []
    for unit in found:
        names = {unit.name, *(name for node in unit.nodes for name in (node.op, node.name))}
        missing = [t.name for t in unit.inputs if t.name in unknown]
        if names.intersection(exclude):
            left[unit.name] = "it is excluded"
        elif missing:
            left[unit.name] = f"the range of '{missing[0]}' is not known"
        else:
            able.append(unit)
    kept, dropped = in_integers(able, graph)
    left |= {unit.name: reason for unit, reason in dropped.items()}
    return Structure(kept, left)


def make_plan(
    graph: Graph, profile: Profile, ranges: Ranges, exclude: Collection[str] = ()
) -> Plan:
    """The plan for `graph`, by min-max of the `ranges`. What has none, or one that is not finite,
    keeps its readers in floats."""
    able = structure(graph, profile, exclude)
    unknown = {
        t.name for t in able.tensors() if not np.isfinite(ranges.get(t.name, (math.nan,))).all()
    }
    if unknown:
        able = structure(graph, profile, exclude, unknown)
    plan = Plan([unit.name for unit in able.units], {}, {}, able.left)
    plan.notes += [
        f"the range of '{name}' is not finite on the samples; what reads it stays in floats"
        for name in sorted(unknown)
    ]
    given = set(graph.gs.inputs)
    for members, (low, high) in _shared(able.units, ranges, graph):
        shared = grid(low, high, profile.activations, symmetric=profile.symmetric)
        if profile.inputs and given.intersection(members):
            shared = grid(low, high, profile.inputs, symmetric=False)
        plan.activations |= {t.name: shared for t in members}
        if low == high == 0:
            plan.notes.append(f"tensor '{members[0].name}' is zero on all samples")
    for unit in able.units:
        if unit.weight is not None:
            _plan_weights(unit, plan, unit.axis if profile.per_channel else None)
    return plan


def _plan_weights(unit: Unit, plan: Plan, axis: int | None) -> None:
    values = unit.first.inputs[unit.weight].values
    scale = weight_scale(values, axis, WEIGHTS)
    zeros = int((scale == 0).sum())
    if zeros:
        what = f"{zeros} of {scale.size} channels" if scale.ndim else "all weights"
        plan.notes.append(f"{unit.first}: {what} are zero; their scale is the bias's")
    bias = None if unit.bias is None else unit.bias.values.reshape(-1)
    scale = least_weight_scale(bias, plan.activations[unit.inputs[0].name].scale, scale)
    plan.weights[unit.name] = quantize_weight(values, scale, axis, WEIGHTS)


def _shared(
    units: Iterable[Unit], ranges: Ranges, graph: Graph
) -> Iterable[tuple[list[gs.Tensor], tuple[float, float]]]:
    """The tensors that are quantized, those together that must have one scale, with their range.

    That is what is needed where the values are computed with: what only moves on, or into a Relu or
    Clip, need not be held beyond what comes out there.
    """
    units = list(units)
    readers: dict[gs.Tensor, list[Unit]] = {}
    for unit in units:
        for tensor in unit.inputs:
            readers.setdefault(tensor, []).append(unit)
    groups = _Groups(readers)
    for unit in units:
        if unit.kind == "move":
            groups.join([*unit.inputs, *(t for t in unit.outputs if t in readers)])
    for members in groups.all():
        needed = [
            _needed(t, readers[t], ranges)
            for t in members
            if any(unit.kind != "move" for unit in readers[t])
            or graph.is_output(t)
            or len(graph.consumers(t)) > len(readers[t])
        ] or [_range(t, ranges) for t in members]
        yield members, (min(low for low, _ in needed), max(high for _, high in needed))


def _needed(tensor: gs.Tensor, readers: Iterable[Unit], ranges: Ranges) -> tuple[float, float]:
    low, high = _range(tensor, ranges)
    ends = [bounds(u.first) if u.first.op in ("Relu", "Clip") else None for u in readers]
    if any(end is None for end in ends):
        return low, high
    least = min(end[0] for end in ends if end is not None)
    most = max(end[1] for end in ends if end is not None)
    return min(max(low, least), most), max(min(high, most), least)


def _range(tensor: gs.Tensor, ranges: Ranges) -> tuple[float, float]:
    if isinstance(tensor, Constant):
        return float(tensor.values.min(initial=0)), float(tensor.values.max(initial=0))
    return ranges[tensor.name]


class _Groups:
    """Disjoint sets of tensors, in the order of their first members."""

    def __init__(self, tensors: Iterable[gs.Tensor]) -> None:
        self._parent = {t: t for t in tensors}

    def join(self, tensors: Iterable[gs.Tensor]) -> None:
        first, *others = map(self._root, tensors)
        for other in others:
            self._parent[other] = first

    def all(self) -> Iterable[list[gs.Tensor]]:
        found: dict[gs.Tensor, list[gs.Tensor]] = {}
        for tensor in self._parent:
            found.setdefault(self._root(tensor), []).append(tensor)
        return found.values()

    def _root(self, tensor: gs.Tensor) -> gs.Tensor:
        while self._parent[tensor] is not tensor:
            tensor = self._parent[tensor]
        return tensor
