"""Images with one spatial axis are images of one row: x[N, C, L] is x[N, C, 1, L]."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import onnx_graphsurgeon as gs
from tvm import relax

from edgec.lower.context import Context, Refused
from edgec.lower.image import Blocked

Entry = Callable[[Context, gs.Node, list[Any]], "Blocked | relax.Expr | list[Blocked] | None"]
"""Gets images in blocked form where they have one. Returns None to decline: the operator is then
lowered on plain tensors."""

_OF_AXIS = ("kernel_shape", "strides", "dilations", "output_padding", "output_shape")
"""Attributes with one value for each spatial axis; pads have two."""


def planar(entry: Entry) -> Entry:
    """An entry for windows over height and width that takes those over one axis too."""

    def either(ctx: Context, node: gs.Node, inputs: list[Any]) -> Any:
        if len(_shape(ctx, inputs[0])) != 3:
            return entry(ctx, node, inputs)
        made = entry(ctx, _on_a_plane(ctx, node), [_row(ctx, inputs[0]), *inputs[1:]])
        return replace(made, rank=3) if isinstance(made, Blocked) else made

    return either


def _shape(ctx: Context, x: Any) -> tuple[int, ...]:
    return x.shape(ctx) if isinstance(x, Blocked) else ctx.shape(x)


def _row(ctx: Context, x: Any) -> Any:
    """An image of one axis as one of one row."""
    if isinstance(x, Blocked):
        return replace(x, rank=4)
    batch, channels, length = ctx.shape(x)
    return ctx.reshape(x, (batch, channels, 1, length))


def _on_a_plane(ctx: Context, node: gs.Node) -> gs.Node:
    """The node with its attributes, and its weights if it has any, over two axes."""
    attributes = dict(node.attrs)
    for name in (*_OF_AXIS, "pads"):
        values = list(ctx.attr(node, name, []))
        if len(values) > 1 + (name == "pads"):
            raise Refused(f"{name} {values} has too many entries for one axis")
        if values:
            row = 0 if name in ("pads", "output_padding") else 1
            attributes[name] = [each for value in values for each in (row, value)]
    inputs = [gs.Variable(tensor.name) for tensor in node.inputs]
    weight = ctx.constant(node, 1)
    if weight is not None:
        inputs[1] = gs.Variable(f"{inputs[1].name}.row")
        ctx.values[inputs[1].name] = weight[:, :, None]
    outputs = [gs.Variable(tensor.name) for tensor in node.outputs]
    return gs.Node(node.op, attrs=attributes, inputs=inputs, outputs=outputs)
