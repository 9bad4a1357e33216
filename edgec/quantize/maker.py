"""What makes quantized models of one calibrated graph, with more or fewer layers in integers."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

import onnx

from edgec.data import Sample
from edgec.graph import Graph
from edgec.quantize.insert import Insertion
from edgec.quantize.plan import Plan, Ranges, make_plan
from edgec.quantize.profiles import Profile
from edgec.quantize.recover.recovery import Recovery
from edgec.rewrite import optimize

LEAST_OPSET = 13
"""Of QuantizeLinear with an axis: what an older model is written at."""


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

    def plan(self, floats: Collection[str] = ()) -> Plan:
        """The plan in which the units `floats` are not integers."""
        return make_plan(self.graph, self.profile, self.ranges, {*self.exclude, *floats})

    def model(self, floats: Collection[str] = ()) -> tuple[Plan, onnx.ModelProto]:
        """That plan and its model, with weights and biases refined."""
        plan, graph = self.plan(floats), self.graph
        if self.recovery.refines:
            graph = graph.copy()
            self.recovery.after(graph, plan, self.profile, self.samples)
        return plan, self.write(plan, graph)

    def write(self, plan: Plan, graph: Graph | None = None) -> onnx.ModelProto:
        """The graph, or a copy with other biases, with `plan` written into it: a standard model."""
        twin = (graph or self.graph).copy()
        optimize(twin, [Insertion(plan, self.profile)])
        twin.source_opset = max(twin.source_opset, min(LEAST_OPSET, twin.opset))
        return twin.to_source_opset()
