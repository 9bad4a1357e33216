"""Models that compute in half precision, as models of float32.

ONNX Runtime on a CPU computes most of float16 in float32, and leaves out or keeps the rounding
between two operators as its own passes see fit; bfloat16 it refuses. So what such a model means is
told by two others, which it computes exactly as they are written:

    in float32   nothing is rounded: the value that half precision approximates
    rounded      what an operator gives is rounded to half precision once, as ONNX defines it
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgec import sandbox
from edgec.errors import ModelError
from edgec.external import all_tensors

HALVES = frozenset((TensorProto.FLOAT16, TensorProto.BFLOAT16))

_TYPES = frozenset(("dtype", "output_dtype", "precision", "softmax_precision", "stash_type", "to"))
"""Attributes that name an element type."""


def find_halves(model: onnx.ModelProto) -> dict[str, int]:
    """The element types of the tensors that `model` computes, or takes, in half precision.

    None where none is but for constants, where their bits are taken apart, and where the types of
    the model's tensors cannot be told.
    """
    nodes = [node for graph in graphs(model.graph) for node in graph.node]
    if not _mentions_halves(model, nodes) or any(node.op_type == "BitCast" for node in nodes):
        return {}
    try:
        inferred = onnx.ModelProto.FromString(sandbox.call("infer", model.SerializeToString()))
    except ModelError:
        return {}
    constant = {name for node in nodes if node.op_type == "Constant" for name in node.output}
    constant |= {t.name for graph in graphs(model.graph) for t in graph.initializer}
    return {
        info.name: info.type.tensor_type.elem_type
        for graph in graphs(inferred.graph)
        for info in (*graph.input, *graph.value_info, *graph.output)
        if info.type.tensor_type.elem_type in HALVES and info.name not in constant
    }


def in_float32(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `model` that has float32 for half precision everywhere, in its signature too."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in all_tensors(copy):
        if tensor.data_type in HALVES:
            values = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for graph in graphs(copy.graph):
        del graph.value_info[:]
        for info in (*graph.input, *graph.output):
            _widen(info.type)
        _widen_attributes(graph.node)
    for function in copy.functions:
        del function.value_info[:]
        _widen_attributes(function.node)
    return copy


def rounded(wide: onnx.ModelProto, halves: Mapping[str, int]) -> onnx.ModelProto:
    """A copy of the model `wide`, which is in float32, that rounds each tensor of `halves`."""
    copy = onnx.ModelProto()
    copy.CopyFrom(wide)
    for graph in graphs(copy.graph):
        nodes = []
        for node in graph.node:
            nodes.append(node)
            for i, name in enumerate(node.output):
                if name not in halves:
                    continue
                exact, half = f"{name}@exact", f"{name}@half"
                node.output[i] = exact
                nodes.append(helper.make_node("Cast", [exact], [half], to=halves[name]))
                nodes.append(helper.make_node("Cast", [half], [name], to=TensorProto.FLOAT))
        kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:]
        graph.node.extend(kept)
    return copy


def _mentions_halves(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> bool:
    """Whether anything is of half precision; a type that is not declared begins at one that is."""
    return (
        any(info.type.tensor_type.elem_type in HALVES for info in model.graph.input)
        or any(tensor.data_type in HALVES for tensor in all_tensors(model))
        or any(a.i in HALVES for node in nodes for a in node.attribute if a.name in _TYPES)
    )


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """`graph`, after those inside its nodes."""
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from graphs(inner)
    yield graph


def _widen(kind: onnx.TypeProto) -> None:
    for name in ("sequence_type", "optional_type"):
        if kind.HasField(name):
            _widen(getattr(kind, name).elem_type)
    if kind.HasField("tensor_type") and kind.tensor_type.elem_type in HALVES:
        kind.tensor_type.elem_type = TensorProto.FLOAT


def _widen_attributes(nodes: Iterable[onnx.NodeProto]) -> None:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.name in _TYPES and attribute.i in HALVES:
                attribute.i = TensorProto.FLOAT
