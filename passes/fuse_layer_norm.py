"""Fuse the layer normalisation that exporters write out.

    d = x - ReduceMean(x)
    d / Sqrt(ReduceMean(d^2) + epsilon) * scale + bias     =>   LayerNormalization(x, scale, bias)

d^2 may be Pow(d, 2) or d * d, the division a product with a Reciprocal; scale and bias may be
missing.

*Needs* float32, opset 17, both means over the last axes, kept, whose lengths are known, a scale and
bias of that shape (constants are broadcast to it), and intermediate results that nothing else uses.

*Numerics*: rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgec.graph import Graph
from edgec.normalized import affine, find_normalized
from edgec.patterns import (
    check_float32,
    check_opset,
    check_private,
    check_same_shape,
    maker,
    reduced_axes,
    substitute,
)
from edgec.rewrite import Numerics, Rewrite, Skip
from edgec.tensors import Node


@dataclass(frozen=True)
class FuseLayerNorm(Rewrite):
    name: ClassVar[str] = "fuse-layer-norm"
    numerics: ClassVar[Numerics] = "rounding"
    roots: ClassVar[tuple[str, ...]] = ("Sqrt",)

    def rewrite(self, node: Node, graph: Graph) -> None:
        check_opset("LayerNormalization", graph)
        found = find_normalized(node, graph)
        centred = maker(graph, found.data, "Sub")
        mean = maker(graph, centred.inputs[1], "ReduceMean") if centred else None
        if centred is None or mean is None or mean.inputs[0] is not centred.inputs[0]:
            raise Skip("the mean is not taken away first")
        if reduced_axes(mean) != found.axes:
            raise Skip("the two means are over different axes")
        x = centred.inputs[0]
        check_float32(x)
        chain = [found.last]
        operands = []
        for op in ("Mul", "Add"):
            part = affine(graph, chain[-1], op, found.shape)
            if part is None:
                break
            operands.append(part[0])
            chain.append(part[1])
        last = chain[-1]
        check_same_shape(last.outputs[0], x)
        check_private(graph, [*found.nodes, centred, mean, *chain], last)
        if not operands:
            ones = np.ones(found.shape, np.float32)
            operands = [graph.constant(ones, f"{last.outputs[0].name}_scale")]
        attrs = {"axis": found.axes[0] - len(x.shape), "epsilon": found.epsilon}
        substitute(graph, last, "LayerNormalization", [x, *operands], attrs)
