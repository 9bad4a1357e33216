"""Join Relu and Clip, and clips of clips.

    Clip(Relu(x), a, b)              =>   Clip(x, max(a, 0), b)
    Relu(Clip(x, a, b)), b >= 0      =>   Clip(x, max(a, 0), b)
    Clip(Clip(x, a, b), c, d), c <= b   =>   Clip(x, max(a, c), min(b, d))
    Relu(Relu(x))                    =>   Relu(x)

*Needs* constant limits, or none, and a first result that nothing else uses.

*Numerics*: rounding. Only the sign of a zero can change.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgec.graph import Graph
from edgec.patterns import check_private, maker, scalar, substitute
from edgec.rewrite import Numerics, Rewrite, Skip
from edgec.tensors import Node, Variable


@dataclass(frozen=True)
class FuseReluClip(Rewrite):
    name: ClassVar[str] = "fuse-relu-clip"
    numerics: ClassVar[Numerics] = "rounding"
    roots: ClassVar[tuple[str, ...]] = ("Relu", "Clip")

    def rewrite(self, node: Node, graph: Graph) -> None:
        first = maker(graph, node.inputs[0], "Relu", "Clip")
        if first is None:
            raise Skip("its input is not made by Relu or Clip")
        (low, high), (lower, upper) = _limits(first), _limits(node)
        if lower > high:
            raise Skip("nothing lies between the limits of both")
        check_private(graph, [first], node)
        x = first.inputs[0]
        if first.op == node.op == "Relu":
            substitute(graph, node, "Relu", [x])
            return
        limits = max(low, lower), min(high, upper)
        kind = x.dtype if x.dtype is not None else node.outputs[0].dtype
        inputs = [
            Variable("")
            if math.isinf(value)
            else graph.constant(np.array(value, kind), f"{node.outputs[0].name}_{name}")
            for name, value in zip(("min", "max"), limits, strict=True)
        ]
        substitute(graph, node, "Clip", [x, *inputs])


def _limits(node: Node) -> tuple[float, float]:
    if node.op == "Relu":
        return 0.0, math.inf
    limits = [-math.inf, math.inf]
    for i, tensor in enumerate(node.inputs[1:3]):
        if tensor.name:
            value = scalar(tensor)
            if value is None or math.isnan(value):
                raise Skip("a limit is not constant")
            limits[i] = value
    return limits[0], limits[1]
