"""Which tensors of a quantized model stand for which of the float one.

Names match where what reads the tensors matches too, seen through QuantizeLinear and
DequantizeLinear: a BatchNormalization folded into a convolution leaves the convolution's name on
another value. Where a quantizer took a Relu or Clip away because the grid ends there, what came out
of that is what the tensor stands for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import onnx_graphsurgeon as gs

from edgec.arrays import Array, is_float
from edgec.graph import Graph
from edgec.patterns import maker, reader
from edgec.tensors import Constant, Node

_CLAMPS = ("Relu", "Clip")
_MOVES = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity")
_FIRST_CHANNELS = ("Conv", "ConvTranspose", "BatchNormalization")


@dataclass(frozen=True)
class Grid:
    """The numbers that a quantized tensor can hold: from `low` to `high`, `step` apart (0 where
    they are floats of 8 bits). These have one element, or one for each channel, and broadcast."""

    dtype: str
    low: Array
    high: Array
    step: Array

    def __str__(self) -> str:
        kind = f"{self.dtype} x {self.low.size}" if self.low.size > 1 else self.dtype
        return f"{kind} {self.low.min():.4g}..{self.high.max():.4g}"


@dataclass(frozen=True)
class Pair:
    """A tensor in both models.

    `float` is in the float graph. In the quantized one `made` is what the layer makes, and `seen`
    what its readers get: the same, or `made` quantized to `grid` and back. `node` is the layer,
    None for an input of the model. `weight` holds the layer's weights in the float model, and the
    tensor that has them in the quantized one.
    """

    float: gs.Tensor
    made: gs.Tensor
    seen: gs.Tensor
    node: Node | None
    grid: Grid | None
    weight: tuple[Array, gs.Tensor] | None

    @property
    def name(self) -> str:
        """The name in the quantized model."""
        return str(self.made.name)

    @property
    def op(self) -> str:
        """The layer's operator; empty for an input of the model."""
        return "" if self.node is None else str(self.node.op)

    @property
    def channel_axis(self) -> int:
        """Where the channels of the tensor lie: 1 of images, or else the last, -1."""
        rank = len(self.made.shape) if self.made.shape is not None else 0
        return 1 if rank > 3 or (rank == 3 and self.op in _FIRST_CHANNELS) else -1


def match(plain: Graph, quantized: Graph) -> list[Pair]:
    """The pairs of float tensors of `plain` and `quantized`, in the order of the latter."""
    known = {t.name: t for t in _computed(plain)}
    names = {t.name for t in _computed(quantized)}
    pairs = []
    for tensor in _computed(quantized):
        twin = known.get(tensor.name)
        if twin is not None:
            twin = _same(twin, plain, tensor, quantized, names)
        if twin is not None:
            pairs.append(_pair(twin, plain, tensor, quantized))
    return pairs


def _computed(graph: Graph) -> Iterator[gs.Tensor]:
    """The float tensors of the main graph that are no constants."""
    outputs = (t for node in graph.gs.nodes for t in node.outputs)
    for tensor in (*graph.gs.inputs, *outputs):
        if tensor.name and tensor.dtype is not None and is_float(tensor.dtype):
            yield tensor


def _same(
    twin: gs.Tensor, plain: Graph, tensor: gs.Tensor, quantized: Graph, names: set[str]
) -> gs.Tensor | None:
    """What of `plain` holds the values of `tensor`: `twin`, what it is clamped to, or nothing."""
    wanted = _readers(tensor, quantized)
    if _readers(twin, plain) == wanted:
        return twin
    clamp = reader(plain, twin, *_CLAMPS)
    if clamp is not None and clamp.outputs[0].name not in names:
        clamped = clamp.outputs[0]
        return clamped if _readers(clamped, plain) == wanted else None
    return None


def _readers(tensor: gs.Tensor, graph: Graph) -> Counter[str]:
    """The operators that read `tensor`, also through QuantizeLinear and DequantizeLinear."""
    found = Counter({"output": 1} if graph.is_output(tensor) else {})
    for node in graph.consumers(tensor):
        if node.op in ("QuantizeLinear", "DequantizeLinear"):
            found += _readers(node.outputs[0], graph)
        else:
            found[node.op] += 1
    return found


