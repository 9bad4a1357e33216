"""What native code does not check of a foreign model, and would hang or crash on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import onnx

from edgec.errors import ModelError

INTERNAL_OPSET = 25
MAX_SUBGRAPH_DEPTH = 32
MAX_CALL_DEPTH = 100
MAX_NODES = 1_000_000
MAX_RANK = 64
MAX_DIM = 1 << 48

_Key = tuple[str, str, str]


def check_limits(model: onnx.ModelProto) -> int:
    """The opset of the default domain, after the limits that native code does not check itself.

    Raises ModelError for subgraphs or calls nested too deep, functions that expand to too many
    nodes or into themselves, opsets and IR versions unknown here, negative dimensions, and names
    of inputs, outputs or initializers given twice.
    """
    if not model.HasField("graph"):
        raise ModelError("the model has no graph")
    if not 1 <= model.ir_version <= onnx.IR_VERSION:
        raise ModelError(
            f"IR version {model.ir_version} is unknown; {onnx.IR_VERSION} is the newest"
        )
    opset = _default_opset(model)
    for kind, items in (
        ("input", model.graph.input),
        ("output", model.graph.output),
        ("initializer", model.graph.initializer),
    ):
        names: set[str] = set()
        for item in items:
            if item.name in names:
                raise ModelError(f"{kind} '{item.name}' is listed twice")
            names.add(item.name)
    for nodes in (model.graph.node, *(f.node for f in model.functions)):
        _check_depth(nodes)
    if any(isinstance(text, bytes) for text in _texts(model)):
        raise ModelError("a name or text in the model is not UTF-8")
    _check_expansion(model)
    if opset < 9 and any(n.op_type == "Scan" for g in graphs(model.graph) for n in g.node):
        raise ModelError("Scan of opset 8 cannot be converted", hint="export with opset 9 or newer")
    for graph in graphs(model.graph):
        for info in (*graph.input, *graph.output, *graph.value_info):
            dims = info.type.tensor_type.shape.dim if info.type.HasField("tensor_type") else ()
            if len(dims) > MAX_RANK or any(not 0 <= d.dim_value < MAX_DIM for d in dims):
                raise ModelError("negative or absurd dimensions", where=f"tensor '{info.name}'")
    return opset


def _texts(model: onnx.ModelProto) -> Iterator[str | bytes]:
    """All that must be text; protobuf hands out bytes where it is not."""
    yield from (model.producer_name, model.producer_version, model.domain, model.doc_string)
    yield from _pairs(model)
    for function in model.functions:
        yield from (function.name, function.domain, function.overload)
        yield from (*function.input, *function.output, *function.attribute)
        yield from _node_texts(function.node)
    for entry in (*model.opset_import, *(o for f in model.functions for o in f.opset_import)):
        yield entry.domain
    for graph in (*graphs(model.graph), *_function_graphs(model)):
        yield from (graph.name, graph.doc_string)
        yield from _pairs(graph)
        for info in (*graph.input, *graph.output, *graph.value_info):
            yield from (info.name, info.doc_string)
            yield from _pairs(info)
            yield from (dim.dim_param for dim in info.type.tensor_type.shape.dim)
        for tensor in graph.initializer:
            yield tensor.name
            yield from (text for e in tensor.external_data for text in (e.key, e.value))
        yield from _node_texts(graph.node)


def _node_texts(nodes: Iterable[onnx.NodeProto]) -> Iterator[str | bytes]:
    for node in nodes:
        yield from (node.name, node.op_type, node.domain, node.overload, node.doc_string)
        yield from node.input
        yield from node.output
        for attribute in node.attribute:
            yield from (attribute.name, attribute.ref_attr_name, attribute.t.name)
        yield from _pairs(node)


def _pairs(proto: Any) -> Iterator[str | bytes]:
    for entry in proto.metadata_props:
        yield from (entry.key, entry.value)


def _function_graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    for function in model.functions:
        for node in function.node:
            for inner in _inner_graphs(node):
                yield from graphs(inner)


def _default_opset(model: onnx.ModelProto) -> int:
    versions: dict[str, int] = {} if model.ir_version >= 3 else {"": 1}
    for entry in model.opset_import:
        domain = "" if entry.domain == "ai.onnx" else entry.domain
        if domain in versions:
            raise ModelError(f"opset of domain '{domain}' is imported twice")
        versions[domain] = entry.version
    if "" not in versions and any(n.domain in ("", "ai.onnx") for n in model.graph.node):
        raise ModelError("the model does not say its opset")
    opset = versions.get("", INTERNAL_OPSET)
    newest = onnx.defs.onnx_opset_version()
    if not 1 <= opset <= newest:
        raise ModelError(f"opset {opset} is unknown; {newest} is the newest")
    return opset


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """`graph` and every graph nested in it."""
    yield graph
    for node in graph.node:
        for inner in _inner_graphs(node):
            yield from graphs(inner)


def _check_expansion(model: onnx.ModelProto) -> None:
    functions = {(f.domain, f.name, f.overload): f for f in model.functions}
    if len(functions) < len(model.functions):
        raise ModelError("a local function is defined twice")
    known: dict[_Key, tuple[int, int]] = {}

    def measure(nodes: Iterable[onnx.NodeProto], stack: tuple[_Key, ...]) -> tuple[int, int]:
        """Nodes after inlining, and depth of calls."""
        total, deepest = 0, 0
        for node in nodes:
            key = (node.domain, node.op_type, node.overload)
            size, depth = called(key, stack) if key in functions else (1, 0)
            total, deepest = total + size, max(deepest, depth)
            for inner in _inner_graphs(node):
                size, depth = measure(inner.node, stack)
                total, deepest = total + size, max(deepest, depth)
        if total > MAX_NODES:
            raise ModelError(f"the model expands to more than {MAX_NODES} nodes")
        return total, deepest

    def called(key: _Key, stack: tuple[_Key, ...]) -> tuple[int, int]:
        where = f"function '{key[1]}'"
        if key in stack:
            raise ModelError("a local function calls itself", where=where)
        if key not in known and len(stack) < MAX_CALL_DEPTH:
            size, depth = measure(functions[key].node, (*stack, key))
            known[key] = (size, depth + 1)
        if key not in known or known[key][1] + len(stack) > MAX_CALL_DEPTH:
            raise ModelError(f"local functions call deeper than {MAX_CALL_DEPTH}", where=where)
        return known[key]

    measure(model.graph.node, ())


def _check_depth(nodes: Iterable[onnx.NodeProto], depth: int = 0) -> None:
    if depth > MAX_SUBGRAPH_DEPTH:
        raise ModelError(f"subgraphs are nested deeper than {MAX_SUBGRAPH_DEPTH}")
    for node in nodes:
        for inner in _inner_graphs(node):
            _check_depth(inner.node, depth + 1)


def _inner_graphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs
