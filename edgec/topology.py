"""Order, soundness and copies of graphs."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from typing import TypeAlias

import onnx_graphsurgeon as gs

from edgec.errors import PassError
from edgec.tensors import Constant, Node, Variable, inner_nodes, subgraphs


def sort(graph: gs.Graph) -> None:
    """Put `graph.nodes` in topological order, as near to the present order as possible."""
    position = {node: i for i, node in enumerate(graph.nodes)}
    makers: list[set[int]] = []
    for node in graph.nodes:
        needed: set[int] = set()
        for user in (node, *inner_nodes(node)):
            for tensor in user.inputs:
                maker = tensor.inputs[0] if tensor.inputs else None
                if maker in position and maker is not node:
                    needed.add(position[maker])
        makers.append(needed)
    if all(not needed or max(needed) < i for i, needed in enumerate(makers)):
        return
    users: list[list[int]] = [[] for _ in makers]
    for i, needed in enumerate(makers):
        for maker_index in needed:
            users[maker_index].append(i)
    waiting = [len(needed) for needed in makers]
    ready = [i for i, count in enumerate(waiting) if not count]
    order: list[int] = []
    while ready:
        i = heapq.heappop(ready)
        order.append(i)
        for user_index in users[i]:
            waiting[user_index] -= 1
            if not waiting[user_index]:
                heapq.heappush(ready, user_index)
    if len(order) < len(makers):
        stuck = next(i for i, count in enumerate(waiting) if count)
        raise PassError("the graph has a cycle", where=str(graph.nodes[stuck]))
    graph.nodes = [graph.nodes[i] for i in order]


def check(graph: gs.Graph) -> None:
    """Raise PassError unless every tensor has one name and is made once, before it is used."""
    names: dict[str, gs.Tensor] = {}
    _check(graph, names, set())


def _check(graph: gs.Graph, names: dict[str, gs.Tensor], outer: set[gs.Tensor]) -> None:
    made = set(outer)

    def name(tensor: gs.Tensor, where: str) -> None:
        if names.setdefault(tensor.name, tensor) is not tensor:
            raise PassError(f"two tensors are named '{tensor.name}'", where=where)

    def make(tensor: gs.Tensor, where: str) -> None:
        if not tensor.name:
            return
        if tensor in made or isinstance(tensor, Constant):
            raise PassError(f"tensor '{tensor.name}' is made twice", where=where)
        name(tensor, where)
        made.add(tensor)

    def use(tensor: gs.Tensor, where: str) -> None:
        if isinstance(tensor, Constant):
            name(tensor, where)
        elif tensor.name and tensor not in made:
            raise PassError(f"tensor '{tensor.name}' is used before it is made", where=where)

    for tensor in graph.inputs:
        make(tensor, "graph input")
    for node in graph.nodes:
        where = str(node)
        if node.owner is not graph:
            raise PassError("the node is in another graph than it says", where=where)
        for tensor in node.inputs:
            use(tensor, where)
        for value in node.attrs.values():
            if isinstance(value, gs.Graph):
                _check(value, names, made)
        for tensor in node.outputs:
            make(tensor, where)
    for tensor in graph.outputs:
        use(tensor, "graph output")


Places: TypeAlias = dict[gs.Tensor, list[tuple[gs.Graph, int]]]


def places_of_outputs(graph: gs.Graph) -> Places:
    """The graphs, of `graph` and those inside it, that yield a tensor, and as which output."""
    places: Places = {}
    for inner in subgraphs(graph):
        for index, tensor in enumerate(inner.outputs):
            places.setdefault(tensor, []).append((inner, index))
    return places


def copy(graph: gs.Graph) -> gs.Graph:
    """An independent copy of a main graph; the values of constants are shared."""
    return _Copier().graph(graph)


def instantiate(
    body: gs.Graph, inputs: Sequence[gs.Tensor], fresh: Callable[[str], str]
) -> tuple[list[Node], list[gs.Tensor]]:
    """Copies of the nodes of a subgraph, which read `inputs` for its inputs, and its outputs.

    Constants and the tensors that the subgraph takes from around it are shared. `fresh` turns a
    name into one that is not taken. A symbolic size may stand for another one in each copy, so it
    becomes unknown.
    """
    copier = _Instantiator(body, fresh)
    copier.tensors.update(zip(body.inputs, inputs, strict=True))
    nodes = [copier.node(node) for node in body.nodes]
    return nodes, [copier.tensor(t) for t in body.outputs]


class _Copier:
    def __init__(self) -> None:
        self.tensors: dict[gs.Tensor, gs.Tensor] = {}

    def tensor(self, tensor: gs.Tensor) -> gs.Tensor:
        if tensor not in self.tensors:
            if isinstance(tensor, Constant):
                new: gs.Tensor = tensor.twin()
            else:
                new = Variable(tensor.name, tensor.dtype, tensor.shape)
                new.value_type, new.info = tensor.value_type, tensor.info
            self.tensors[tensor] = new
        return self.tensors[tensor]

    def graph(self, graph: gs.Graph) -> gs.Graph:
        nodes = [self.node(node) for node in graph.nodes]
        inputs = [self.tensor(t) for t in graph.inputs]
        outputs = [self.tensor(t) for t in graph.outputs]
        new = gs.Graph(nodes, inputs, outputs, graph.name, graph.doc_string, graph.opset)
        new.metadata = dict(graph.metadata)
        for node in nodes:
            node.owner = new
        return new

    def node(self, node: Node) -> Node:
        attrs = {
            name: self.graph(value) if isinstance(value, gs.Graph) else value
            for name, value in node.attrs.items()
        }
        return Node(
            node.op,
            node.name,
            attrs,
            [self.tensor(t) for t in node.inputs],
            [self.tensor(t) for t in node.outputs],
            node.domain,
            doc_string=node.doc_string,
            metadata=node.metadata,
        )


class _Instantiator(_Copier):
    def __init__(self, body: gs.Graph, fresh: Callable[[str], str]) -> None:
        super().__init__()
        self.fresh = fresh
        self.made = {t for graph in subgraphs(body) for t in graph.inputs}
        self.made.update(t for g in subgraphs(body) for n in g.nodes for t in n.outputs)

    def tensor(self, tensor: gs.Tensor) -> gs.Tensor:
        if tensor in self.tensors:
            return self.tensors[tensor]
        if tensor not in self.made and tensor.name:
            return tensor
        new = super().tensor(tensor)
        new.name = self.fresh(tensor.name) if tensor.name else ""
        if new.shape is not None:
            new.shape = tuple(d if isinstance(d, int) else None for d in new.shape)
        return new

    def node(self, node: Node) -> Node:
        new = super().node(node)
        new.name = self.fresh(node.name) if node.name else ""
        return new
