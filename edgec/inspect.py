"""The card of a model: what it takes, what it gives, what it costs."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import onnx
import onnx_graphsurgeon as gs

from edgec.graph import Graph, load
from edgec.tensors import Constant, Node, inner_nodes, is_static, onnx_dtype, packed_bytes


def describe(
    source: str | os.PathLike[str] | onnx.ModelProto | Graph,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    dims: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """Facts about a model, ready for JSON. The batch counts as 1; other dimensions without a
    size stay symbolic.

    `parameters` counts the elements of all constants and `weight_bytes` their size in the file;
    `macs` are multiply-accumulates of convolutions, matrix products and recurrent layers, and
    `peak_activation_bytes` is the most that is alive at once when nodes run in the model's order,
    inputs and outputs included. Both are None where a shape is unknown; branches count as if all
    were taken. Raises what `edgec.graph.load` raises.
    """
    notes: list[str] = []
    if isinstance(source, Graph):
        graph = source
    else:
        graph = load(source, shapes=shapes, dims=dims, symbolic=True, notes=notes)
    header = graph.header
    nodes = list(graph.nodes())
    constants = {
        t for n in nodes for t in (*n.inputs, *n.attrs.values()) if isinstance(t, Constant)
    }
    constants.update(t for t in graph.gs.outputs if isinstance(t, Constant))
    costs = [macs(node) for node in nodes]
    return {
        "name": graph.name,
        "opset": graph.source_opset,
        "ir_version": header.ir_version,
        "producer": f"{header.producer_name} {header.producer_version}".strip(),
        "model_version": header.model_version,
        "domain": header.domain,
        "doc": header.doc_string,
        "inputs": [_declaration(t) for t in graph.gs.inputs],
        "outputs": [_declaration(t) for t in graph.gs.outputs],
        "nodes": len(nodes),
        "ops": dict(Counter(_op(n) for n in nodes).most_common()),
        "parameters": sum(math.prod(t.shape) for t in constants),
        "weight_bytes": sum(t.nbytes for t in constants),
        "macs": None if None in costs else sum(filter(None, costs)),
        "peak_activation_bytes": peak_activation_bytes(graph.gs),
        "metadata": graph.metadata,
        "notes": notes,
    }


def render(card: Mapping[str, Any]) -> str:
    """The card as text for a terminal."""
    lines = [
        ("model", f"{card['name']}, opset {card['opset']}, IR {card['ir_version']}"),
        ("producer", card["producer"]),
        ("domain", card["domain"]),
        ("doc", " ".join(card["doc"].split())[:200]),
        *(("input", _text(t)) for t in card["inputs"]),
        *(("output", _text(t)) for t in card["outputs"]),
        ("nodes", f"{card['nodes']:,}"),
        ("ops", ", ".join(f"{op} {count}" for op, count in card["ops"].items())),
        ("parameters", f"{card['parameters']:,} ({card['weight_bytes']:,} bytes)"),
        ("MACs", _number(card["macs"])),
        ("activations", _number(card["peak_activation_bytes"], " bytes at peak, in this order")),
        *(("metadata", f"{key} = {value[:200]}") for key, value in card["metadata"].items()),
        *(("note", note) for note in card["notes"]),
    ]
    return "\n".join(f"{label:12} {_printable(text)}" for label, text in lines if text)


def macs(node: Node) -> int | None:
    """Multiply-accumulates of one node; None when they depend on an unknown shape."""
    op = node.op
    if op not in _MACS or node.domain:
        return 0
    tensors = [t for t in (*node.inputs, *node.outputs) if t.name]
    if not all(map(is_static, tensors)):
        return None
    return _MACS[op](node)


def _convolution(node: Node, weight: int = 1) -> int:
    """Every output element sums over the weights of its channel: [M, C / groups, kernel...]."""
    return _elements(node.outputs[0]) * int(math.prod(node.inputs[weight].shape[1:]))


def _transposed_convolution(node: Node) -> int:
    """Every input element meets the weights of its channel: [C, M / groups, kernel...]."""
    return _elements(node.inputs[0]) * int(math.prod(node.inputs[1].shape[1:]))


def _product(node: Node) -> int:
    inner = node.inputs[0].shape[-1] if node.inputs[0].shape else 1
    return _elements(node.outputs[0]) * int(inner)


def _gemm(node: Node) -> int:
    inner = node.inputs[0].shape[0 if node.attrs.get("transA") else 1]
    return _elements(node.outputs[0]) * int(inner)


def _recurrent(node: Node) -> int:
    """Every step meets W [directions, gates * hidden, inputs] and R, the same of hidden size."""
    steps, batch = node.inputs[0].shape[:2]
    if node.attrs.get("layout", 0):
        steps, batch = batch, steps
    return int(steps * batch) * (_elements(node.inputs[1]) + _elements(node.inputs[2]))


def _attention(node: Node) -> int:
    """Every query meets every key, and every value, of its head: [B, H, S, D], or [B, S, H * D].
    Keys of a past come before those of now."""
    query, key, value = (tensor.shape for tensor in node.inputs[:3])
    past = node.inputs[4].shape[2] if len(node.inputs) > 4 and node.inputs[4].name else 0
    keys = int(key[-2]) + int(past)
    if len(query) == 4:
        heads, width = int(query[1]), int(query[3] + value[3])
    else:
        heads = int(node.attrs["q_num_heads"])
        width = int(query[2]) // heads + int(value[2]) // int(node.attrs["kv_num_heads"])
    return int(query[0]) * heads * int(query[-2]) * keys * width


def _elements(tensor: gs.Tensor) -> int:
    return math.prod(tensor.shape)


_MACS = {
    "Attention": _attention,
    "Conv": _convolution,
    "ConvInteger": _convolution,
    "QLinearConv": lambda node: _convolution(node, 3),
    "ConvTranspose": _transposed_convolution,
    "MatMul": _product,
    "MatMulInteger": _product,
    "QLinearMatMul": _product,
    "Gemm": _gemm,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
}


def peak_activation_bytes(graph: gs.Graph) -> int | None:
    """The most bytes of variables alive at once, of `graph` without its subgraphs."""
    last: dict[gs.Tensor, int] = dict.fromkeys(graph.outputs, len(graph.nodes))
    for i in reversed(range(len(graph.nodes))):
        node = graph.nodes[i]
        for user in (node, *inner_nodes(node)):
            for tensor in (*user.inputs, *node.outputs):
                last.setdefault(tensor, i)
    ends: list[list[gs.Tensor]] = [[] for _ in range(len(graph.nodes) + 1)]
    for tensor in (*graph.inputs, *(t for node in graph.nodes for t in node.outputs if t.name)):
        if tensor in last:
            ends[last[tensor]].append(tensor)
    try:
        now = sum(_bytes(t) for t in graph.inputs if t in last)
        peak = now
        for node, dead in zip(graph.nodes, ends, strict=False):
            now += sum(_bytes(t) for t in node.outputs if t.name)
            peak = max(peak, now)
            now -= sum(map(_bytes, dead))
    except TypeError:
        return None
    return peak


def _bytes(tensor: gs.Tensor) -> int:
    if tensor.dtype is None or not is_static(tensor):
        raise TypeError(tensor.name)
    return packed_bytes(onnx_dtype(tensor.dtype), math.prod(tensor.shape))


def _declaration(tensor: gs.Tensor) -> dict[str, Any]:
    shape = None if tensor.shape is None else [d if d is not None else "?" for d in tensor.shape]
    return {
        "name": tensor.name,
        "dtype": str(tensor.dtype) if tensor.dtype is not None else None,
        "shape": shape,
    }


def _op(node: Node) -> str:
    return f"{node.domain}.{node.op}" if node.domain else str(node.op)


def _text(tensor: Mapping[str, Any]) -> str:
    shape = tensor["shape"]
    size = "of unknown rank" if shape is None else "x".join(map(str, shape)) or "scalar"
    return f"{tensor['name']} {tensor['dtype'] or 'not a tensor'} {size}"


def _number(value: int | None, unit: str = "") -> str:
    return "unknown: a shape is not static" if value is None else f"{value:,}{unit}"


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
