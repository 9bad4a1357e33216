"""Optional values: a tensor is an optional that has one, an absent input an empty optional."""

from __future__ import annotations

import onnx_graphsurgeon as gs
from tvm import relax

from edgec.lower.context import Context, Refused


def optional_has_element(
    ctx: Context, node: gs.Node, inputs: list[relax.Expr | None]
) -> relax.Expr:
    return ctx.const(any(x is not None for x in inputs), "bool")


def optional_get_element(
    ctx: Context, node: gs.Node, inputs: list[relax.Expr | None]
) -> relax.Expr:
    if not inputs or inputs[0] is None:
        raise Refused("it takes the element of an empty optional")
    return inputs[0]


ENTRIES = {
    "OptionalGetElement": optional_get_element,
    "OptionalHasElement": optional_has_element,
}
