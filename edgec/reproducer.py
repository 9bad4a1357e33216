"""The least that shows a pass to be wrong: a few nodes, their inputs, one command.

The first wrong rewrite of the pass is searched for, the nodes it changed are cut out of the model,
then neighbours are added until the pass is wrong again, and nodes dropped for as long as it stays
so. Where no part of the model will do, because only all of it together shows the fault, the whole
model is the answer.
"""

from __future__ import annotations

import shlex
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path

import onnx

from edgec.arrays import save_npz
from edgec.data import Sample
from edgec.errors import DataError, EdgecError, VerifyError
from edgec.external import save_model, write_file
from edgec.graph import Graph
from edgec.passproof import Complaint, Outcome, check, outcomes, samples
from edgec.peers import EngineError
from edgec.reference import Reference
from edgec.rewrite import AnyPass, optimize
from edgec.tensors import Constant, Node, Variable, inner_graphs, inner_nodes

MAX_STEPS = 4
"""Rings of neighbours that are tried around the nodes of a rewrite."""

MAX_DROPS = 40
"""Nodes of a part that shows the fault; of a larger one none are dropped."""


def smallest(
    before: Graph, rewriter: AnyPass, expected: list[Outcome], complaint: Complaint
) -> tuple[Graph, Complaint]:
    """The least part of `before` on which `rewriter` is wrong, and how it is.

    `expected` is what `before` gives and `complaint` how it is wrong on the whole; both come back
    where no part is wrong.
    """
    try:
        good, bad = _around_the_fault(before, rewriter, expected)
    except EdgecError:
        return before, complaint
    kept = _changed(good, bad)
    for _ in range(MAX_STEPS):
        found = _complaint(good, kept, rewriter, complaint)
        if found:
            return _dropping(good, kept, rewriter, complaint, found)
        kept |= _neighbours(good, kept)
    return before, complaint


