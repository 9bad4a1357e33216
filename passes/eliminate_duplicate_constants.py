"""Keep one of the constants that have the same type, shape and bytes.

    y = Add(x, c1); z = Mul(x, c2), c1 = c2     =>   y = Add(x, c1); z = Mul(x, c1)

*Needs* constants that nodes read; one that is a graph output keeps its name.

*Numerics*: exact.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from edgec.graph import Graph
from edgec.rewrite import Numerics, Pass, Skip
from edgec.tensors import Constant, Node


@dataclass(frozen=True)
class EliminateDuplicateConstants(Pass):
    name: ClassVar[str] = "eliminate-duplicate-constants"
    numerics: ClassVar[Numerics] = "exact"

    def run(self, graph: Graph) -> Iterator[Node | tuple[Node, Skip]]:
        alike: dict[Hashable, list[tuple[Constant, Node]]] = {}
        seen: set[Constant] = set()
        for node in graph.nodes():
            for tensor in node.inputs:
                if isinstance(tensor, Constant) and tensor not in seen:
                    seen.add(tensor)
                    if tensor.dtype.kind not in "OUST":
                        alike.setdefault((tensor.dtype, tensor.shape), []).append((tensor, node))
        for group in alike.values():
            kept: dict[bytes, Constant] = {}
            for tensor, node in group if len(group) > 1 else ():
                first = kept.setdefault(hashlib.sha256(tensor.values.tobytes()).digest(), tensor)
                if first is tensor:
                    continue
                why = graph.why_not_replace(tensor, first)
                if why:
                    yield node, Skip(why)
                    continue
                graph.replace(tensor, first)
                yield node
