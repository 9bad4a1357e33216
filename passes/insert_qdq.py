"""Quantize activations and weights to 8 bits, by ranges that calibration found.

    y = Relu(Conv(x, w, b))   =>   y = DequantizeLinear(QuantizeLinear(Relu(Conv(
                                     DequantizeLinear(QuantizeLinear(x)),
                                     DequantizeLinear(w8), DequantizeLinear(b32)))))

`ranges` are the least and the largest value of tensors, `x:-1:1+y:0:6`; `profile` says which
operators become integers, and of which type (`edgec.quantize`). The result of the last unit stays
in floats. `edgec quantize` finds the ranges and runs this.

*Needs* a range for each tensor that a unit reads, and a product (Conv, ConvTranspose, Gemm, MatMul)
that what surrounds it can be in integers with. Opset 13, or 10 without scales of channels.

*Numerics*: quantized. Results move by what 8 bits cannot hold; nothing is promised of values beyond
the ranges.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from edgec.errors import UsageError
from edgec.graph import Graph
from edgec.quantize.insert import insert
from edgec.quantize.plan import make_plan
from edgec.quantize.profiles import resolve
from edgec.quantize.units import name_of
from edgec.rewrite import Numerics, Pass, Skip
from edgec.tensors import Node


@dataclass(frozen=True)
class InsertQdq(Pass):
    ranges: tuple[str, ...] = ()
    profile: str = "portable"

    name: ClassVar[str] = "insert-qdq"
    numerics: ClassVar[Numerics] = "quantized"

    def run(self, graph: Graph) -> Iterator[Node | tuple[Node, Skip]]:
        if any(node.op == "QuantizeLinear" for node in graph.nodes()):
            return
        profile = resolve(self.profile)
        plan = make_plan(graph, profile, dict(map(_range, self.ranges)))
        for node in graph.nodes():
            reason = plan.left.get(name_of(node))
            if reason is not None:
                yield node, Skip(reason)
        yield from insert(graph, plan, profile)


def _range(text: str) -> tuple[str, tuple[float, float]]:
    name, low, high = ["", *text.rsplit(":", 2)][-3:]
    try:
        return name, (float(low), float(high))
    except ValueError:
        raise UsageError(
            f"'{text}' is no range", where="option 'ranges' of insert-qdq", hint="write x:-1:1"
        ) from None
