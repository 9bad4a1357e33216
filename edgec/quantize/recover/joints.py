"""Joints: where a factor for each channel may move from one layer into the next.

    y = W2 f(W1 x + b1)   =   (W2 s) f((W1 / s) x + b1 / s)        s > 0, one for each channel

The layer before is a Conv, Gemm, MatMul (with its bias) or LayerNormalization; those after are
convolutions and products with constant weights; f is what does not mind a positive factor: Relu,
LeakyRelu, pools, and padding by zero.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs

from edgec.arrays import Array
from edgec.graph import Graph
from edgec.patterns import other_operand, scalar
from edgec.rewrite import Skip
from edgec.tensors import Constant, Node

MAKERS = ("Conv", "Gemm", "LayerNormalization", "MatMul")
_POOLS = ("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool")
_FLOAT32 = np.dtype(np.float32)


@dataclass(frozen=True)
class Place:
    """The constant input of `node` at `position`, whose `axis` holds the channels.

    Of a convolution in groups that reads the channels, `groups` of them lie along axis 0 one after
    the other, and axis 1 has those of one group.
    """

    node: Node
    position: int
    axis: int
    groups: int = 1

    @property
    def values(self) -> Array:
        return np.asarray(self.node.inputs[self.position].values)

    def largest(self) -> Array:
        """The largest magnitude that each channel is multiplied with, or has."""
        values = np.abs(self.values.astype(np.float64))
        if self.groups > 1:
            split = values.reshape(self.groups, -1, *values.shape[1:])
            return np.asarray(split.max(axis=(1, *range(3, split.ndim)))).reshape(-1)
        return np.asarray(
            np.moveaxis(values, self.axis, 0).reshape(values.shape[self.axis], -1).max(1)
        )

    def scale(self, graph: Graph, factor: Array) -> None:
        """Multiply the constant by `factor`, one for each channel; its other readers are spared."""
        values = self.values
        if self.groups > 1:
            split = values.reshape(self.groups, -1, *values.shape[1:])
            laid = factor.reshape(self.groups, 1, -1, *[1] * (values.ndim - 2))
            product = (split * laid).reshape(values.shape)
        else:
            product = values * factor.reshape(
                [-1 if i == self.axis else 1 for i in range(values.ndim)]
            )
        old = self.node.inputs[self.position]
        self.node.inputs[self.position] = graph.constant(product.astype(values.dtype), old.name)


@dataclass
class Joint:
    """A `maker` of `channels`, the places that give them their size, and those that read them.

    The first of `before` are the maker's weights, or the scale of a LayerNormalization. `read` are
    the tensors that the readers get, and the axis of the channels in each.
    """

    maker: Node
    channels: int
    before: list[Place]
    after: list[Place] = field(default_factory=list)
    read: list[tuple[gs.Tensor, int]] = field(default_factory=list)

    def move(self, graph: Graph, factor: Array) -> None:
        """Divide the channels by `factor`, positive, and multiply what reads them."""
        for place in self.before:
            place.scale(graph, 1 / factor)
        for place in self.after:
            place.scale(graph, factor)


def find_joints(graph: Graph) -> list[Joint]:
    """The joints of the main graph, in its order."""
    found = []
    for node in graph.gs.nodes:
        if node.op in MAKERS and not node.domain:
            with contextlib.suppress(Skip):
                found.append(joint_of(node, graph))
    return found


def joint_of(node: Node, graph: Graph) -> Joint:
    """The joint that `node`, one of `MAKERS`, begins. Skips where a factor cannot move on."""
    joint = _begin(node)
    axis = 1 if node.op == "Conv" else len(node.outputs[0].shape) - 1
    _follow(node.outputs[0], axis, joint, graph)
    return joint


def _begin(node: Node) -> Joint:
    """A joint without readers yet."""
    result = node.outputs[0]
    if result.dtype != _FLOAT32 or result.shape is None:
        raise Skip("it does not compute in float32 of known rank")
    if node.op == "LayerNormalization" and node.attrs.get("axis", -1) % len(result.shape) != (
        len(result.shape) - 1
    ):
        raise Skip("it normalizes over more than the channels")
    axes = {"Conv": (0, 0), "LayerNormalization": (0, 0), "MatMul": (1, 0), "Gemm": (1, -1)}[
        node.op
    ]
    if node.op == "Gemm" and node.attrs.get("transB", 0):
        axes = (0, -1)
    places = []
    for position, axis in zip((1, 2), axes, strict=True):
        if len(node.inputs) > position and node.inputs[position].name:
            if not isinstance(node.inputs[position], Constant):
                raise Skip("its weights or bias are computed")
            rank = len(node.inputs[position].shape)
            places.append(Place(node, position, axis % rank if rank else 0))
    sizes = [place.values.shape[place.axis : place.axis + 1] for place in places]
    if node.op == "MatMul" and len(node.inputs[1].shape) != 2:
        raise Skip("its weights are no matrix")
    if len(set(sizes)) != 1 or not sizes[0]:
        raise Skip("its bias is no vector of channels")
    return Joint(node, sizes[0][0], places)


def _follow(tensor: gs.Tensor, axis: int, joint: Joint, graph: Graph) -> None:
    """Add to `joint` what reads `tensor`. Skips where that neither takes a factor nor passes it."""
    if graph.is_output(tensor):
        raise Skip("its result is an output")
    after = len(joint.after)
    for node in graph.consumers(tensor):
        if node.domain or node.owner is not joint.maker.owner:
            raise Skip("its result goes into a subgraph or another domain")
        place = _reads(node, tensor, axis)
        if place is not None:
            joint.after.append(place)
            continue
        onward = _passes(node, tensor, axis, joint)
        if onward is None:
            raise Skip(f"its result goes to {node.op}, which a factor cannot pass")
        _follow(node.outputs[0], onward, joint, graph)
    if any(place.node in graph.consumers(tensor) for place in joint.after[after:]):
        joint.read.append((tensor, axis))


def _reads(node: Node, tensor: gs.Tensor, axis: int) -> Place | None:
    """The weights of `node` by which channels of `tensor` along `axis` are multiplied."""
    if len(node.inputs) < 2 or node.inputs[0] is not tensor:
        return None
    if not isinstance(node.inputs[1], Constant):
        return None
    last = axis == len(tensor.shape) - 1
    if node.op == "Conv" and axis == 1:
        return Place(node, 1, 1, node.attrs.get("group", 1))
    if node.op == "MatMul" and last and len(node.inputs[1].shape) == 2:
        return Place(node, 1, 0)
    if node.op == "Gemm" and last and not node.attrs.get("transA", 0):
        return Place(node, 1, 1 if node.attrs.get("transB", 0) else 0)
    return None


def _passes(node: Node, tensor: gs.Tensor, axis: int, joint: Joint) -> int | None:
    """Where the channels are behind `node`; None where it is no function that a factor passes."""
    result = node.outputs[0]
    if node.op == "Add":
        return axis if _is_bias(other_operand(node, tensor), node, tensor, joint) else None
    if node.inputs[0] is not tensor:
        return None
    if node.op in ("Relu", "LeakyRelu"):
        return axis
    if node.op in _POOLS:
        return axis if axis == 1 and len(node.outputs) == 1 else None
    if node.op == "Pad":
        value = node.inputs[2] if len(node.inputs) > 2 and node.inputs[2].name else None
        zero = node.attrs.get("mode", "constant") == "constant" and (
            value is None or scalar(value) == 0
        )
        kept = result.shape is not None and result.shape[axis] == joint.channels
        return axis if zero and kept else None
    if node.op in ("Flatten", "Reshape", "Squeeze"):
        return _flattened(tensor, axis, result)
    return None


def _is_bias(bias: gs.Tensor | None, node: Node, tensor: gs.Tensor, joint: Joint) -> bool:
    """Whether `node` adds a number to each channel of a MatMul's result; it is then of `joint`."""
    if joint.maker.op != "MatMul" or tensor is not joint.maker.outputs[0]:
        return False
    if not isinstance(bias, Constant) or len(bias.shape) > len(tensor.shape):
        return False
    if bias.shape[-1:] != (joint.channels,) or math.prod(bias.shape) != joint.channels:
        return False
    joint.before.append(Place(node, node.inputs.index(bias), len(bias.shape) - 1))
    return True


def _flattened(tensor: gs.Tensor, axis: int, result: gs.Tensor) -> int | None:
    """Where channels are in rows of nothing else, [N, C, 1, 1] as [N, C]."""
    if result.shape is None or len(result.shape) != 2 or axis != 1:
        return None
    same = result.shape[1] == tensor.shape[1]
    return 1 if same and all(size == 1 for size in tensor.shape[2:]) else None
