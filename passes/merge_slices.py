"""Read from before a Concat or a Slice what a Slice takes of it.

    y = Slice(Concat(a, b), all of b)          =>   y = b
    y = Slice(Slice(x, axis k), axis k)        =>   y = Slice(x, axis k)

*Needs* constant starts, ends, axes and steps, forward steps, static shapes; of a Concat, exactly
one whole input; of a Slice, one that nothing else reads.

*Numerics*: exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from edgec.graph import Graph
from edgec.rewrite import Numerics, Rewrite, Skip
from edgec.tensors import Constant, Node, is_static


@dataclass(frozen=True)
class MergeSlices(Rewrite):
    name: ClassVar[str] = "merge-slices"
    numerics: ClassVar[Numerics] = "exact"
    roots: ClassVar[tuple[str, ...]] = ("Slice",)

    def rewrite(self, node: Node, graph: Graph) -> None:
        maker = graph.producer(node.inputs[0])
        if maker is None or maker.domain or maker.op not in ("Concat", "Slice"):
            raise Skip("the input is not made by a Concat or a Slice")
        if maker.op == "Concat":
            _hand_through(node, maker, graph)
        else:
            _join(node, maker, graph)


def _ranges(node: Node) -> dict[int, range]:
    """The indices that `node` takes of each axis it names."""
    shape = node.inputs[0].shape
    if not is_static(node.inputs[0]):
        raise Skip("the shapes are not static")
    if not all(isinstance(t, Constant) for t in node.inputs[1:] if t.name):
        raise Skip("a start, end, axis or step is not constant")
    starts, ends = (t.values.tolist() for t in node.inputs[1:3])
    axes = _optional(node, 3) or list(range(len(starts)))
    steps = _optional(node, 4) or [1] * len(starts)
    if any(step < 1 for step in steps):
        raise Skip("a step is negative")
    return {
        axis % len(shape): range(*slice(start, end, step).indices(shape[axis]))
        for start, end, axis, step in zip(starts, ends, axes, steps, strict=True)
    }


def _optional(node: Node, index: int) -> list[int]:
    given = len(node.inputs) > index and node.inputs[index].name
    return [int(v) for v in node.inputs[index].values] if given else []


def _hand_through(node: Node, concat: Node, graph: Graph) -> None:
    axis = concat.attrs["axis"] % len(concat.outputs[0].shape or (1,))
    ranges = {
        a: taken for a, taken in _ranges(node).items() if len(taken) < node.inputs[0].shape[a]
    }
    if list(ranges) != [axis]:
        raise Skip("it does not cut along the axis of the Concat alone")
    source = _whole_part(concat, axis, ranges[axis])
    why = graph.why_not_replace(node.outputs[0], source)
    if why:
        raise Skip(why)
    graph.replace(node.outputs[0], source)


def _whole_part(concat: Node, axis: int, taken: range) -> gs.Tensor:
    start = 0
    for tensor in concat.inputs:
        if not is_static(tensor):
            raise Skip("the shapes are not static")
        end = start + tensor.shape[axis]
        if taken == range(start, end):
            return tensor
        start = end
    raise Skip("it does not take one whole input of the Concat")


def _join(node: Node, first: Node, graph: Graph) -> None:
    if graph.uses(first.outputs[0]) > 1:
        raise Skip("the first result has other uses")
    inner, outer = _ranges(first), _ranges(node)
    joined = inner | outer
    for axis in inner.keys() & outer.keys():
        joined[axis] = inner[axis][outer[axis].start : outer[axis].stop : outer[axis].step]
    columns = [
        ("starts", [r.start for r in joined.values()]),
        ("ends", [r.stop for r in joined.values()]),
        ("axes", list(joined)),
        ("steps", [r.step for r in joined.values()]),
    ]
    constants = [graph.constant(np.array(v, np.int64), name) for name, v in columns]
    made = graph.insert(node, "Slice", [first.inputs[0], *constants])
    graph.replace(node.outputs[0], made.outputs[0])
