"""Order and copies of graphs."""

from __future__ import annotations

import heapq

import onnx_graphsurgeon as gs

from edgec.errors import PassError
from edgec.tensors import Constant, Node, Variable, inner_nodes


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


def copy(graph: gs.Graph) -> gs.Graph:
    """An independent copy of a main graph; the values of constants are shared."""
    return _Copier().graph(graph)


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
