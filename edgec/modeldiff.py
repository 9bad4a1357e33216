"""What changed between two models: inputs and outputs, operators, constants, quantities."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgec.graph import Graph
from edgec.inspect import describe
from edgec.report import table
from edgec.tensors import Constant, Node

_QUANTITIES = ("opset", "nodes", "parameters", "weight_bytes", "macs", "peak_activation_bytes")


@dataclass(frozen=True)
class ModelDiff:
    """What of two models is not the same; empty mappings and lists where they agree.

    `quantities`, `ops` and `metadata` have (before, after) by name. `signature` holds lines about
    inputs and outputs; `removed`, `added` and `changed` nodes, named by their first output, as
    lines: a node is changed where both models make that tensor, with another operator, other
    attributes or other inputs. `constants` counts those that are only in one model, by value.
    """

    quantities: Mapping[str, tuple[Any, Any]]
    ops: Mapping[str, tuple[int, int]]
    metadata: Mapping[str, tuple[Any, Any]]
    signature: list[str]
    removed: list[str]
    added: list[str]
    changed: list[str]
    constants: tuple[int, int]

    @property
    def same(self) -> bool:
        """Whether nothing changed."""
        return not any(vars(self)[name] for name in vars(self) if name != "constants") and (
            self.constants == (0, 0)
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"same": self.same, **vars(self)}

    def text(self) -> str:
        """For people."""
        if self.same:
            return "the models are the same"
        parts = list(self.signature)
        rows = [(k, *map(_shown, v)) for k, v in {**self.quantities, **self.ops}.items()]
        if rows:
            parts.append(table(("", "before", "after"), rows))
        lines = [f"metadata {k}: {a!r} to {b!r}" for k, (a, b) in self.metadata.items()]
        lines += [f"- {line}" for line in self.removed]
        lines += [f"+ {line}" for line in self.added]
        lines += [f"! {line}" for line in self.changed]
        if self.constants != (0, 0):
            lines.append(f"constants: {self.constants[0]} gone, {self.constants[1]} new")
        return "\n\n".join([*parts, "\n".join(lines)]).rstrip()


def diff(before: Graph, after: Graph) -> ModelDiff:
    """Compare two loaded models. Order of nodes and names of inner tensors with the same maker
    count; names of nodes do not."""
    cards = describe(before), describe(after)
    ops = cards[0]["ops"], cards[1]["ops"]
    nodes = _nodes(before), _nodes(after)
    values = _constants(before), _constants(after)
    return ModelDiff(
        quantities={k: _pair(cards, k) for k in _QUANTITIES if cards[0][k] != cards[1][k]},
        ops={
            op: (ops[0].get(op, 0), ops[1].get(op, 0))
            for op in sorted(ops[0].keys() | ops[1].keys())
            if ops[0].get(op) != ops[1].get(op)
        },
        metadata=_metadata(before, after),
        signature=[
            f"{side[:-1]} {_declared(a)} is now {_declared(b)}"
            for side in ("inputs", "outputs")
            for a, b in _unequal(cards[0][side], cards[1][side])
        ],
        removed=[line for name, line in nodes[0].items() if name not in nodes[1]],
        added=[line for name, line in nodes[1].items() if name not in nodes[0]],
        changed=[
            f"{line} is now {nodes[1][name]}"
            for name, line in nodes[0].items()
            if nodes[1].get(name, line) != line
        ],
        constants=((values[0] - values[1]).total(), (values[1] - values[0]).total()),
    )


def _pair(cards: tuple[Mapping[str, Any], Mapping[str, Any]], key: str) -> tuple[Any, Any]:
    return cards[0][key], cards[1][key]


def _metadata(before: Graph, after: Graph) -> dict[str, tuple[Any, Any]]:
    sides = before.metadata, after.metadata
    keys = sorted(sides[0].keys() | sides[1].keys())
    return {
        k: (sides[0].get(k), sides[1].get(k)) for k in keys if sides[0].get(k) != sides[1].get(k)
    }


def _unequal(before: list[Any], after: list[Any]) -> list[tuple[Any, Any]]:
    length = max(len(before), len(after))
    padded = (each + [None] * (length - len(each)) for each in (before, after))
    return [(a, b) for a, b in zip(*padded, strict=True) if a != b]


def _declared(tensor: Mapping[str, Any] | None) -> str:
    if tensor is None:
        return "absent"
    shape = "" if tensor["shape"] is None else "x".join(map(str, tensor["shape"]))
    return f"'{tensor['name']}' {tensor['dtype']} {shape}".rstrip()


def _nodes(graph: Graph) -> dict[str, str]:
    return {node.outputs[0].name: _line(node) for node in graph.nodes() if node.outputs}


def _line(node: Node) -> str:
    op = f"{node.domain}.{node.op}" if node.domain else node.op
    inputs = ", ".join("[constant]" if isinstance(t, Constant) else t.name for t in node.inputs)
    attrs = ", ".join(
        f"{name}={value}" for name, value in sorted(node.attrs.items()) if _is_plain(value)
    )
    made = ", ".join(t.name for t in node.outputs)
    return f"{made} = {op}({inputs})" + (f" <{attrs}>" if attrs else "")


def _is_plain(value: Any) -> bool:
    return isinstance(value, int | float | str | list)


def _constants(graph: Graph) -> Counter[str]:
    found = {t for node in graph.nodes() for t in node.inputs if isinstance(t, Constant)}
    return Counter(_digest(tensor) for tensor in found)


def _digest(tensor: Constant) -> str:
    data = tensor.values
    raw = repr(data.tolist()).encode() if data.dtype.kind == "O" else data.tobytes()
    return f"{data.dtype}{data.shape}{hashlib.sha256(raw).hexdigest()}"


def _shown(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else "unknown"
