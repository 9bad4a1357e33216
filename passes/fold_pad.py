"""Let a convolution or pool do the padding before it.

    Conv(Pad(x, p), W)                       =>   Conv(x, W), pads + p
    AveragePool(Pad(x, p))                   =>   AveragePool(x), pads + p, count_include_pad = 1
    MaxPool(Pad(x, p, -inf))                 =>   MaxPool(x), pads + p
    ConvInteger(Pad(x, p, z), W, z)          =>   ConvInteger(x, W, z), pads + p

*Needs* constant pads of zeros (-inf for MaxPool; zeros too where x comes out of a Relu or is
without a sign), none of them negative or outside the spatial axes, and a result that goes nowhere
else. For pools also: ceil_mode and dilations unset, every pad smaller than the kernel, no indices.

*Numerics*: rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgec.graph import Graph
from edgec.patterns import scalar
from edgec.rewrite import Numerics, Rewrite, Skip
from edgec.tensors import Constant, Node


@dataclass(frozen=True)
class FoldPad(Rewrite):
    name: ClassVar[str] = "fold-pad"
    numerics: ClassVar[Numerics] = "rounding"
    roots: ClassVar[tuple[str, ...]] = ("Conv", "AveragePool", "MaxPool", "ConvInteger")

    def rewrite(self, node: Node, graph: Graph) -> None:
        pad = graph.producer(node.inputs[0])
        if pad is None or pad.op != "Pad" or pad.domain:
            raise Skip("the input is not made by a Pad")
        if graph.uses(pad.outputs[0]) > 1:
            raise Skip("the padded tensor has other uses")
        if pad.attrs.get("mode", "constant") != "constant":
            raise Skip(f"it pads by {pad.attrs['mode']}")
        if node.attrs.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
            raise Skip("auto_pad depends on the padded size")
        shape = pad.inputs[0].shape
        if shape is None:
            raise Skip("the rank is not known")
        added = _spatial_pads(pad, len(shape))
        given = node.attrs.get("pads") or [0] * len(added)
        pads = [a + b for a, b in zip(given, added, strict=True)]
        if node.op in ("AveragePool", "MaxPool"):
            _guard_pool(node, given, pads, graph)
        _guard_value(node, pad, graph)

        attrs = {k: v for k, v in node.attrs.items() if k != "auto_pad"} | {"pads": pads}
        if node.op == "AveragePool":
            attrs["count_include_pad"] = 1
        made = graph.insert(node, node.op, [pad.inputs[0], *node.inputs[1:]], attrs)
        graph.replace(node.outputs[0], made.outputs[0])


def _spatial_pads(pad: Node, rank: int) -> list[int]:
    """What `pad` adds before and then after each spatial axis."""
    given = [t if t.name else None for t in pad.inputs[1:]] + [None] * 2
    pads, _, axes = given[:3]
    if not isinstance(pads, Constant) or not (axes is None or isinstance(axes, Constant)):
        raise Skip("the pads are not constant")
    named = list(range(rank)) if axes is None else [a % rank for a in axes.values.tolist()]
    amounts = [0] * (2 * rank)
    values = pads.values.tolist()
    for i, axis in enumerate(named):
        amounts[axis], amounts[rank + axis] = values[i], values[len(named) + i]
    if min(amounts) < 0:
        raise Skip("a pad is negative")
    if any(amounts[:2]) or any(amounts[rank : rank + 2]):
        raise Skip("batch or channels are padded")
    return amounts[2:rank] + amounts[rank + 2 :]


def _guard_pool(node: Node, given: list[int], pads: list[int], graph: Graph) -> None:
    if node.attrs.get("ceil_mode", 0) or any(d != 1 for d in node.attrs.get("dilations", ())):
        raise Skip("ceil_mode or dilations are set")
    if any(p >= k for p, k in zip(pads, node.attrs["kernel_shape"] * 2, strict=True)):
        raise Skip("a pad is not smaller than the kernel")
    if len(node.outputs) > 1 and graph.uses(node.outputs[1]):
        raise Skip("the indices are used")
    if node.op == "AveragePool" and any(given) and not node.attrs.get("count_include_pad", 0):
        raise Skip("the pool's own pads do not count")


def _origin(node: Node) -> float | None:
    """What stands for 0 in the input of a convolution."""
    if node.op != "ConvInteger" or len(node.inputs) < 3 or not node.inputs[2].name:
        return 0.0
    return scalar(node.inputs[2])


def _guard_value(node: Node, pad: Node, graph: Graph) -> None:
    value = pad.inputs[2] if len(pad.inputs) > 2 and pad.inputs[2].name else None
    if not (value is None or isinstance(value, Constant)):
        raise Skip("the value is not constant")
    number = 0.0 if value is None else float(value.values.reshape(-1)[0])
    if node.op != "MaxPool":
        if number != _origin(node):
            raise Skip(f"it pads with {number:g}")
        return
    maker = graph.producer(pad.inputs[0])
    positive = maker is not None and maker.op == "Relu" and not maker.domain
    positive = positive or pad.inputs[0].dtype == np.uint8
    if number != -np.inf and not (positive and number == 0):
        raise Skip(f"{number:g} may be a maximum")
