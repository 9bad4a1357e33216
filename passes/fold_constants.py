"""Compute what depends on constants alone.

    y = Add(c1, c2)             =>   y constant
    s = Shape(x), x static      =>   s constant       (Size too; x need not be constant)

*Needs* an operator in `FOLDABLE`, outputs of static type and shape, and room: all constants
together may grow by `budget` bytes beyond what the model came with, and the size of a result is
known before it is computed. DequantizeLinear is left alone, since a quantized constant is smaller;
so are large weights of products cast to float32, which are read as they are stored, graph outputs,
and integer divisions and casts that C leaves undefined.

*Numerics*: rounding. ONNX's reference implementation computes in numpy; moving data is exact.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from edgec.graph import Graph
from edgec.onnx_io import export_node
from edgec.patterns import check_no_weight
from edgec.rewrite import Numerics, Pass, Skip
from edgec.tensors import Constant, Node, is_static, onnx_dtype, packed_bytes

Array = np.ndarray[Any, Any]

FOLDABLE = frozenset(
    """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot
    BitwiseOr BitwiseXor Cast CastLike Ceil Clip Concat ConstantOfShape Cos Cosh CumSum DepthToSpace
    Div Elu Equal Erf Exp Expand EyeLike Flatten Floor Gather GatherElements GatherND Gemm Greater
    GreaterOrEqual HardSigmoid Identity IsInf IsNaN LeakyRelu Less LessOrEqual Log MatMul Max Mean
    Min Mod Mul Neg NonZero Not OneHot Or Pad Pow Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum
    ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape
    Round ScatterElements ScatterND Shape Sigmoid Sign Sin Sinh Size Slice Softmax Softplus
    SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh Tile TopK Transpose Trilu Unsqueeze Where Xor
    """.split()  # noqa: SIM905
)
_FROM_SHAPE = ("Shape", "Size")
_ELEMENT_BY_ELEMENT = ("GatherND", "ScatterElements", "ScatterND", "Erf")
_MAX_SLOW_ELEMENTS = 1 << 16
_MAX_PRODUCTS = 1 << 30


@dataclass(frozen=True)
class FoldConstants(Pass):
    budget: int = 32 << 20

    name: ClassVar[str] = "fold-constants"
    numerics: ClassVar[Numerics] = "rounding"

    def run(self, graph: Graph) -> Iterator[Node | tuple[Node, Skip]]:
        room = graph.source_bytes + self.budget - graph.constant_bytes()
        for node in list(graph.nodes()):
            if not node.outputs or not _is_candidate(node):
                continue
            try:
                room -= _guard(node, graph, room)
                values = _evaluate(node, graph.opset)
            except Skip as skip:
                yield node, skip
                continue
            for output, value in zip(list(node.outputs), values, strict=True):
                if output.name:
                    graph.replace(output, graph.constant(value, output.name))
            yield node


def _is_candidate(node: Node) -> bool:
    if node.op in _FROM_SHAPE:
        return not node.domain
    inputs = [t for t in node.inputs if t.name]
    return bool(inputs) and all(isinstance(t, Constant) for t in inputs)


def _guard(node: Node, graph: Graph, room: int) -> int:
    """Bytes by which the constants grow. Raises Skip."""
    if node.domain or node.op not in FOLDABLE:
        raise Skip(f"{node.op} is not computed here")
    if node.op in _FROM_SHAPE and not is_static(node.inputs[0]):
        raise Skip("the shape is not static")
    size = 0
    for output in node.outputs:
        if not output.name:
            continue
        if output.dtype is None or not is_static(output):
            raise Skip("the size of the result is not known beforehand")
        if graph.is_output(output):
            raise Skip("the result is a graph output")
        size += packed_bytes(onnx_dtype(output.dtype), math.prod(output.shape))
    freed = sum(
        t.nbytes
        for t in set(node.inputs)
        if isinstance(t, Constant) and graph.uses(t) == node.inputs.count(t)
    )
    if size - freed > room:
        raise Skip(f"the result takes {size} bytes, the budget has {max(0, room + freed)} left")
    _guard_work(node)
    if node.op in ("Div", "Mod") and np.issubdtype(node.inputs[0].dtype, np.integer):
        _guard_division(*(t.values for t in node.inputs))
    if node.op in ("Cast", "CastLike"):
        _guard_cast(node.inputs[0].values, node.outputs[0].dtype)
        if node.inputs[0].dtype.itemsize < 4 and node.outputs[0].dtype == np.float32:
            check_no_weight(graph, node.outputs[0])
    return size - freed


def _guard_work(node: Node) -> None:
    elements = max(math.prod(t.shape) for t in (*node.inputs, *node.outputs) if t.name)
    if node.op in _ELEMENT_BY_ELEMENT and elements > _MAX_SLOW_ELEMENTS:
        raise Skip(f"{elements} elements are too many to compute one by one")
    if node.op in ("MatMul", "Gemm"):
        inner = max(node.inputs[0].shape, default=1)
        if math.prod(node.outputs[0].shape) * inner > _MAX_PRODUCTS:
            raise Skip("the product takes too long here")


def _guard_division(dividend: Array, divisor: Array) -> None:
    if (divisor == 0).any():
        raise Skip("an integer is divided by zero")
    if dividend.dtype.kind == "i" and (divisor == -1).any():
        lowest = np.iinfo(dividend.dtype).min
        if (dividend == lowest).any():
            raise Skip("the smallest integer is divided by -1")


def _guard_cast(values: Array, target: np.dtype[Any]) -> None:
    if values.dtype.kind == "f" and target.kind in "iu":
        info = np.iinfo(target)
        whole = np.trunc(values.astype(np.float64))
        if not ((whole >= info.min) & (whole <= info.max)).all():
            raise Skip("a number does not fit the integer type")


def _evaluate(node: Node, opset: int) -> Sequence[Array]:
    if node.op in _FROM_SHAPE:
        return [_of_shape(node)]
    inputs: list[Any] = [t.values if t.name else None for t in node.inputs]
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        if node.op == "Div" and np.issubdtype(inputs[0].dtype, np.integer):
            results: Sequence[Any] = [_truncated_division(*inputs)]
        else:
            results = _reference(node, inputs, opset)
    values = [
        np.asarray(r, dtype=t.dtype) for r, t in zip(results, node.outputs, strict=True) if t.name
    ]
    for value, output in zip(values, (t for t in node.outputs if t.name), strict=True):
        if value.shape != output.shape:
            raise Skip(f"the result has shape {value.shape}, expected {output.shape}")
    return values


def _of_shape(node: Node) -> Array:
    shape = node.inputs[0].shape
    if node.op == "Size":
        return np.array(math.prod(shape), np.int64)
    start, end = node.attrs.get("start", 0), node.attrs.get("end", len(shape))
    return np.array(shape[slice(*(_clamped(i, len(shape)) for i in (start, end)))], np.int64)


def _clamped(index: int, rank: int) -> int:
    return min(max(index + rank if index < 0 else index, 0), rank)


def _truncated_division(dividend: Array, divisor: Array) -> Array:
    quotient: Array = np.floor_divide(dividend, divisor)
    inexact = (quotient < 0) & (quotient * divisor != dividend)
    return np.asarray(quotient + inexact.astype(quotient.dtype))


@functools.cache
def _evaluator() -> Any:
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator


def _reference(node: Node, inputs: Sequence[Any], opset: int) -> Sequence[Any]:
    proto = export_node(node, opset, frozenset())
    feed = {t.name: v for t, v in zip(node.inputs, inputs, strict=True) if v is not None}
    try:
        return list(_evaluator()(proto, opsets={"": opset}).run(None, feed))
    except Exception as error:
        raise Skip(f"onnx's reference cannot compute it: {error!r}"[:200]) from error
