"""Models whose products are computed in TF32: float32 of which a factor keeps 10 bits of mantissa.

How far that may move a result is told by the model itself, every factor rounded so:

    Conv(x, w)  =>  Conv(r(x), r(w));  r(x) = c x - (c x - x), c = 2^13 + 1

which float32 computes to the nearest of 11 significant bits (Dekker's splitting, "A floating-point
technique for extending the available precision", 1971).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgec import sandbox
from edgec.errors import ModelError
from edgec.halves import graphs

_FACTORS = {
    **dict.fromkeys(("Conv", "ConvTranspose", "DeformConv", "Gemm", "MatMul"), 2),
    **dict.fromkeys(("Attention", "GRU", "LSTM", "RNN"), 3),
}
"""How many inputs, from the first on, are multiplied with one another."""
_SPLIT = 2.0**13 + 1
_SPLIT_NAME = "tf32.split"


def find_factors(model: onnx.ModelProto) -> frozenset[str]:
    """The tensors of float32 that `model` multiplies in sums of products; none where the types of
    its tensors cannot be told."""
    try:
        inferred = onnx.ModelProto.FromString(sandbox.call("infer", model.SerializeToString()))
    except ModelError:
        return frozenset()
    single: set[str] = set()
    for graph in graphs(inferred.graph):
        values = (*graph.input, *graph.value_info, *graph.output)
        single |= {v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT}
        single |= {t.name for t in graph.initializer if t.data_type == TensorProto.FLOAT}
    used = {name for graph in graphs(model.graph) for node in graph.node for name in _factors(node)}
    return frozenset(used & single)


def products(model: onnx.ModelProto, factors: Collection[str]) -> frozenset[str]:
    """The tensors of the main graph that are computed of `factors`, here or further inside."""
    return frozenset(
        name
        for node in model.graph.node
        if any(not set(factors).isdisjoint(_factors(each)) for each in _with_inner(node))
        for name in node.output
        if name
    )


def narrowed(model: onnx.ModelProto, factors: Collection[str]) -> onnx.ModelProto:
    """A copy of `model` that rounds `factors` to TF32 where it multiplies them."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    split = numpy_helper.from_array(np.float32(_SPLIT), _SPLIT_NAME)
    for graph in graphs(copy.graph):
        known: set[str] = set()
        nodes: list[onnx.NodeProto] = []
        for node in graph.node:
            for place, name in enumerate(_factors(node)):
                if name not in factors:
                    continue
                if name not in known:
                    known.add(name)
                    nodes += _rounding(name)
                node.input[place] = _narrow(name)
            nodes.append(node)
        kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:]
        graph.node.extend(kept)
    copy.graph.initializer.append(split)
    return copy


def _factors(node: onnx.NodeProto) -> list[str]:
    count = len(node.input) if node.op_type == "Einsum" else _FACTORS.get(node.op_type, 0)
    return list(node.input[:count])


def _with_inner(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    yield node
    for attribute in node.attribute:
        for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            for graph in graphs(inner):
                yield from graph.node


def _narrow(name: str) -> str:
    return f"{name}@tf32"


def _rounding(name: str) -> list[onnx.NodeProto]:
    scaled, rest = f"{name}@scaled", f"{name}@rest"
    return [
        helper.make_node("Mul", [name, _SPLIT_NAME], [scaled]),
        helper.make_node("Sub", [scaled, name], [rest]),
        helper.make_node("Sub", [scaled, rest], [_narrow(name)]),
    ]
