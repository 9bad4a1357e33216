"""What makes quantized models of one graph, with layers on one rung of its ladder or another."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import onnx

from edgec.data import Sample
from edgec.graph import Graph
from edgec.quantize.insert import Insertion
from edgec.quantize.ladder import FLOAT32
from edgec.quantize.plan import Plan, Ranges, make_plan, structure
from edgec.quantize.profiles import Profile
from edgec.quantize.recover.recovery import Recovery
from edgec.quantize.schemes import FORMULAS, SCHEMES, pass_of
from edgec.quantize.units import Unit, find_units
from edgec.quantize.weightonly import Narrowed, is_narrowed
from edgec.rewrite import Event, optimize

LEAST_OPSET = 13
"""Of QuantizeLinear with an axis: what an older model is written at."""

NOTHING: Mapping[str, str] = MappingProxyType({})
"""No layer is raised."""


@dataclass(frozen=True)
class Maker:
    """A calibrated float `graph`, which stays as it is, and how it is quantized.

    `samples` may be read several times; `exclude` are operators and names of nodes that stay in
    floats in any case.
    """

    graph: Graph
    profile: Profile
    ranges: Ranges
    samples: Iterable[Sample]
    exclude: Collection[str] = ()
    recovery: Recovery = field(default_factory=Recovery)
    scheme: str = "w8a8"

    def layers(self) -> list[Unit]:
        """What may be raised."""
        units = structure(self.graph, self.profile, self.exclude).units
        return [unit for unit in units if unit.kind == "product"]

    def plan(self, floats: Collection[str] = ()) -> Plan:
        """The plan in which the units `floats` are not integers."""
        return make_plan(self.graph, self.profile, self.ranges, {*self.exclude, *floats})

    def model(self, raised: Mapping[str, str] = NOTHING) -> tuple[Plan, onnx.ModelProto]:
        """The plan in which the layers `raised` are no integers, and its model, in which they are
        on those rungs, with weights and biases refined."""
        plan, graph = self.plan(raised), self.graph
        if self.recovery.refines:
            graph = graph.copy()
            self.recovery.after(graph, plan, self.profile, self.samples)
        return plan, self.write(plan, graph, raised)

    def alone(self, layer: str, rung: str) -> onnx.ModelProto:
        """The model in which `layer` is on `rung` and all others are floats."""
        raised = {unit.name: FLOAT32 for unit in self.layers()} | {layer: rung}
        if rung == self.scheme:
            del raised[layer]
        return self.write(self.plan(raised), self.graph, raised)

    def write(
        self, plan: Plan, graph: Graph | None = None, raised: Mapping[str, str] = NOTHING
    ) -> onnx.ModelProto:
        """The graph, or a copy with other biases, with `plan` written into it: a standard model."""
        twin = (graph or self.graph).copy()
        optimize(twin, [Insertion(plan, self.profile)])
        narrow(twin, self, raised)
        twin.source_opset = max(twin.source_opset, min(LEAST_OPSET, twin.opset))
        return twin.to_source_opset()


@dataclass(frozen=True)
class WeightMaker:
    """The same for a `scheme` of weights alone, or of activations that each run quantizes."""

    graph: Graph
    profile: Profile
    scheme: str
    formula: str
    samples: Iterable[Sample]
    exclude: Collection[str] = ()

    def layers(self) -> list[Unit]:
        """What may be raised."""
        units = find_units(self.graph, self.profile)[0]
        return [unit for unit in units if is_narrowed(unit, self.exclude)]

    def model(self, raised: Mapping[str, str] = NOTHING) -> tuple[Plan, onnx.ModelProto]:
        """What is quantized where the layers `raised` are on those rungs, and that model."""
        plan = Plan([], {}, {}, {})
        scheme = SCHEMES[self.scheme]

        def watch(event: Event) -> None:
            if event.kind == "rewrite":
                plan.units.append(event.node)
            elif event.kind == "skip":
                plan.left[event.node] = event.reason

        first = pass_of(scheme, self.formula, self.profile, {*self.exclude, *raised})
        twin = self.graph.copy()
        optimize(twin, [first], on_event=watch)
        narrow(twin, self, raised)
        opsets = [SCHEMES[rung].opset for rung in raised.values() if rung != FLOAT32]
        least = max(scheme.opset, FORMULAS[self.formula], *opsets)
        twin.source_opset = max(twin.source_opset, min(least, twin.opset))
        return plan, twin.to_source_opset()

    def alone(self, layer: str, rung: str) -> onnx.ModelProto:
        """The model in which `layer` is on `rung` and all others are floats."""
        raised = {unit.name: FLOAT32 for unit in self.layers()} | {layer: rung}
        if rung == self.scheme:
            del raised[layer]
        return self.model(raised)[1]


def narrow(graph: Graph, maker: Maker | WeightMaker, raised: Mapping[str, str]) -> None:
    """Bring layers of `graph` to the rungs, between integers and float32, that they are raised
    to."""
    names = {unit.name for unit in find_units(maker.graph, maker.profile)[0]}
    for rung in dict.fromkeys(raised.values()):
        if rung != FLOAT32:
            others = names - {layer for layer, at in raised.items() if at == rung}
            optimize(graph, [Narrowed(maker.profile, SCHEMES[rung].weights, exclude=others)])
