"""Outputs that are chosen by comparing floats, and when another choice is as good.

The index of a maximum, an integer rounded from a float or a comparison may flip where the floats
behind it are nearly equal. Such an element is justified when the floats that decide it differ by
less than their tolerance. Those floats are probed in the reference model as further outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from edgec.arrays import Array, is_float
from edgec.compare import Justify, tolerance

_SAME_ORDER = {"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"}
_ROUNDINGS = {"Floor": np.floor, "Ceil": np.ceil, "Round": np.rint}
_COMPARISONS = {"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"}


@dataclass(frozen=True)
class Choice:
    """The node that decides an output, and the names of the tensors to probe."""

    op: str
    probes: tuple[str, ...]
    axis: int = 0

    def rule(self, probes: Mapping[str, Array]) -> Justify:
        """The rule for one sample, given the values of the probes."""
        values = [probes[name] for name in self.probes]
        check = {
            "ArgMax": _selected,
            "ArgMin": _selected,
            "TopK": _selected,
            "NonMaxSuppression": _suppressed,
            "QuantizeLinear": _quantized,
            **dict.fromkeys(_COMPARISONS, _compared),
        }.get(self.op, _rounded)

        def justify(expected: Array, actual: Array) -> Array:
            if not is_float(values[0].dtype):
                return np.zeros(expected.shape, np.bool_)
            return check(self, values, expected, actual).reshape(expected.shape)

        return justify


def find_choices(model: onnx.ModelProto) -> dict[str, Choice]:
    """The outputs of `model` that a comparison of computed floats decides, by name."""
    producers = {name: node for node in model.graph.node for name in node.output if name}
    choices = {}
    for output in model.graph.output:
        choice = _choice(output.name, producers)
        if choice is not None and all(name in producers for name in choice.probes[:1]):
            choices[output.name] = choice
    return choices


def _choice(name: str, producers: Mapping[str, onnx.NodeProto]) -> Choice | None:
    """The choice behind a tensor: back through nodes that keep the order of its elements."""
    casts: list[str] = []
    while (node := producers.get(name)) is not None:
        attributes = {a.name: a for a in node.attribute}
        op, inputs = node.op_type, tuple(node.input)
        if op in ("ArgMax", "ArgMin"):
            return Choice(op, inputs[:1], attributes["axis"].i if "axis" in attributes else 0)
        if op == "TopK":
            is_index = name == node.output[1]
            axis = attributes["axis"].i if "axis" in attributes else -1
            return Choice(op, inputs[:1], axis) if is_index else None
        if op == "NonMaxSuppression":
            return Choice(op, inputs[1:2])
        if op == "QuantizeLinear":
            axis = attributes["axis"].i if "axis" in attributes else 1
            return Choice(op, tuple(i for i in inputs if i), axis)
        if op in _COMPARISONS:
            return Choice(op, inputs)
        if op in _ROUNDINGS:
            return Choice(op, inputs)
        if op not in _SAME_ORDER:
            break
        if op == "Cast":
            casts.append(inputs[0])
        name = inputs[0]
    return Choice("Cast", (casts[-1],)) if casts else None


def _selected(choice: Choice, values: list[Array], expected: Array, actual: Array) -> Array:
    """Indices along an axis: of values that are equal within tolerance, none taken twice."""
    source = values[0]
    axis = choice.axis % source.ndim
    before, length, after = source.shape[:axis], source.shape[axis], source.shape[axis + 1 :]
    shape = (*before, -1, *after)
    wanted = expected.astype(np.int64).reshape(shape)
    given = actual.astype(np.int64).reshape(shape)
    inside = (given >= 0) & (given < length)
    given = np.where(inside, given, wanted)
    ordered = np.sort(given, axis=axis)
    unique = (np.diff(ordered, axis=axis) != 0).all(axis=axis, keepdims=True)
    taken = np.take_along_axis(source, given, axis).astype(np.float64)
    best = np.take_along_axis(source, wanted, axis).astype(np.float64)
    allowed = np.take_along_axis(tolerance(source), wanted, axis)
    justified: Array = inside & unique & (np.abs(taken - best) <= allowed)
    return justified


def _suppressed(choice: Choice, values: list[Array], expected: Array, actual: Array) -> Array:
    """Rows (batch, class, box): of scores that are equal within tolerance, no box taken twice."""
    scores = values[0]
    wanted = expected.astype(np.int64).reshape(-1, 3)
    given = actual.astype(np.int64).reshape(-1, 3)
    inside: Array = np.all((given >= 0) & (given < scores.shape), axis=1)
    unique = len(np.unique(given, axis=0)) == len(given)
    given = np.where(inside[:, None], given, wanted)
    allowed = tolerance(scores, channel_axis=1)[tuple(wanted.T)]
    distance = np.abs(scores[tuple(given.T)].astype(np.float64) - scores[tuple(wanted.T)])
    rows: Array = inside & unique & (distance <= allowed)
    return np.repeat(rows, 3)


def _compared(choice: Choice, values: list[Array], expected: Array, actual: Array) -> Array:
    """A comparison may turn out either way where its sides are equal within their tolerances."""
    left, right = values
    distance = np.abs(left.astype(np.float64) - right.astype(np.float64))
    close: Array = distance <= tolerance(left) + tolerance(right)
    return close


def _rounded(choice: Choice, values: list[Array], expected: Array, actual: Array) -> Array:
    """An integer is right when some value within the tolerance of its float becomes it."""
    source = values[0].astype(np.float64)
    allowed = tolerance(values[0])
    given = actual.reshape(source.shape)
    if actual.dtype == np.bool_:
        return np.abs(source) <= allowed
    rounding = _ROUNDINGS.get(choice.op, np.trunc)
    return _between(rounding(source - allowed), given, rounding(source + allowed))


def _quantized(choice: Choice, values: list[Array], expected: Array, actual: Array) -> Array:
    source, scale, *rest = (value.astype(np.float64) for value in values)
    if scale.ndim == 1 and scale.size > 1:
        shape = [1] * source.ndim
        shape[choice.axis] = -1
        scale, *rest = (value.reshape(shape) for value in (scale, *rest))
    elif scale.ndim > 1:
        return np.zeros(expected.shape, np.bool_)
    zero = rest[0] if rest else 0.0
    allowed = tolerance(values[0])
    low, high = (np.rint((source + sign * allowed) / scale) + zero for sign in (-1, 1))
    return _between(low, actual.reshape(source.shape), high)


def _between(low: Array, given: Array, high: Array) -> Array:
    inside: Array = (low <= given.astype(np.float64)) & (given.astype(np.float64) <= high)
    return inside
