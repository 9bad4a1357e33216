"""ONNX protobufs to graphs and back, without loss.

Written out here because graphsurgeon's importer and exporter lose metadata, copy outer constants
into subgraphs, and refuse some attribute and tensor types.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import AttributeProto, TensorProto, helper

from edgec import collector
from edgec.errors import ModelError
from edgec.tensors import (
    Constant,
    Names,
    Node,
    Variable,
    add_metadata,
    metadata_of,
    onnx_dtype,
    set_type,
    subgraphs,
)


def import_graph(
    proto: onnx.GraphProto, opset: int, weights: Mapping[str, TensorProto] | None = None
) -> gs.Graph:
    """The main graph of a checked model, topologically sorted, functions already inlined.

    An input named in `weights` becomes a constant of that tensor.
    """
    with collector.paused():
        return _Importer(opset, weights or {}).graph(proto, {})


class _Importer:
    def __init__(self, opset: int, weights: Mapping[str, TensorProto]) -> None:
        self.opset = opset
        self.weights = weights
        self.unique = Names().unique

    def graph(self, proto: onnx.GraphProto, outer: Mapping[str, gs.Tensor]) -> gs.Graph:
        types = {info.name: info for info in proto.value_info}
        types.update((info.name, info) for info in proto.output)
        scope: dict[str, gs.Tensor] = _Scope(outer)

        def define(name: str, info: onnx.ValueInfoProto | None) -> Variable:
            tensor = Variable(self.unique(name) if name else "")
            if info is not None:
                set_type(tensor, info.type)
            if name:
                scope[name] = tensor
            return tensor

        inputs = []
        for info in proto.input:
            if info.name in self.weights and not outer:
                value = self.weights[info.name]
                scope[info.name] = Constant(self.unique(info.name), value)
                continue
            inputs.append(define(info.name, info))
            inputs[-1].info = info
        for tensor in proto.initializer:
            scope[tensor.name] = Constant(self.unique(tensor.name), tensor)

        nodes: list[Node] = []
        for item in proto.node:
            if item.op_type == "Constant" and item.domain in ("", "ai.onnx"):
                value = constant_value(item)
                if value is not None:
                    scope[item.output[0]] = Constant(self.unique(item.output[0]), value)
                    continue
            attrs = {a.name: self.attribute(a, scope) for a in item.attribute}
            ins = [self.lookup(scope, name, item) for name in item.input]
            outs = [define(name, types.get(name)) for name in item.output]
            domain = "" if item.domain == "ai.onnx" else item.domain
            nodes.append(
                Node(
                    item.op_type,
                    item.name,
                    attrs,
                    ins,
                    outs,
                    domain,
                    doc_string=item.doc_string,
                    metadata=metadata_of(item),
                )
            )
        outputs = []
        for info in proto.output:
            tensor = self.lookup(scope, info.name, None)
            if isinstance(tensor, Variable):
                tensor.info = tensor.info or info
            outputs.append(tensor)
        graph = gs.Graph(nodes, inputs, outputs, proto.name, proto.doc_string, self.opset)
        graph.metadata = metadata_of(proto)
        for node in nodes:
            node.owner = graph
        return graph

    def lookup(
        self, scope: Mapping[str, gs.Tensor], name: str, user: onnx.NodeProto | None
    ) -> gs.Tensor:
        if not name:
            return Variable("")
        try:
            return scope[name]
        except KeyError:
            where = f"node '{user.name}' ({user.op_type})" if user else "graph output"
            raise ModelError(f"tensor '{name}' is used before it is made", where=where) from None

    def attribute(self, proto: AttributeProto, scope: Mapping[str, gs.Tensor]) -> Any:
        match proto.type:
            case AttributeProto.FLOAT:
                return proto.f
            case AttributeProto.INT:
                return proto.i
            case AttributeProto.STRING:
                return _text(proto.s)
            case AttributeProto.FLOATS:
                return list(proto.floats)
            case AttributeProto.INTS:
                return list(proto.ints)
            case AttributeProto.STRINGS:
                return [_text(s) for s in proto.strings]
            case AttributeProto.TENSOR:
                return Constant(proto.t.name, proto.t)
            case AttributeProto.GRAPH:
                return self.graph(proto.g, scope)
            case _:
                return proto


class _Scope(dict[str, gs.Tensor]):
    """Names of one graph, falling back on those of the graphs around it."""

    def __init__(self, outer: Mapping[str, gs.Tensor]) -> None:
        super().__init__()
        self.outer = outer

    def __missing__(self, name: str) -> gs.Tensor:
        return self.outer[name]


def _text(data: bytes) -> str | bytes:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def constant_value(node: onnx.NodeProto) -> np.ndarray[Any, Any] | TensorProto | None:
    """What a Constant node yields, or None for a sparse tensor."""
    if len(node.attribute) != 1 or len(node.output) != 1:
        raise ModelError(
            "a Constant has one attribute and one output", where=f"node '{node.name}' (Constant)"
        )
    attribute = node.attribute[0]
    match attribute.name:
        case "value":
            return attribute.t
        case "value_float":
            return np.array(attribute.f, np.float32)
        case "value_floats":
            return np.array(attribute.floats, np.float32)
        case "value_int":
            return np.array(attribute.i, np.int64)
        case "value_ints":
            return np.array(attribute.ints, np.int64)
        case "value_string":
            return np.array(attribute.s, object)
        case "value_strings":
            return np.array(list(attribute.strings), object)
        case _:
            return None


def export_node(node: Node, opset: int, outer: frozenset[gs.Tensor]) -> onnx.NodeProto:
    """The NodeProto of `node`; its subgraphs find the tensors `outer` around them."""
    return _Exporter(opset).node(node, outer)


def export_graph(graph: gs.Graph, opset: int) -> onnx.GraphProto:
    """The GraphProto of `graph`. A constant is written once: into the graph that uses it, or else
    the innermost around all that do."""
    return _Exporter(opset).graph(graph, frozenset())


class _Exporter:
    def __init__(self, opset: int) -> None:
        self.opset = opset

    def graph(self, graph: gs.Graph, outer: frozenset[gs.Tensor]) -> onnx.GraphProto:
        proto = onnx.GraphProto(name=graph.name, doc_string=graph.doc_string)
        add_metadata(proto, getattr(graph, "metadata", {}))
        outputs = set(graph.outputs)
        constants: dict[gs.Tensor, None] = {}
        read = (t for node in graph.nodes for t in node.inputs)
        for tensor in (*read, *graph.outputs, *_shared_inside(graph)):
            if isinstance(tensor, gs.Constant) and tensor not in outer:
                constants[tensor] = None
        for tensor in constants:
            if tensor in outputs:
                proto.node.append(
                    helper.make_node("Constant", [], [tensor.name], value=tensor.to_proto())
                )
            else:
                proto.initializer.append(tensor.to_proto())
        seen = outer | frozenset(constants)
        for node in graph.nodes:
            proto.node.append(self.node(node, seen))
            proto.value_info.extend(
                value_info(t)
                for t in node.outputs
                if t not in outputs and (t.dtype is not None or t.value_type is not None)
            )
        proto.input.extend(value_info(t) for t in graph.inputs)
        proto.output.extend(value_info(t) for t in graph.outputs)
        return proto

    def node(self, node: Node, outer: frozenset[gs.Tensor]) -> onnx.NodeProto:
        proto = onnx.NodeProto(
            op_type=node.op,
            name=node.name,
            domain=node.domain or "",
            doc_string=node.doc_string,
            input=[t.name for t in node.inputs],
            output=[t.name for t in node.outputs],
        )
        add_metadata(proto, node.metadata)
        types = attribute_types(node.op, node.domain or "", self.opset)
        for name, value in node.attrs.items():
            proto.attribute.append(self.attribute(name, value, types.get(name), outer))
        return proto

    def attribute(
        self, name: str, value: Any, kind: int | None, outer: frozenset[gs.Tensor]
    ) -> AttributeProto:
        if isinstance(value, AttributeProto):
            return value
        if isinstance(value, gs.Graph):
            return AttributeProto(name=name, type=AttributeProto.GRAPH, g=self.graph(value, outer))
        if isinstance(value, Constant):
            return helper.make_attribute(name, value.to_proto())
        if kind in (AttributeProto.FLOAT, AttributeProto.FLOATS):
            value = [float(v) for v in value] if isinstance(value, Sequence) else float(value)
        if isinstance(value, list | tuple) and not value:
            return AttributeProto(name=name, type=kind or AttributeProto.INTS)
        return helper.make_attribute(name, value)


def _shared_inside(graph: gs.Graph) -> list[gs.Tensor]:
    """What the nodes of several subgraphs of `graph` read; not what a subgraph yields."""
    readers: Counter[gs.Tensor] = Counter()
    yielded: set[gs.Tensor] = set()
    for value in (value for node in graph.nodes for value in node.attrs.values()):
        if isinstance(value, gs.Graph):
            inner = list(subgraphs(value))
            readers.update(list(dict.fromkeys(t for g in inner for n in g.nodes for t in n.inputs)))
            yielded.update(t for g in inner for t in g.outputs)
    return [t for t, count in readers.items() if count > 1 and t not in yielded]


@functools.cache
def attribute_types(op: str, domain: str, opset: int) -> Mapping[str, int]:
    """ONNX attribute type codes by name of a standard operator; empty for another one's."""
    try:
        schema = onnx.defs.get_schema(op, opset, domain)
    except onnx.defs.SchemaError:
        return {}
    return {name: int(a.type.value) for name, a in schema.attributes.items()}


def value_info(tensor: gs.Tensor) -> onnx.ValueInfoProto:
    """Name, type, doc string and metadata of a tensor."""
    proto = onnx.ValueInfoProto()
    info = getattr(tensor, "info", None)
    if info is not None:
        proto.CopyFrom(info)
    proto.name = tensor.name
    if getattr(tensor, "value_type", None) is not None:
        proto.type.CopyFrom(tensor.value_type)
    elif tensor.dtype is not None:
        kind = proto.type.tensor_type
        kind.elem_type = onnx_dtype(tensor.dtype)
        denotations = [d.denotation for d in kind.shape.dim]
        kind.ClearField("shape")
        if tensor.shape is not None:
            kind.shape.SetInParent()
            for i, size in enumerate(tensor.shape):
                dim = kind.shape.dim.add()
                if isinstance(size, int):
                    dim.dim_value = size
                elif size is not None:
                    dim.dim_param = size
                if len(denotations) == len(tensor.shape) and denotations[i]:
                    dim.denotation = denotations[i]
    return proto
