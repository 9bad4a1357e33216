"""Write LSTM, GRU and RNN as a Scan of primitive operators, one for each direction.

    y, h = GRU(x, w, r)   =>   h, y = Scan(0, MatMul(x, w')) { h' = f(x_t, MatMul(h, r')) }

The input is multiplied with its weights once, outside the Scan. For runtimes that lack the
operators; where they are there, they are faster.

*Needs* an input of known rank, a known hidden size, and activations that are operators of ONNX,
Affine or ScaledTanh; the last two and ThresholdedRelu with their parameters.

*Numerics*: rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from edgec.cells import GATES, Cell, activations
from edgec.graph import Graph
from edgec.rewrite import Numerics, Rewrite, Skip
from edgec.tensors import Constant, Node, Variable


@dataclass(frozen=True)
class DecomposeRecurrent(Rewrite):
    name: ClassVar[str] = "decompose-recurrent"
    numerics: ClassVar[Numerics] = "rounding"
    roots: ClassVar[tuple[str, ...]] = tuple(GATES)

    def rewrite(self, node: Node, graph: Graph) -> None:
        layer = _Layer(node, graph)
        results = layer.write()
        for old, new in zip(list(node.outputs), results, strict=False):
            if new is not None:
                graph.replace(old, new)


class _Writer:
    """Writes operators beside a node; those of `_KNOWN` are computed at once where they can be."""

    _KNOWN: ClassVar[dict[str, Callable[..., Any]]] = {
        "Add": np.add,
        "Gather": np.take,
        "Slice": lambda x, start, end, axis: x.take(range(start[0], end[0]), axis[0]),
        "Transpose": lambda x, perm: x.transpose(perm),
    }

    def __init__(self, graph: Graph, beside: Node, dtype: np.dtype[Any]) -> None:
        self.graph = graph
        self.beside = beside
        self.dtype = dtype

    def __call__(
        self, op: str, inputs: list[Any], outputs: int = 1, **attrs: Any
    ) -> list[gs.Tensor]:
        tensors = [self.tensor(each) for each in inputs]
        if op in self._KNOWN and all(isinstance(t, Constant) for t in tensors):
            values = self._KNOWN[op](*(t.values for t in tensors), **attrs)
            return [self.graph.constant(values, tensors[0].name)]
        return list(self.graph.insert(self.beside, op, tensors, attrs, outputs=outputs).outputs)

    def tensor(self, value: Any) -> gs.Tensor:
        if isinstance(value, gs.Tensor):
            return value
        dtype = self.dtype if isinstance(value, float) else np.int64
        return self.graph.constant(np.asarray(value, dtype), "number")


class _Layer:
    def __init__(self, node: Node, graph: Graph) -> None:
        self.x, self.w, self.r = node.inputs[:3]
        given = [t if t.name else None for t in node.inputs[3:]]
        self.b, self.lengths, *initial = given + [None] * 5
        self.initial = initial[: 2 if node.op == "LSTM" else 1]
        self.p = initial[2] if node.op == "LSTM" else None
        self.node = node
        self.graph = graph
        self.batch_major = bool(node.attrs.get("layout", 0))
        direction = node.attrs.get("direction", "forward").lower()
        self.backward = [False, True] if direction == "bidirectional" else [direction == "reverse"]
        self.functions = activations(node, len(self.backward))
        self.dtype, shape = self.x.dtype, self.x.shape
        known = self.r.shape and self.r.shape[-1]
        self.hidden = node.attrs.get("hidden_size") or known
        if not isinstance(self.hidden, int):
            raise Skip("its hidden size is not known")
        if shape is None:
            raise Skip("the rank of its input is not known")
        self.steps, self.batch = (shape[1], shape[0]) if self.batch_major else shape[:2]
        self.op = _Writer(graph, node, self.dtype)

    def write(self) -> list[gs.Tensor | None]:
        """Y, Y_h and Y_c, each where it is used."""
        if self.batch_major:
            [self.x] = self.op("Transpose", [self.x], perm=[1, 0, 2])
        mask = self._mask()
        runs = [self._scan(which, mask) for which in range(len(self.backward))]
        results = []
        for output, parts in zip(self.node.outputs, zip(*runs, strict=True), strict=False):
            used = output.name and self.graph.uses(output)
            results.append(self._joined(parts, output is self.node.outputs[0]) if used else None)
        return results

    def _joined(self, parts: tuple[gs.Tensor, ...], is_sequence: bool) -> gs.Tensor:
        """The results of all directions along an axis of their own."""
        axis = int(is_sequence) + int(self.batch_major)
        if is_sequence and self.batch_major:
            parts = tuple(self.op("Transpose", [t], perm=[1, 0, 2])[0] for t in parts)
        each = [self.op("Unsqueeze", [t, [axis]])[0] for t in parts]
        return each[0] if len(each) == 1 else self.op("Concat", each, axis=axis)[0]

    def _mask(self) -> gs.Tensor | None:
        """Whether a step is one of the sequence, [steps, batch, 1]; None where all are."""
        if self.lengths is None:
            return None
        if isinstance(self.lengths, Constant) and isinstance(self.steps, int):
            lengths = self.lengths.values.reshape(1, -1, 1)
            if (lengths == self.steps).all():
                return None
            inside = np.arange(self.steps).reshape(-1, 1, 1) < lengths
            return self.graph.constant(inside, "mask")
        [count] = self.op("Shape", [self.x], start=0, end=1)
        [count] = self.op("Squeeze", [count, [0]])
        [steps] = self.op("Range", [0, count, 1])
        [steps] = self.op("Unsqueeze", [steps, [1, 2]])
        [lengths] = self.op("Cast", [self.lengths], to=7)
        [lengths] = self.op("Unsqueeze", [lengths, [0, 2]])
        return self.op("Less", [steps, lengths])[0]

    def _first(self, given: gs.Tensor | None, which: int) -> gs.Tensor:
        """The state [batch, hidden] before the first step."""
        if given is not None:
            return self.op("Gather", [given, which], axis=int(self.batch_major))[0]
        if isinstance(self.batch, int):
            return self.graph.constant(np.zeros((self.batch, self.hidden), self.dtype), "zeros")
        [batch] = self.op("Shape", [self.x], start=1, end=2)
        [shape] = self.op("Concat", [batch, [self.hidden]], axis=0)
        return self.op("Expand", [0.0, shape])[0]

    def _rows(self, tensor: gs.Tensor, start: int, end: int) -> gs.Tensor:
        """Rows of one vector for each unit of the state."""
        bounds = [[start * self.hidden], [end * self.hidden]]
        return self.op("Slice", [tensor, *bounds, [0]])[0]

    def _cell(self, which: int) -> tuple[gs.Tensor, Cell]:
        """What the input contributes to each step, [steps, batch, gates * hidden], and the cell."""
        op, attrs, gates = self.op, self.node.attrs, GATES[self.node.op]

        def matrix(tensor: gs.Tensor) -> gs.Tensor:
            return op("Transpose", op("Gather", [tensor, which], axis=0), perm=[1, 0])[0]

        resets_product = self.node.op == "GRU" and bool(attrs.get("linear_before_reset", 0))
        [x] = op("MatMul", [self.x, matrix(self.w)])
        bias = None
        if self.b is not None:
            [both] = op("Gather", [self.b, which], axis=0)
            added, bias = self._rows(both, 0, gates), self._rows(both, gates, 2 * gates)
            if not resets_product:
                [added] = op("Add", [added, bias])
                bias = None
            [x] = op("Add", [x, added])
        if self.node.op == "GRU" and not resets_product:
            [rows] = op("Gather", [self.r, which], axis=0)
            parts = (self._rows(rows, 0, 2), self._rows(rows, 2, 3))
            recurrent = [op("Transpose", [part], perm=[1, 0])[0] for part in parts]
        else:
            recurrent = [matrix(self.r)]
        peepholes = []
        if self.p is not None:
            [row] = op("Gather", [self.p, which], axis=0)
            peepholes = [self._rows(row, i, i + 1) for i in range(3)]
        cell = Cell(
            self.node.op,
            self.hidden,
            self.functions[which],
            attrs.get("clip", 0.0),
            bool(attrs.get("input_forget", 0)),
            recurrent,
            bias,
            peepholes,
        )
        return x, cell

    def _scan(self, which: int, mask: gs.Tensor | None) -> list[gs.Tensor]:
        """What direction `which` makes: Y [steps, batch, hidden], Y_h and Y_c [batch, hidden]."""
        x, cell = self._cell(which)
        first = [self._first(given, which) for given in self.initial]
        sources = [x] if mask is None else [x, mask]
        body = gs.Graph(name=self.graph.unique_name("step"), opset=self.graph.opset)
        body.metadata = {}
        beside = Node(
            self.node.op,
            self.node.name,
            doc_string=self.node.doc_string,
            metadata=self.node.metadata,
        )
        beside.owner = body
        write = _Writer(self.graph, beside, self.dtype)
        state = [self._variable("state", self.hidden) for _ in first]
        element = self._variable("element", GATES[self.node.op] * self.hidden)
        body.inputs = [*state, element]
        new = cell.step(write, element, state)
        output = new[0]
        if mask is not None:
            inside = self._variable("inside", 1, np.dtype(np.bool_))
            body.inputs.append(inside)
            [output] = write("Where", [inside, new[0], 0.0])
            new = [write("Where", [inside, *pair])[0] for pair in zip(new, state, strict=True)]
        else:
            [output] = write("Identity", [output])
        body.outputs = [*new, output]
        for tensor in body.outputs:
            tensor.dtype, tensor.shape = self.dtype, (self.batch, self.hidden)
        backward = int(self.backward[which])
        *states, outputs = self.op(
            "Scan",
            [*first, *sources],
            outputs=len(first) + 1,
            body=body,
            num_scan_inputs=len(sources),
            scan_input_directions=[backward] * len(sources),
            scan_output_directions=[backward],
        )
        return [outputs, *states]

    def _variable(self, name: str, length: int, dtype: np.dtype[Any] | None = None) -> Variable:
        return Variable(self.graph.unique_name(name), dtype or self.dtype, (self.batch, length))
