"""The card of a model: what it takes, what it gives, what it costs."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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


def macs(node: Node, unknown: int | None = None) -> int | None:
    """Multiply-accumulates of one node. A dimension without a size counts as `unknown`; None where
    they depend on one, and that is None."""
    op = node.op
    if op not in _MACS or node.domain:
        return 0
    inputs, outputs = (
        [_sizes(t, unknown) if t.name else () for t in tensors]
        for tensors in (node.inputs, node.outputs)
    )
    if None in inputs or None in outputs:
        return None
    known = [sizes for sizes in inputs if sizes is not None]
    return _MACS[op](_Costed(node.attrs, known, outputs[0] or ()))


@dataclass(frozen=True)
class _Costed:
    """The attributes of a node, the shapes of its inputs, () where one is not there, and the shape
    of its first output."""

    attrs: Mapping[str, Any]
    inputs: Sequence[tuple[int, ...]]
    output: tuple[int, ...]


def _sizes(tensor: gs.Tensor, unknown: int | None) -> tuple[int, ...] | None:
    if unknown is None and not is_static(tensor):
        return None
    return tuple(size if isinstance(size, int) else unknown or 1 for size in tensor.shape or ())


def _convolution(node: _Costed, weight: int = 1) -> int:
    """Every output element sums over the weights of its channel: [M, C / groups, kernel...]."""
    return math.prod(node.output) * math.prod(node.inputs[weight][1:])


def _transposed_convolution(node: _Costed) -> int:
    """Every input element meets the weights of its channel: [C, M / groups, kernel...]."""
    return math.prod(node.inputs[0]) * math.prod(node.inputs[1][1:])


def _product(node: _Costed) -> int:
    return math.prod(node.output) * math.prod(node.inputs[0][-1:])


def _gemm(node: _Costed) -> int:
    return math.prod(node.output) * node.inputs[0][0 if node.attrs.get("transA") else 1]


def _recurrent(node: _Costed) -> int:
    """Every step meets W [directions, gates * hidden, inputs] and R, the same of hidden size."""
    steps, batch = node.inputs[0][:2]
    if node.attrs.get("layout", 0):
        steps, batch = batch, steps
    return steps * batch * (math.prod(node.inputs[1]) + math.prod(node.inputs[2]))


def _attention(node: _Costed) -> int:
    """Every query meets every key, and every value, of its head: [B, H, S, D], or [B, S, H * D].
    Keys of a past come before those of now."""
    query, key, value, _, past = (*node.inputs, (), ())[:5]
    keys = key[-2] + (past[2] if past else 0)
    if len(query) == 4:
        heads, width = query[1], query[3] + value[3]
    else:
        heads = int(node.attrs["q_num_heads"])
        width = query[2] // heads + value[2] // int(node.attrs["kv_num_heads"])
    return query[0] * heads * query[-2] * keys * width


_MACS: Mapping[str, Callable[[_Costed], int]] = {
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