def _pair(twin: gs.Tensor, plain: Graph, tensor: gs.Tensor, quantized: Graph) -> Pair:
    seen, grid = _quantized(tensor, quantized)
    node = _layer(tensor, quantized)
    return Pair(twin, tensor, seen, node, grid, _weight(twin, plain, node, quantized))


def _quantized(tensor: gs.Tensor, graph: Graph) -> tuple[gs.Tensor, Grid | None]:
    """What readers of `tensor` get, and the grid that holds it."""
    for node in graph.consumers(tensor):
        if node.op == "QuantizeLinear":
            back = next(
                (n for n in graph.consumers(node.outputs[0]) if n.op == "DequantizeLinear"), None
            )
            if back is not None:
                return back.outputs[0], _grid(back)
    back = maker(graph, tensor, "DequantizeLinear")
    if back is not None and maker(graph, back.inputs[0], "QuantizeLinear") is not None:
        return tensor, _grid(back)
    return tensor, None


def _grid(node: Node) -> Grid | None:
    """The grid of a DequantizeLinear; None where its scale is computed, or of blocks."""
    parameters = [t for t in node.inputs[1:] if t.name]
    if not all(isinstance(t, Constant) for t in parameters) or node.attrs.get("block_size", 0):
        return None
    scale = parameters[0].values.astype(np.float64)
    dtype = node.inputs[0].dtype
    zero = np.zeros_like(scale)
    if len(parameters) > 1:
        zero, dtype = parameters[1].values.astype(np.float64), parameters[1].dtype
    if dtype is None:
        return None
    if scale.size > 1 and node.inputs[0].shape is not None:
        rank = len(node.inputs[0].shape)
        laid = [-1 if i == node.attrs.get("axis", 1) % rank else 1 for i in range(rank)]
        scale, zero = scale.reshape(laid), zero.reshape(laid)
    least, most = _ends(dtype)
    step = np.zeros_like(scale) if is_float(dtype) else scale
    return Grid(np.dtype(dtype).name, scale * (least - zero), scale * (most - zero), step)


def _ends(dtype: np.dtype[np.generic]) -> tuple[float, float]:
    about = ml_dtypes.finfo if is_float(dtype) else ml_dtypes.iinfo
    info = about(dtype)
    return float(info.min), float(info.max)


def _layer(tensor: gs.Tensor, graph: Graph) -> Node | None:
    """The node that makes `tensor`, before it is quantized."""
    node = graph.producer(tensor)
    while node is not None and node.op in ("QuantizeLinear", "DequantizeLinear"):
        node = graph.producer(node.inputs[0])
    return node


def _weight(
    twin: gs.Tensor, plain: Graph, node: Node | None, quantized: Graph
) -> tuple[Array, gs.Tensor] | None:
    """The constant matrix or kernel of the layer in both models, where it is quantized."""
    own = plain.producer(twin)
    while own is not None and node is not None and own.op != node.op and own.op in _CLAMPS:
        own = plain.producer(own.inputs[0])
    if own is None or node is None or own.op != node.op:
        return None
    for mine, other in zip(own.inputs, node.inputs, strict=False):
        if (
            isinstance(mine, Constant)
            and not isinstance(other, Constant)
            and is_float(mine.dtype)
            and len(mine.shape) > 1
            and _is_constant(other, quantized)
            and (other.shape is None or tuple(other.shape) == tuple(mine.shape))
        ):
            return mine.values, other
    return None


def _is_constant(tensor: gs.Tensor, graph: Graph) -> bool:
    """Whether `tensor` is dequantized from constants, and perhaps moved."""
    node = graph.producer(tensor)
    while node is not None and node.op in (*_MOVES, "QuantizeLinear", "DequantizeLinear"):
        if isinstance(node.inputs[0], Constant):
            return True
        node = graph.producer(node.inputs[0])
    return False
