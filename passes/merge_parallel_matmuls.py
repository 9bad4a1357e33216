"""Make one product of several that multiply the same tensor with constants.

    y_i = MatMul(x, W_i)                =>   y_1, y_2, ... = Split(MatMul(x, [W_1 W_2 ...]))
    y_i = Add(MatMul(x, W_i), b_i)      =>   y_1, y_2, ... = Split(Add(MatMul(x, [W_i]), [b_i]))
    y_i = Relu(Conv(x, W_i, b_i))       =>   y_1, y_2, ... = Split(Relu(Conv(x, [W_i], [b_i])))

Gemm and Conv have their bias inside; any activation that all of them have stays behind the merged
one.

*Needs* weights that are constant and have no other use, matrices or ungrouped convolutions of equal
attributes, inner dimensions and types, and fewer nodes afterwards.

*Numerics*: rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from edgec.graph import Graph
from edgec.patterns import other_operand, reader
from edgec.rewrite import Numerics, Rewrite, Skip
from edgec.tensors import Constant, Node

Array = np.ndarray[Any, Any]

_ACTIVATIONS = (
    *("Clip", "Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "Relu", "Selu"),
    *("Sigmoid", "Softplus", "Swish", "Tanh"),
)


@dataclass(frozen=True)
class _Branch:
    """A product and what follows it: its Add of a bias, its activation."""

    node: Node
    weight: Array
    bias: Array | None
    added: Node | None
    activation: Node | None

    @property
    def nodes(self) -> list[Node]:
        return [n for n in (self.node, self.added, self.activation) if n is not None]

    @property
    def channels(self) -> int:
        return int(self.weight.shape[_out_axis(self.node)])

    def kind(self) -> object:
        """What branches that can be one have in common."""
        axis = _out_axis(self.node)
        act = self.activation
        given = [] if act is None else [t if t.name else None for t in act.inputs[1:]]
        return (
            self.node.op,
            self.node.owner,
            self.node.attrs,
            self.weight.dtype,
            (*self.weight.shape[:axis], *self.weight.shape[axis + 1 :]),
            self.added is None,
            None if act is None else (act.op, act.attrs, given),
        )


@dataclass(frozen=True)
class MergeParallelMatmuls(Rewrite):
    name: ClassVar[str] = "merge-parallel-matmuls"
    numerics: ClassVar[Numerics] = "rounding"
    roots: ClassVar[tuple[str, ...]] = ("MatMul", "Gemm", "Conv")

    def rewrite(self, node: Node, graph: Graph) -> None:
        first = _branch(node, graph)
        branches = [first]
        for other in graph.consumers(node.inputs[0]):
            if other is not node and other.op == node.op and not other.domain:
                try:
                    branch = _branch(other, graph)
                except Skip:
                    continue
                if branch.kind() == first.kind():
                    branches.append(branch)
        if len(branches) == 1:
            raise Skip("nothing of its kind reads its input")
        before, after = sum(len(b.nodes) for b in branches), len(first.nodes) + 1
        if after >= before:
            raise Skip(f"{after} nodes would take the place of {before}")

        axis = _out_axis(node)
        weight = np.concatenate([b.weight for b in branches], axis)
        inputs = [node.inputs[0], graph.constant(weight, node.inputs[1].name)]
        bias = _joined_bias(branches)
        if bias is not None and first.added is None:
            inputs.append(graph.constant(bias, node.inputs[1].name))
        last = graph.insert(node, node.op, inputs, node.attrs)
        if bias is not None and first.added is not None:
            added = graph.constant(bias, first.added.outputs[0].name)
            last = graph.insert(first.added, "Add", [last.outputs[0], added])
        if first.activation is not None:
            act = first.activation
            last = graph.insert(act, act.op, [last.outputs[0], *act.inputs[1:]], act.attrs)
        sizes = graph.constant(np.array([b.channels for b in branches], np.int64), "sizes")
        channel = 1 if node.op == "Conv" else -1
        split = graph.insert(
            node, "Split", [last.outputs[0], sizes], {"axis": channel}, outputs=len(branches)
        )
        for branch, tensor in zip(branches, list(split.outputs), strict=True):
            graph.replace(branch.nodes[-1].outputs[0], tensor)


def _out_axis(node: Node) -> int:
    return 0 if node.op == "Conv" or node.attrs.get("transB", 0) else 1


def _branch(node: Node, graph: Graph) -> _Branch:
    weight, result = node.inputs[1], node.outputs[0]
    if isinstance(node.inputs[0], Constant) or not isinstance(weight, Constant):
        raise Skip("it does not multiply a tensor with constant weights")
    if graph.uses(weight) > 1:
        raise Skip("the weights have other uses")
    if node.op != "Conv" and len(weight.shape) != 2:
        raise Skip("the weights are no matrix")
    if node.attrs.get("group", 1) != 1:
        raise Skip("the convolution has groups")
    if result.shape is None:
        raise Skip("the rank is not known")
    channels = weight.shape[_out_axis(node)]
    bias, added = None, None
    if node.op == "MatMul":
        added = _next(node, graph, "Add")
        other = None if added is None else other_operand(added, result)
        bias = None if other is None else _per_channel(other, len(result.shape), channels)
        added = None if bias is None else added
    elif len(node.inputs) > 2 and node.inputs[2].name:
        bias = _per_channel(node.inputs[2], 2, channels)
        if bias is None:
            raise Skip("the bias is not one constant per channel")
    last = added or node
    activation = _next(last, graph, *_ACTIVATIONS)
    if activation is not None and any(
        t.name and not isinstance(t, Constant) for t in activation.inputs[1:]
    ):
        activation = None
    return _Branch(node, weight.values, bias, added, activation)


def _next(node: Node, graph: Graph, *ops: str) -> Node | None:
    """The one of `ops` in the same graph that alone reads the result of `node`."""
    found = reader(graph, node.outputs[0], *ops)
    return found if found is not None and found.owner is node.owner else None


def _per_channel(tensor: gs.Tensor, rank: int, channels: int) -> Array | None:
    """A constant with `channels` numbers on its last axis, as a vector."""
    if not isinstance(tensor, Constant) or len(tensor.shape) > rank:
        return None
    if tensor.shape[-1:] != (channels,) or tensor.values.size != channels:
        return None
    return tensor.values.reshape(-1)


def _joined_bias(branches: Sequence[_Branch]) -> Array | None:
    if all(b.bias is None for b in branches):
        return None
    return np.concatenate(
        [np.zeros(b.channels, b.weight.dtype) if b.bias is None else b.bias for b in branches]
    )
