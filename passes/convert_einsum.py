"""Write Einsum as MatMul, Mul and ReduceSum.

    y = Einsum<"bid,bjd->bij">(a, b)   =>   y = MatMul(a, Transpose(b))

Operands are taken two at a time: what they share and nobody needs any more is summed by a MatMul,
what they do not share is broadcast. An index that an operand has twice takes its diagonal. With
`simple`, only where at most one MatMul and Transposes come out.

*Needs* known ranks, and static sizes of indices that are joined by a Reshape: several that are
summed or outside, and those of a diagonal.

*Numerics*: rounding.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from edgec.graph import Graph
from edgec.patterns import substitute
from edgec.rewrite import Numerics, Rewrite, Skip
from edgec.tensors import Node, Shape

Labels = tuple[str, ...]


@dataclass(frozen=True)
class ConvertEinsum(Rewrite):
    simple: bool = False

    name: ClassVar[str] = "convert-einsum"
    numerics: ClassVar[Numerics] = "rounding"
    roots: ClassVar[tuple[str, ...]] = ("Einsum",)

    def rewrite(self, node: Node, graph: Graph) -> None:
        shapes = [t.shape for t in node.inputs]
        if any(shape is None for shape in shapes):
            raise Skip("a rank is not known")
        terms, result = _parse(node.attrs["equation"], [len(shape) for shape in shapes])
        plan = _shortest(terms, shapes, result)
        ops = [op for op, *_ in plan.steps]
        if self.simple and (set(ops) - {"MatMul", "Transpose"} or ops.count("MatMul") > 1):
            raise Skip("more than a MatMul would come out")
        _write(node, graph, plan)


def _shortest(terms: list[Labels], shapes: list[Shape], result: Labels) -> _Plan:
    """The shorter plan of those that begin with the first and with the last operand."""
    plans, why = [], None
    for order in (range(len(terms)), range(len(terms) - 1, -1, -1)):
        try:
            plans.append(_Plan(terms, shapes, result, order))
        except Skip as skip:
            why = why or skip
    if why is not None and not plans:
        raise why
    return min(plans, key=lambda plan: len(plan.steps))


def _parse(equation: str, ranks: Sequence[int]) -> tuple[list[Labels], Labels]:
    """The indices of each operand and of the result; those of an ellipsis are numbers.

    An ellipsis is aligned at its end.
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    hidden = [
        rank - len(term.replace("...", "")) if "..." in term else 0
        for term, rank in zip(terms, ranks, strict=False)
    ]
    widest = max(hidden)

    def spelled(term: str, count: int) -> Labels:
        numbers = tuple(str(n) for n in range(widest - count, widest))
        before, dots, after = term.partition("...")
        return (*before, *(numbers if dots else ()), *after)

    labels = [spelled(term, count) for term, count in zip(terms, hidden, strict=False)]
    if [len(each) for each in labels] != list(ranks):
        raise Skip("the equation does not fit the operands")
    if arrow:
        result = spelled(right, widest)
    else:
        counts = Counter(re.sub(r"[.,]", "", left))
        result = spelled("..." + "".join(sorted(k for k, n in counts.items() if n == 1)), widest)
    if widest and "..." not in right and arrow:
        raise Skip("it sums over an ellipsis")
    if len(set(result)) < len(result):
        raise Skip("the result repeats an index")
    return labels, result


@dataclass(frozen=True)
class _Value:
    """An operand, or what a step makes: its number, its indices and their sizes."""

    number: int
    labels: Labels
    sizes: Shape

    def size(self, labels: Sequence[str]) -> list[Any]:
        return [self.sizes[self.labels.index(label)] for label in labels]


