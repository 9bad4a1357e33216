"""Keep one of the constants that have the same type, shape and bytes.

    y = Add(x, c1); z = Mul(x, c2), c1 = c2     =>   y = Add(x, c1); z = Mul(x, c1)

*Needs* constants that nodes read; one that is a graph output keeps its name.

*Numerics*: exact.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from edgec.graph import Graph
from edgec.rewrite import Numerics, Pass, Skip
from edgec.tensors import Constant, Node

_Group: TypeAlias = list[tuple[Constant, Node]]
_FIRST = 16


@dataclass(frozen=True)
class EliminateDuplicateConstants(Pass):
    name: ClassVar[str] = "eliminate-duplicate-constants"
    numerics: ClassVar[Numerics] = "exact"

    def run(self, graph: Graph) -> Iterator[Node | tuple[Node, Skip]]:
        alike: dict[Hashable, _Group] = {}
        seen: set[Constant] = set()
        for node in graph.nodes():
            for tensor in node.inputs:
                if isinstance(tensor, Constant) and tensor not in seen:
                    seen.add(tensor)
                    if tensor.dtype.kind not in "OUST":
                        alike.setdefault((tensor.dtype, tensor.shape), []).append((tensor, node))
        for group in _by_first_numbers(alike.values()):
            kept: dict[bytes, Constant] = {}
            for tensor, node in group:
                first = kept.setdefault(hashlib.sha256(tensor.values.tobytes()).digest(), tensor)
                if first is tensor:
                    continue
                why = graph.why_not_replace(tensor, first)
                if why:
                    yield node, Skip(why)
                    continue
                graph.replace(tensor, first)
                yield node


def _by_first_numbers(groups: Iterable[_Group]) -> Iterator[_Group]:
    """The groups of several, split by what is cheap to compare."""
    for group in groups:
        begins: dict[bytes, _Group] = {}
        for tensor, node in group if len(group) > 1 else ():
            begin = tensor.values.reshape(-1)[:_FIRST].tobytes()
            begins.setdefault(begin, []).append((tensor, node))
        yield from (each for each in begins.values() if len(each) > 1)
