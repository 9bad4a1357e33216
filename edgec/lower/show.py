"""What lowering makes of a graph, as text for people; `winograd` as `lower_graph` takes it."""

from __future__ import annotations

from collections.abc import Callable

from edgec.graph import Graph
from edgec.lower.build import symbol_of
from edgec.lower.convert import to_relax
from edgec.lower.kernels import generate, lower
from edgec.lower.lowering import fusion, lower_graph
from edgec.targets import Target
from edgec.targets.cpu import schedule


def relax_text(graph: Graph, target: Target, winograd: int) -> str:
    """The graph as Relax operators, and as calls of fused kernels; the same for every target."""
    operators = to_relax(graph, target.channel_block, winograd, target.dots)
    *_, fused = fusion(operators)
    return f"{operators.script()}\n\n{fused['main'].script()}\n"


def tir_text(graph: Graph, target: Target, winograd: int) -> str:
    """The scheduled loops of every kernel."""
    kernels = lower_graph(graph, "model", [], target, winograd).kernels
    return "\n\n".join(
        f"# {name}\n{schedule(function, target).script()}" for name, function in kernels.items()
    )


def asm_text(graph: Graph, target: Target, winograd: int) -> str:
    """The assembly of every kernel."""
    parts = []
    for name, function in lower_graph(graph, "model", [], target, winograd).kernels.items():
        module = lower(schedule(function, target), symbol_of(function), target, overwrites=None)
        parts.append(f"# {name}\n{generate(module, target).inspect_source('asm')}")
    return "\n".join(parts)


FORMS: dict[str, Callable[[Graph, Target, int], str]] = {
    "relax": relax_text,
    "tir": tir_text,
    "asm": asm_text,
}
