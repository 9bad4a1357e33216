"""The speed gate: layers that integers make no faster stay in floats.

Every unit has two times, in floats and in integers, and a tensor between a unit of one kind and a
reader of the other has to be converted. What is least in sum is the least cut of a graph: units on
the side of its source are floats, those on the side of its sink are integers. (Picard and Ratliff,
"Minimum cuts and related problems", 1975.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import networkx
import onnx_graphsurgeon as gs

from edgec.graph import Graph
from edgec.quantize.units import Unit
from edgec.report import table
from edgec.tensors import Constant, Node

MARGIN = 1.05
"""Floats have to be faster by this factor: what is less may be an error of measurement."""

_Place = str | tuple[str, str]
_INTEGERS, _FLOATS = ("side", "integers"), ("side", "floats")


@dataclass(frozen=True)
class Pair:
    """What a unit takes in floats, and what in integers."""

    floats: float
    integers: float


@dataclass(frozen=True)
class Times:
    """What units take, by name, and conversions of tensors, all in seconds or all in cycles.

    `origin` says where the times are from, `show` prints one. Units that are not in `units` were
    not timed apart from others.
    """

    units: Mapping[str, Pair]
    conversion: Callable[[gs.Tensor], float]
    origin: str
    show: Callable[[float], str]


@dataclass(frozen=True)
class Verdict:
    """Which units stay in `floats`, and why, by name; `times` are what decided."""

    floats: frozenset[str]
    reasons: Mapping[str, str]
    times: Times

    def to_dict(self) -> dict[str, Any]:
        """For JSON; times in microseconds where they were measured."""
        scale = 1e6 if self.times.origin == MEASURED else 1
        return {
            "origin": self.times.origin,
            "layers": {
                name: {
                    "floats": scale * pair.floats,
                    "integers": scale * pair.integers,
                    "stays_in_floats": name in self.floats,
                }
                for name, pair in self.times.units.items()
            },
        }

    def table(self) -> str:
        """The times of all units, those first that integers help most."""
        times = sorted(self.times.units.items(), key=lambda item: item[1].integers - item[1].floats)
        show = self.times.show
        rows = [
            (
                name,
                show(p.floats),
                show(p.integers),
                "floats" if name in self.floats else "integers",
            )
            for name, p in times
        ]
        header = (f"{self.times.origin}", "in floats", "in integers", "computed in")
        return table(header, rows, text=(0, 3))


MEASURED, MODELLED = "measured", "modelled"


def judge(graph: Graph, units: Iterable[Unit], times: Times) -> Verdict:
    """Which of `units`, all those of `graph` that could be integers, are faster in floats,
    conversions included."""
    units = list(units)
    borders = list(_borders(graph, units))
    network = networkx.DiGraph()
    network.add_nodes_from((_FLOATS, _INTEGERS))
    for unit in units:
        pair = times.units.get(unit.name, Pair(math.inf, 0.0))
        network.add_edge(unit.name, _INTEGERS, capacity=MARGIN * pair.floats)
        network.add_edge(_FLOATS, unit.name, capacity=pair.integers)
    for border in borders:
        _connect(network, border, times.conversion(border.tensor))
    # The side of the source is the least there is, so what takes the same is of integers.
    side = networkx.minimum_cut(network, _FLOATS, _INTEGERS)[1][0]
    floats = frozenset(unit.name for unit in units if unit.name in side)
    reasons = {name: _reason(name, floats, borders, times) for name in floats}
    return Verdict(floats, reasons, times)


@dataclass(frozen=True)
class _Border:
    """A tensor of floats, who makes it and who reads it: names of units, or what stays in floats in
    any case."""

    tensor: gs.Tensor
    maker: _Place
    readers: frozenset[_Place]

    def converted(self, floats: frozenset[str]) -> int:
        """How often it is, where these units are in floats."""
        sides = {reader == _FLOATS or reader in floats for reader in self.readers}
        return int((not (self.maker == _FLOATS or self.maker in floats)) in sides)


def _borders(graph: Graph, units: list[Unit]) -> Iterator[_Border]:
    makers: dict[gs.Tensor, _Place] = {t: unit.name for unit in units for t in unit.outputs}
    inner: dict[Node, _Place] = {node: unit.name for unit in units for node in unit.nodes}
    read = dict.fromkeys(t for unit in units for t in unit.inputs)
    for tensor in read:
        # What no unit reads is not among them: the last kernel of integers writes it as floats.
        if not isinstance(tensor, Constant):
            readers = {inner.get(node, _FLOATS) for node in graph.consumers(tensor)}
            if graph.is_output(tensor):
                readers.add(_FLOATS)
            yield _Border(tensor, makers.get(tensor, _FLOATS), frozenset(readers))


def _connect(network: Any, border: _Border, cost: float) -> None:
    """Let `cost` be cut once where the maker is on one side and any reader on the other."""
    quantized, dequantized = ((side, border.tensor.name) for side in ("to", "from"))
    network.add_edge(border.maker, quantized, capacity=cost)
    network.add_edge(dequantized, border.maker, capacity=cost)
    for reader in border.readers:
        network.add_edge(quantized, reader)
        network.add_edge(reader, dequantized)


def _reason(name: str, floats: frozenset[str], borders: Iterable[_Border], times: Times) -> str:
    pair, show = times.units[name], times.show
    text = f"{times.origin}: {show(pair.floats)} in floats, {show(pair.integers)} in integers"
    more = sum(
        times.conversion(border.tensor)
        * (border.converted(floats - {name}) - border.converted(floats))
        for border in borders
    )
    return f"{text} and {show(more)} for conversions" if more > 0 else text