class _Plan:
    """The operators that compute an Einsum: `steps` of (op, numbers of values, constant, attrs).

    The operands have the first numbers, the steps those that follow. Skips where a size that it
    needs is not known.
    """

    def __init__(
        self, terms: list[Labels], shapes: list[Shape], result: Labels, order: Sequence[int]
    ) -> None:
        self.count = len(terms)
        self.steps: list[tuple[str, list[int], list[int] | None, dict[str, Any]]] = []
        values = [_Value(i, terms[i], tuple(shapes[i])) for i in order]
        values = [self.distinct(value) for value in values]
        while len(values) > 1:
            a, b, *rest = values
            needed = {*result, *(label for value in rest for label in value.labels)}
            values = [self.contracted(a, b, needed), *rest]
        self.ordered(self.summed(values[0], set(result)), result)

    def step(
        self, op: str, values: list[_Value], constant: list[int] | None = None, **attrs: Any
    ) -> int:
        self.steps.append((op, [value.number for value in values], constant, attrs))
        return self.count + len(self.steps) - 1

    def ordered(self, value: _Value, labels: Sequence[str]) -> _Value:
        """`value` with its indices as in `labels`."""
        labels = tuple(labels)
        if value.labels == labels:
            return value
        perm = [value.labels.index(label) for label in labels]
        return _Value(self.step("Transpose", [value], perm=perm), labels, tuple(value.size(labels)))

    def summed(self, value: _Value, needed: set[str]) -> _Value:
        axes = [i for i, label in enumerate(value.labels) if label not in needed]
        if not axes:
            return value
        kept = [label for label in value.labels if label in needed]
        number = self.step("ReduceSum", [value], axes, keepdims=0)
        return _Value(number, tuple(kept), tuple(value.size(kept)))

    def distinct(self, value: _Value) -> _Value:
        """`value` with one index where it had one twice: the diagonal."""
        for label, times in Counter(value.labels).items():
            for _ in range(times - 1):
                value = self.diagonal(value, label)
        return value

    def diagonal(self, value: _Value, label: str) -> _Value:
        """The diagonal of two axes of size n: every (n + 1)-th element of both as one axis."""
        first = value.labels.index(label)
        second = value.labels.index(label, first + 1)
        size = value.sizes[first]
        if not isinstance(size, int) or value.sizes[second] != size:
            raise Skip("the size of a diagonal is not known")
        others = [i for i in range(len(value.labels)) if i not in (first, second)]
        kept = tuple(value.labels[i] for i in others)
        sizes = tuple(value.sizes[i] for i in others)
        perm = [*others, first, second]
        if perm != sorted(perm):
            value = _Value(self.step("Transpose", [value], perm=perm), (), ())
        flat = _Value(self.step("Reshape", [value], [0] * len(kept) + [size * size]), (), ())
        index = [i * (size + 1) for i in range(size)]
        number = self.step("Gather", [flat], index, axis=len(kept))
        return _Value(number, (*kept, label), (*sizes, size))

    def contracted(self, a: _Value, b: _Value, needed: set[str]) -> _Value:
        """The product of both, summed over what is not `needed`."""
        a = self.summed(a, needed | set(b.labels))
        b = self.summed(b, needed | set(a.labels))
        both = [label for label in a.labels if label in b.labels]
        batch = [label for label in both if label in needed]
        inner = [label for label in both if label not in needed]
        left = [label for label in a.labels if label not in both]
        right = [label for label in b.labels if label not in both]
        sizes = [_broadcast(*pair) for pair in zip(a.size(batch), b.size(batch), strict=True)]
        shape = (*sizes, *a.size(left), *b.size(right))
        labels = (*batch, *left, *right)
        if not inner:
            number = self.step("Mul", [self.spread(a, labels), self.spread(b, labels)])
            return _Value(number, labels, shape)
        pairs = zip(a.size(inner), b.size(inner), strict=True)
        if any(isinstance(m, int) and isinstance(n, int) and m != n for m, n in pairs):
            raise Skip("a summed index has two sizes")
        keeps_left = not batch and bool(left)
        a = self.ordered(a, (*batch, *left, *inner))
        b = self.ordered(b, (*batch, *inner, *right))
        if not keeps_left and len(left) != 1:
            a = self.joined(a, len(batch), len(left), len(inner))
        elif len(inner) != 1:
            a = self.joined(a, len(batch) + len(left), len(inner))
        if len(inner) != 1 or len(right) != 1:
            b = self.joined(b, len(batch), len(inner), len(right))
        product = _Value(self.step("MatMul", [a, b]), labels, shape)
        if len(right) == 1 and (keeps_left or len(left) == 1):
            return product
        known = [size if isinstance(size, int) else -1 for size in shape]
        first = len(batch) + (len(left) if keeps_left else 0)
        return self.reshaped(product, [0] * first + known[first:])

    def spread(self, value: _Value, labels: Labels) -> _Value:
        """`value` with the indices `labels`, those that it lacks of size 1."""
        value = self.ordered(value, [label for label in labels if label in value.labels])
        axes = [i for i, label in enumerate(labels) if label not in value.labels]
        if axes == list(range(len(axes))):
            return value
        return _Value(self.step("Unsqueeze", [value], axes), (), ())

    def joined(self, value: _Value, kept: int, *groups: int) -> _Value:
        """`value` with each of the `groups` of axes, which follow the `kept` ones, as one axis."""
        sizes = list(value.sizes[kept:])
        shape = [0] * kept
        for count in groups:
            group, sizes = sizes[:count], sizes[count:]
            known = [size for size in group if isinstance(size, int)]
            shape.append(math.prod(known) if len(known) == count else -1)
        return self.reshaped(value, shape)

    def reshaped(self, value: _Value, shape: list[int]) -> _Value:
        if shape.count(-1) > 1:
            raise Skip("sizes to be joined are not known")
        number = self.step("Reshape", [value], shape)
        return _Value(number, value.labels, value.sizes)


def _broadcast(a: Any, b: Any) -> Any:
    """The size of an index that both operands have, where it is known."""
    return b if a == 1 or (isinstance(b, int) and b != 1) else a


def _write(node: Node, graph: Graph, plan: _Plan) -> None:
    values = list(node.inputs)
    steps = plan.steps or [("Identity", [0], None, {})]
    for i, (op, numbers, constant, attrs) in enumerate(steps):
        inputs = [values[number] for number in numbers]
        if constant is not None:
            inputs.append(graph.constant(np.array(constant, np.int64), op.lower()))
        if i == len(steps) - 1:
            substitute(graph, node, op, inputs, attrs)
        else:
            values += graph.insert(node, op, inputs, attrs).outputs
