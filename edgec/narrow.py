"""Computing in a 16-bit float where the graph computes in float32."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import ml_dtypes
import numpy as np
import onnx
import onnx_graphsurgeon as gs

from edgec.errors import UsageError
from edgec.graph import Graph
from edgec.rewrite import Pass, Skip
from edgec.tensors import Constant, Node, Variable, inner_graphs, onnx_dtype

_FLOAT32 = np.dtype(np.float32)

DELICATE = frozenset(
    [
        *("BatchNormalization", "InstanceNormalization", "LpNormalization"),
        *("GlobalAveragePool", "GlobalLpPool", "LpPool", "Det", "DFT"),
        *("CumProd", "CumSum", "Exp", "Log", "LogSoftmax", "Pow", "Range", "Softmax", "Softplus"),
        *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMean", "ReduceProd"),
        *("ReduceSum", "ReduceSumSquare", "NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"),
        *("DequantizeLinear", "DynamicQuantizeLinear", "QuantizeLinear", "STFT"),
    ]
)
"""Operators that add up many values without a wider accumulator that ONNX prescribes, grow beyond
the range, or whose scales matter to every bit."""

_MOVERS = frozenset(
    [
        *("Cast", "Compress", "Concat", "DepthToSpace", "Expand", "Flatten", "Gather"),
        *("GatherElements", "GatherND", "Identity", "Pad", "Reshape", "ReverseSequence", "Shape"),
        *("Size", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
    ]
)
"""Operators that do not compute: among themselves they are not worth a Cast."""

# The bits of a number, and what ONNX defines as a function with constants of float32.
_FLOAT32_ALONE = frozenset(("BitCast", "MeanVarianceNormalization"))

# Whose constants bound a result: one beyond the range bounds nothing.
_BOUNDS = frozenset(("Clip", "Max", "Min"))

# Whose constants are factors: each element counts, not only the largest.
_FACTORS = frozenset(("Div", "Mul", "PRelu"))


@dataclass(frozen=True)
class Narrow(Pass):
    """Converts what it can of the main graph to `dtype`, with a Cast where that begins and ends.

    With `keep_io` the inputs and outputs of the model stay as they are. `keep` are operators and
    names of nodes that stay, besides those of `DELICATE`, which `delicate` converts as well.
    Raises UsageError for one that is neither.
    """

    keep_io: bool = True
    keep: tuple[str, ...] = ()
    delicate: bool = False

    dtype: ClassVar[np.dtype[Any]]

    def run(self, graph: Graph) -> Iterator[Node | tuple[Node, Skip]]:
        self._check_names(graph)
        chosen: set[Node] = set()
        for node in graph.nodes():
            types = [t.dtype for t in (*node.inputs, *node.outputs)]
            if _FLOAT32 not in types or (node.op == "Cast" and self.dtype in types):
                continue
            try:
                self._guard(node, graph)
                chosen.add(node)
            except Skip as skip:
                yield node, skip
        nodes = [node for node in graph.gs.nodes if node in chosen]
        for group in _groups(nodes):
            if all(node.op in _MOVERS for node in group):
                for node in group:
                    chosen.remove(node)
                    yield node, Skip("nothing is computed between the operators around it")
        change = _Change(graph, self.dtype)
        for node in nodes:
            if node in chosen:
                change.node(node)
                yield node
        if not self.keep_io:
            yield from change.signature()

    def _check_names(self, graph: Graph) -> None:
        known = {name for node in graph.nodes() for name in (node.op, node.name)}
        for name in self.keep:
            if name not in known and not onnx.defs.has(name):
                raise UsageError(
                    f"there is no operator and no node '{name}'",
                    where=f"option 'keep' of {self.name}",
                )

    def _guard(self, node: Node, graph: Graph) -> None:
        if node.owner is not graph.gs:
            raise Skip("it is in a subgraph")
        if any(inner_graphs(node)):
            raise Skip("it has a subgraph")
        if node.op in self.keep or node.name in self.keep:
            raise Skip("it is to be kept")
        if node.op in DELICATE and not self.delicate:
            raise Skip(f"{node.op} is delicate")
        if node.op in _FLOAT32_ALONE:
            raise Skip(f"{node.op} of {self.dtype} is another function")
        if node.op.startswith("Scatter") and node.attrs.get("reduction", "none") != "none":
            raise Skip(f"ONNX Runtime does not reduce what it scatters in {self.dtype}")
        kinds = _kinds(node, graph, self.dtype)
        for i, tensor in enumerate(node.outputs):
            if tensor.dtype == _FLOAT32 and _formal(node.op, graph.opset, i, False) not in kinds:
                raise Skip(f"{node.op} gives no {self.dtype}")
        for i in _narrowed(node, graph, self.dtype):
            if isinstance(node.inputs[i], Constant):
                _check_constant(node.inputs[i], self.dtype, node.op in _FACTORS)
            else:
                _check_origin(node.inputs[i], self.dtype)


class _Change:
    """Rewrites nodes to `dtype`, one by one in topological order.

    What a node made stays there in float32, as a Cast of what it makes now: a Cast that nothing
    uses in the end is swept away.
    """

    def __init__(self, graph: Graph, dtype: np.dtype[Any]) -> None:
        self.graph = graph
        self.dtype = dtype
        self.narrow: dict[gs.Tensor, gs.Tensor] = {}

    def node(self, node: Node) -> None:
        for i in _narrowed(node, self.graph, self.dtype):
            node.inputs[i] = self.narrowed(node.inputs[i], node)
        for i, wide in enumerate(node.outputs):
            if wide.dtype == _FLOAT32:
                node.outputs[i] = self.narrow[wide] = self.variable(wide)
                self.cast(node, self.narrow[wide], wide)

    def narrowed(self, tensor: gs.Tensor, user: Node) -> gs.Tensor:
        """`tensor` in the narrow type; the same one for all that use it."""
        if tensor not in self.narrow:
            if isinstance(tensor, Constant):
                values = tensor.values.astype(self.dtype)
                self.narrow[tensor] = self.graph.constant(values, tensor.name)
            else:
                self.narrow[tensor] = self.variable(tensor)
                self.cast(user, tensor, self.narrow[tensor])
        return self.narrow[tensor]

    def variable(self, wide: gs.Tensor) -> Variable:
        name = self.graph.unique_name(f"{wide.name}_{self.dtype}")
        return Variable(name, self.dtype, wide.shape)

    def cast(self, beside: Node, source: gs.Tensor, result: gs.Tensor) -> Node:
        attrs = {"to": onnx_dtype(result.dtype)}
        return self.graph.insert(beside, "Cast", [source], attrs, outputs=[result])

    def signature(self) -> Iterator[Node]:
        """Give the inputs and outputs of the model the narrow type, under their names."""
        graph = self.graph.gs
        for i, wide in enumerate(graph.outputs):
            maker = self.graph.producer(wide)
            if wide.dtype == _FLOAT32 and maker is not None:
                graph.outputs[i] = self.renamed(wide, self.narrowed(wide, maker))
                yield maker
        for i, wide in enumerate(graph.inputs):
            users = self.graph.consumers(wide)
            if wide.dtype != _FLOAT32 or not users or wide in graph.outputs:
                continue
            narrow = self.narrowed(wide, graph.nodes[0])
            for cast in list(narrow.inputs):
                cast.inputs.clear()
                cast.outputs.clear()
            graph.inputs[i] = self.renamed(wide, narrow)
            yield self.cast(graph.nodes[0], narrow, wide)

    def renamed(self, wide: gs.Tensor, narrow: gs.Tensor) -> gs.Tensor:
        """`narrow`, in the name and declaration of `wide`."""
        narrow.info = wide.info
        wide.name, narrow.name = narrow.name, wide.name
        return narrow


def _groups(nodes: Iterable[Node]) -> Iterator[list[Node]]:
    """The nodes parted into those that float32 tensors connect."""
    left = dict.fromkeys(nodes)
    while left:
        group: list[Node] = []
        waiting = [next(iter(left))]
        while waiting:
            node = waiting.pop()
            if node not in left:
                continue
            del left[node]
            group.append(node)
            for tensor in (*node.inputs, *node.outputs):
                if tensor.dtype == _FLOAT32 and isinstance(tensor, Variable):
                    waiting += [*tensor.inputs, *tensor.outputs]
        yield group


@functools.cache
def _types(op: str, opset: int) -> dict[str, frozenset[str]]:
    """The element types of each type variable of a standard operator."""
    schema = onnx.defs.get_schema(op, opset)
    return {c.type_param_str: frozenset(c.allowed_type_strs) for c in schema.type_constraints}


@functools.cache
def _formal(op: str, opset: int, index: int, is_input: bool) -> str:
    """The type or type variable of an input or output."""
    schema = onnx.defs.get_schema(op, opset)
    formals = schema.inputs if is_input else schema.outputs
    return str(formals[min(index, len(formals) - 1)].type_str)


def _kinds(node: Node, graph: Graph, dtype: np.dtype[Any]) -> set[str]:
    """The type variables of `node` that are float32 and may be `dtype`. Skips where none is.

    Where the model is to be written at an older opset, that one's operator has to allow it too.
    """
    narrow = f"tensor({dtype})"
    if node.domain or not onnx.defs.has(node.op):
        raise Skip("it is not a standard operator")
    if any(t.value_type is not None for t in (*node.inputs, *node.outputs) if _is_variable(t)):
        raise Skip("it handles more than tensors")
    types = _types(node.op, graph.opset)
    try:
        older = _types(node.op, graph.opset_limit)
    except onnx.defs.SchemaError:
        older = types
    if any("tensor(float)" in each and narrow not in each for each in older.values()):
        raise Skip(f"{node.op} of opset {graph.opset_limit} does not compute in {dtype}")
    used = {
        _formal(node.op, graph.opset, i, True)
        for i, tensor in enumerate(node.inputs)
        if tensor.dtype == _FLOAT32
    }
    kinds = {kind for kind in used if narrow in types.get(kind, ())}
    if not kinds:
        raise Skip(f"{node.op} does not compute in {dtype}")
    return kinds


def _is_variable(tensor: gs.Tensor) -> bool:
    return isinstance(tensor, Variable)


def _narrowed(node: Node, graph: Graph, dtype: np.dtype[Any]) -> list[int]:
    """The inputs of `node` that become `dtype` with it."""
    kinds = _kinds(node, graph, dtype)
    return [
        i
        for i, tensor in enumerate(node.inputs)
        if tensor.dtype == _FLOAT32 and _formal(node.op, graph.opset, i, True) in kinds
    ]


def _check_origin(tensor: Variable, dtype: np.dtype[Any]) -> None:
    """Skip where `tensor` was made by a constant beyond the range of `dtype`, as masks are."""
    maker = tensor.inputs[0] if tensor.inputs else None
    while maker is not None and maker.op in _MOVERS and maker.inputs[0].inputs:
        maker = maker.inputs[0].inputs[0]
    if maker is None or maker.op in _BOUNDS:
        return
    for constant in maker.inputs:
        if isinstance(constant, Constant) and constant.dtype == _FLOAT32:
            largest = _largest(constant)
            if largest > float(ml_dtypes.finfo(dtype).max):  # type: ignore[no-untyped-call]
                raise Skip(f"{tensor.name} is made by a constant of {largest:.3g}, beyond {dtype}")


def _largest(constant: Constant) -> float:
    size = np.abs(constant.values.astype(np.float64))
    return float(size[np.isfinite(size)].max(initial=0.0))


def _check_constant(tensor: Constant, dtype: np.dtype[Any], each_counts: bool) -> None:
    """Skip where a constant overflows in `dtype`, or loses more than its rounding."""
    wide = tensor.values.astype(np.float64)
    finite = np.isfinite(wide)
    info = ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]
    size = np.abs(np.where(finite, wide, 0.0))
    largest = size.max(initial=0.0)
    if largest > float(info.max):
        raise Skip(f"a constant of {largest:.3g} is beyond {dtype}")
    with np.errstate(over="ignore", invalid="ignore"):
        lost = np.abs(np.where(finite, tensor.values.astype(dtype).astype(np.float64) - wide, 0.0))
    if (lost > float(info.eps) * (size if each_counts else largest)).any():
        raise Skip(f"a constant of {size[size > 0].min():.3g} is lost in {dtype}")
