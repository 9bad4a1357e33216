"""Fuse the root-mean-square normalisation that exporters write out.

    x / Sqrt(ReduceMean(x^2) + epsilon) * scale     =>   RMSNormalization(x, scale)

x^2 may be Pow(x, 2) or x * x, the division a product with a Reciprocal; scale may be missing.

*Needs* float32, opset 23, a mean over the last axes, kept, whose lengths are known, a scale of that
shape (a constant is broadcast to it), and intermediate results that nothing else uses.

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
    substitute,
)
from edgec.rewrite import Numerics, Rewrite
from edgec.tensors import Node


@dataclass(frozen=True)
class FuseRmsNorm(Rewrite):
    name: ClassVar[str] = "fuse-rms-norm"
    numerics: ClassVar[Numerics] = "rounding"
    roots: ClassVar[tuple[str, ...]] = ("Sqrt",)

    def rewrite(self, node: Node, graph: Graph) -> None:
        check_opset("RMSNormalization", graph)
        found = find_normalized(node, graph)
        x = found.data
        check_float32(x)
        scaled = affine(graph, found.last, "Mul", found.shape)
        last = scaled[1] if scaled else found.last
        check_same_shape(last.outputs[0], x)
        check_private(graph, [*found.nodes, found.last], last)
        if scaled:
            scale = scaled[0]
        else:
            scale = graph.constant(
                np.ones(found.shape, np.float32), f"{last.outputs[0].name}_scale"
            )
        attrs = {"axis": found.axes[0] - len(x.shape), "epsilon": found.epsilon}
        substitute(graph, last, "RMSNormalization", [x, scale], attrs)
