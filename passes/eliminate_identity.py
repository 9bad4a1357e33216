"""Remove operators that return their first input unchanged.

    y = Identity(x)                            =>   x
    y = Dropout(x), inference, mask unread     =>   x
    y = Cast(x) to the type of x               =>   x      (CastLike too)
    y = Reshape(x, s) to the shape of x        =>   x      (Flatten, Squeeze, Unsqueeze, Expand,
                                                            Tile, Split into one)
    y = Transpose(x), no axis longer than 1 moves past another   =>   x
    y = Slice(x), all of x, forwards           =>   x
    y = Pad(x), by nothing                     =>   x
    y = Resize(x), nearest, to the shape of x by scales of 1   =>   x
    y = Where(true, x, z), Where(false, z, x)  =>   x      (all of a constant condition)
    y = Concat(x), Sum(x), Max(x), Min(x), Mean(x)   =>   x
    y = x * 1, x / 1, x - 0, 1 * x             =>   x      (x + 0 for integers: -0.0 + 0 is 0.0)

*Needs* types and static shapes of both sides where they decide; a graph output keeps its name, so
an identity from a graph input or constant to an output stays.

*Numerics*: exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from edgec.graph import Graph
from edgec.rewrite import Numerics, Rewrite, Skip
from edgec.tensors import Constant, Node, is_static

_SMALL_ELEMENTS = 1024


# A guard returns which input the node hands through, or raises Skip.


def _always(node: Node, graph: Graph) -> int:
    return 0


def _dropout(node: Node, graph: Graph) -> int:
    if len(node.outputs) > 1 and graph.uses(node.outputs[1]):
        raise Skip("the mask is used")
    if len(node.inputs) > 2 and node.inputs[2].name:
        mode = node.inputs[2]
        if not isinstance(mode, Constant):
            raise Skip("training_mode is not constant")
        if mode.values.any():
            raise Skip("training_mode is on")
    return 0


def _cast(node: Node, graph: Graph) -> int:
    if node.inputs[0].dtype is None or node.inputs[0].dtype != node.outputs[0].dtype:
        raise Skip("the type changes")
    return 0


def _same_shape(node: Node, graph: Graph, source: int = 0) -> int:
    before, after = node.inputs[source], node.outputs[0]
    if not (is_static(before) and is_static(after)):
        raise Skip("the shapes are not static")
    if before.shape != after.shape:
        raise Skip("the shape changes")
    return source


def _transpose(node: Node, graph: Graph) -> int:
    _same_shape(node, graph)
    shape = node.inputs[0].shape
    perm = node.attrs.get("perm", list(reversed(range(len(shape)))))
    moved = [axis for axis in perm if shape[axis] != 1]
    if moved != sorted(moved):
        raise Skip("the axes move")
    return 0


def _slice(node: Node, graph: Graph) -> int:
    _same_shape(node, graph)
    if len(node.inputs) > 4 and node.inputs[4].name:
        steps = node.inputs[4]
        if not isinstance(steps, Constant):
            raise Skip("the steps are not constant")
        if (steps.values < 0).any():
            raise Skip("a step is negative")
    return 0


def _pad(node: Node, graph: Graph) -> int:
    pads = node.inputs[1]
    if not isinstance(pads, Constant):
        raise Skip("the pads are not constant")
    if pads.values.any():
        raise Skip("a pad is not zero")
    return 0


def _resize(node: Node, graph: Graph) -> int:
    _same_shape(node, graph)
    if node.attrs.get("mode", "nearest") != "nearest":
        raise Skip("it interpolates")
    if node.attrs.get("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        raise Skip("it crops")
    if len(node.inputs) > 2 and node.inputs[2].name:
        scales = node.inputs[2]
        if not isinstance(scales, Constant) or (scales.values != 1).any():
            raise Skip("a scale is not 1")
    return 0


def _where(node: Node, graph: Graph) -> int:
    condition = node.inputs[0]
    if not isinstance(condition, Constant) or math.prod(condition.shape) > _SMALL_ELEMENTS:
        raise Skip("the condition is not a small constant")
    if condition.values.any() != condition.values.all():
        raise Skip("the condition is neither all true nor all false")
    return _same_shape(node, graph, 1 if condition.values.all() else 2)


def _only_input(node: Node, graph: Graph) -> int:
    if len(node.inputs) != 1:
        raise Skip("there is more than one input")
    return 0


def _only_output(node: Node, graph: Graph) -> int:
    if len(node.outputs) != 1:
        raise Skip("there is more than one output")
    return 0


def _neutral(value: int, *, commutes: bool = False) -> Callable[[Node, Graph], int]:
    def guard(node: Node, graph: Graph) -> int:
        sides = (0, 1) if commutes else (0,)
        source = next((i for i in sides if _is_all(node.inputs[1 - i], value)), None)
        if source is None:
            raise Skip(f"no input is {value}" if commutes else f"the second input is not {value}")
        return _same_shape(node, graph, source)

    return guard


def _is_all(tensor: gs.Tensor, value: int) -> bool:
    if not isinstance(tensor, Constant) or math.prod(tensor.shape) > _SMALL_ELEMENTS:
        return False
    values = tensor.values
    return bool((values == value).all()) and not np.signbit(values).any()


def _add(node: Node, graph: Graph) -> int:
    source = _neutral(0, commutes=True)(node, graph)
    if not np.issubdtype(node.inputs[0].dtype, np.integer):
        raise Skip("-0.0 + 0 is 0.0")
    return source


_GUARDS: dict[str, Callable[[Node, Graph], int]] = {
    "Identity": _always,
    "Dropout": _dropout,
    "Cast": _cast,
    "CastLike": _cast,
    "Reshape": _same_shape,
    "Flatten": _same_shape,
    "Squeeze": _same_shape,
    "Unsqueeze": _same_shape,
    "Expand": _same_shape,
    "Tile": _same_shape,
    "Split": _only_output,
    "Transpose": _transpose,
    "Slice": _slice,
    "Pad": _pad,
    "Resize": _resize,
    "Where": _where,
    "Concat": _only_input,
    "Sum": _only_input,
    "Max": _only_input,
    "Min": _only_input,
    "Mean": _only_input,
    "Mul": _neutral(1, commutes=True),
    "Div": _neutral(1),
    "Sub": _neutral(0),
    "Add": _add,
}


@dataclass(frozen=True)
class EliminateIdentity(Rewrite):
    name: ClassVar[str] = "eliminate-identity"
    numerics: ClassVar[Numerics] = "exact"
    roots: ClassVar[tuple[str, ...]] = tuple(_GUARDS)

    def rewrite(self, node: Node, graph: Graph) -> None:
        source = node.inputs[_GUARDS[node.op](node, graph)]
        result = node.outputs[0]
        why = graph.why_not_replace(result, source)
        if why:
            raise Skip(why)
        graph.replace(result, source)