def write_reproducer(folder: Path, before: Graph, complaint: Complaint, command: list[str]) -> Path:
    """Write before.onnx, inputs.npz, expected.npz, actual.npz, complaint.txt and command.sh.

    Returns the folder. Raises VerifyError where it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_npz(folder / "inputs.npz", complaint.expected.inputs)
        save_npz(folder / "expected.npz", complaint.expected.outputs)
        save_npz(folder / "actual.npz", complaint.actual)
        save_model(before.to_source_opset(), folder / "before.onnx")
        write_file(folder / "complaint.txt", [f"{complaint.text}\n".encode()])
        write_file(folder / "command.sh", [f"{shlex.join(command)}\n".encode()])
    except (OSError, DataError) as error:
        raise VerifyError(f"no reproducer can be written: {error}", where=str(folder)) from error
    return folder


def _around_the_fault(
    before: Graph, rewriter: AnyPass, expected: list[Outcome]
) -> tuple[Graph, Graph]:
    """The graph before and after the first rewrite that makes the model wrong."""
    model = before.to_source_opset()

    def prefix(count: int | None) -> tuple[Graph, int]:
        graph = before.copy()
        (report,) = optimize(graph, [rewriter], stop_after=count)
        return graph, report.rewrites

    good, right = before, 0
    bad, wrong = prefix(None)
    while wrong - right > 1:
        middle = (right + wrong) // 2
        graph, _ = prefix(middle)
        found, _ = check(graph.to_source_opset(), expected, rewriter.numerics, before=model)
        if found is None:
            good, right = graph, middle
        else:
            bad, wrong = graph, middle
    return good, bad


def _changed(good: Graph, bad: Graph) -> set[Node]:
    """The nodes of `good` that are not in `bad`, or not as they were."""
    left = {_identity(node) for node in bad.gs.nodes}
    return {node for node in good.gs.nodes if _identity(node) not in left}


def _identity(node: Node) -> Hashable:
    names = [tuple(t.name for t in tensors) for tensors in (node.inputs, node.outputs)]
    attributes = {
        name: value.values.tobytes() if isinstance(value, Constant) else repr(value)
        for name, value in node.attrs.items()
        if not hasattr(value, "nodes")
    }
    inner = tuple(_identity(each) for graph in inner_graphs(node) for each in graph.nodes)
    return (node.op, node.domain, *names, frozenset(attributes.items()), inner)


def _reads(node: Node) -> Iterator[Variable]:
    """The computed tensors that `node` reads, in its subgraphs too."""
    for user in (node, *inner_nodes(node)):
        yield from (t for t in user.inputs if t.name and isinstance(t, Variable))


def _neighbours(graph: Graph, kept: set[Node]) -> set[Node]:
    """The nodes of the main graph that make what `kept` reads, or read what it makes."""
    made = {t for node in kept for t in node.outputs}
    read = {t for node in kept for t in _reads(node)}
    return {
        node
        for node in graph.gs.nodes
        if read.intersection(node.outputs) or made.intersection(_reads(node))
    }


def _part(graph: Graph, kept: set[Node]) -> Graph:
    """A model of the nodes `kept` of `graph`, in which what lies between them and the rest is an
    input or an output."""
    outside = {t.name for node in graph.gs.nodes if node not in kept for t in _reads(node)}
    outside |= {t.name for t in graph.gs.outputs}
    part = graph.copy()
    pairs = list(zip(graph.gs.nodes, part.gs.nodes, strict=True))
    nodes = [twin for node, twin in pairs if node in kept]
    for node, twin in pairs:
        if node not in kept:
            for user in (twin, *inner_nodes(twin)):
                user.inputs.clear()
                user.outputs.clear()
    made = {t for node in nodes for user in (node, *inner_nodes(node)) for t in user.outputs}
    made |= {t for node in nodes for user in (node, *inner_nodes(node)) for t in _formal(user)}
    part.gs.nodes = nodes
    part.gs.inputs = list(dict.fromkeys(t for n in nodes for t in _reads(n) if t not in made))
    part.gs.outputs = [t for node in nodes for t in node.outputs if t.name in outside]
    part.sweep()
    return part


def _formal(node: Node) -> Iterator[Variable]:
    for graph in inner_graphs(node):
        yield from graph.inputs


def _complaint(
    graph: Graph, kept: set[Node], rewriter: AnyPass, whole: Complaint
) -> tuple[Graph, Complaint] | None:
    """The part of `graph` that `kept` makes, and what is wrong after `rewriter`, if anything is.

    It must be wrong on the samples that the command will take; the inputs that are kept are those
    of the run of the whole model, where they show it as well.
    """
    if not kept:
        return None
    try:
        part = _part(graph, kept)
        model = part.to_source_opset()
        after = part.copy()
        optimize(after, [rewriter])
        changed = after.to_source_opset()
        found, _ = check(changed, outcomes(model, samples(part)), rewriter.numerics, before=model)
        if found is None:
            return None
        names = [tensor.name for tensor in part.gs.inputs]
        given = {"of the whole model": _values(graph, names, whole.expected.inputs)}
        real, _ = check(changed, outcomes(model, given), rewriter.numerics, before=model)
    except (EdgecError, EngineError):
        return None
    return part, real or found


def _values(graph: Graph, names: Sequence[str], inputs: Sample) -> Sample:
    """What the tensors `names` hold when ONNX Runtime runs `graph` on `inputs`."""
    model = graph.to_source_opset()
    outputs = {output.name for output in model.graph.output}
    wanted = [name for name in names if name not in inputs]
    model.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in wanted if name not in outputs
    )
    with Reference(model) as engine:
        values, _ = engine.run(inputs)
    return {name: inputs[name] if name in inputs else values[name] for name in names}


def _dropping(
    graph: Graph,
    kept: set[Node],
    rewriter: AnyPass,
    whole: Complaint,
    found: tuple[Graph, Complaint],
) -> tuple[Graph, Complaint]:
    """`found` with fewer nodes, as long as it is wrong without them."""
    if len(kept) > MAX_DROPS:
        return found
    for node in [node for node in graph.gs.nodes if node in kept]:
        fewer = _complaint(graph, kept - {node}, rewriter, whole)
        if fewer:
            kept, found = kept - {node}, fewer
    return found
