"""Quantized Softmax and LayerNormalization (`edgec.qdq.rows`) as one kernel each.

The graph has them as some twenty standard operators, the last of which quantizes; `rows` finds
these behind it. What they were lowered to is then read by nothing, and dropped.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from tvm import relax, te, tirx

from edgec.lower.context import Context, literal
from edgec.lower.dot import rounded
from edgec.lower.ends import over_row
from edgec.lower.reduce import SUM
from edgec.lower.requantize import requantized, saturated

Pattern = str | tuple[Any, ...]
"""A tensor's name, or (operator, patterns of its inputs...); behind "Cast" stands its type."""

_INT32, _INT64, _FLOAT = 6, 7, 1

_POWER = ("Gather", "table", ("Sub", ("ReduceMax", "x", "last"), "x"))
_SOFTMAX: Pattern = (
    "Mul",
    (f"Cast {_FLOAT}", _POWER),
    ("Div", "most", (f"Cast {_FLOAT}", ("ReduceSum", _POWER, "last"))),
)
_TOTAL = ("ReduceSum", "x", "last")
_SQUARES = ("ReduceSum", ("Mul", "x", "x"), "last")
_LONG = (f"Cast {_INT64}", _TOTAL)
_SPREAD = ("Sub", ("Mul", (f"Cast {_INT64}", _SQUARES), "terms"), ("Mul", _LONG, _LONG))
_FACTOR = ("Div", "one", ("Sqrt", ("Add", (f"Cast {_FLOAT}", _SPREAD), "epsilon")))
_AWAY = (f"Cast {_FLOAT}", ("Sub", ("Mul", "x", "terms"), _TOTAL))
_NORMALIZED: Pattern = ("Add", ("Mul", ("Mul", _AWAY, _FACTOR), "gain"), "bias")


def rows(ctx: Context, node: gs.Node, zero: int) -> relax.Expr | None:
    """The uint8 elements that `node`, a QuantizeLinear by 1, makes of rows; None where it does
    not, or where the rows are not at hand."""
    for pattern, lowered in _KERNELS:
        found: dict[str, gs.Tensor] = {}
        if _matches(node.inputs[0], pattern, found) and _is_last(found["last"]):
            x = ctx.exprs.get(found["x"].name)
            values = {name: t.values for name, t in found.items() if isinstance(t, gs.Constant)}
            if x is None or len(values) != len(found) - 1:
                return None
            data, origin = _bytes(ctx, found["x"])
            return lowered(ctx, x if data is None else data, origin, values, zero)
    return None


def _matches(tensor: gs.Tensor, pattern: Pattern, found: dict[str, gs.Tensor]) -> bool:
    """Whether `tensor` is made as the pattern says; `found` has its named tensors. Constants of
    one name are of one value."""
    if isinstance(pattern, str):
        known = found.setdefault(pattern, tensor)
        both = isinstance(known, gs.Constant) and isinstance(tensor, gs.Constant)
        return known is tensor or (both and np.array_equal(known.values, tensor.values))
    head, *operands = pattern
    op, _, to = head.partition(" ")
    node = tensor.inputs[0] if tensor.inputs else None
    if node is None or node.op != op or node.domain or len(node.inputs) != len(operands):
        return False
    if to and node.attrs.get("to") != int(to):
        return False
    if op.startswith("Reduce") and not node.attrs.get("keepdims", 1):
        return False
    if op == "Gather" and node.attrs.get("axis", 0):
        return False
    return all(_matches(t, p, found) for t, p in zip(node.inputs, operands, strict=True))


def _is_last(axes: gs.Tensor) -> bool:
    return isinstance(axes, gs.Constant) and axes.values.tolist() == [-1]


def _bytes(ctx: Context, tensor: gs.Tensor) -> tuple[relax.Expr | None, int]:
    """The uint8 tensor that `tensor`, int32, is of less a number, and that number."""
    origin, node = 0, tensor.inputs[0]
    if node.op == "Sub" and isinstance(node.inputs[1], gs.Constant) and node.inputs[0].inputs:
        origin, node = int(node.inputs[1].values.item()), node.inputs[0].inputs[0]
    source = node.inputs[0]
    if node.op != "Cast" or source.dtype != np.uint8:
        return None, 0
    return ctx.exprs.get(source.name), origin


def _end(ctx: Context, value: Any, zero: int, bound: float) -> Any:
    """`value`, float32 of no larger magnitude than `bound`, as an element."""
    made = saturated if ctx.unsigned and bound < 2**30 else requantized
    return made(value, zero, 0, 255, "uint8")


def _softmax(
    ctx: Context, x: relax.Expr, origin: int, values: dict[str, np.ndarray], zero: int
) -> relax.Expr:
    shape, most = ctx.shape(x), float(values["most"].item())
    table = values["table"]
    fits = table.shape == (256,) and table.min() >= 0 and table.max() < 2**16
    kind = "uint16" if fits else "int32"

    def compute(data: te.Tensor, powers: te.Tensor) -> te.Tensor:
        lead, terms = shape[:-1], shape[-1]

        def wide(*index: Any) -> Any:
            return data(*index).astype("int32")

        largest = over_row("largest", lead, terms, ctx.block, wide, te.max, tirx.max)

        def power(*index: Any) -> Any:
            return powers(largest(*index[:-1]) - wide(*index)).astype("int32")

        power_of = te.compute(shape, power, name="powers")
        total = over_row("total", lead, terms, ctx.block, power_of, SUM, lambda a, b: a + b)
        share = te.compute(
            lead,
            lambda *row: literal(most, "float32") / total(*row).astype("float32"),
            name="share",
        )

        def element(*index: Any) -> Any:
            value = power_of(*index).astype("float32") * share(*index[:-1])
            return _end(ctx, value, zero, abs(most))

        return te.compute(shape, element, name="softmax")

    return ctx.te("integer_softmax", compute, x, ctx.const(table, kind))


def _normalized(
    ctx: Context, x: relax.Expr, origin: int, values: dict[str, np.ndarray], zero: int
) -> relax.Expr:
    shape = ctx.shape(x)
    gain, bias = values["gain"], values["bias"]
    terms, epsilon = int(values["terms"].item()), float(values["epsilon"].item())
    bound = float(np.sqrt(terms) * np.abs(gain).max() + np.abs(bias).max())

    def compute(data: te.Tensor, gains: te.Tensor, biases: te.Tensor) -> te.Tensor:
        lead, length = shape[:-1], shape[-1]

        def centre(*index: Any) -> Any:
            return data(*index).astype("int32") - literal(origin, "int32")

        def summed(name: str, term: Any) -> te.Tensor:
            return over_row(name, lead, length, ctx.block, term, SUM, lambda a, b: a + b)

        total = summed("total", centre)
        squares = summed("squares", lambda *index: centre(*index) * centre(*index))

        def factor(*row: Any) -> Any:
            sums, wide = total(*row).astype("int64"), squares(*row).astype("int64")
            spread = wide * literal(terms, "int64") - sums * sums
            variance = spread.astype("float32") + literal(epsilon, "float32")
            return literal(1, "float32") / tirx.sqrt(variance)

        factors = te.compute(lead, factor, name="factor")

        def element(*index: Any) -> Any:
            *row, k = index
            away = centre(*index) * literal(terms, "int32") - total(*row)
            value = away.astype("float32") * factors(*row) * gains(k)
            return _end(ctx, rounded(value) + biases(k), zero, bound)

        return te.compute(shape, element, name="normalized")

    parameters = (ctx.const(np.broadcast_to(p, shape[-1:]), "float32") for p in (gain, bias))
    return ctx.te("integer_normalize", compute, x, *parameters)


_KERNELS = ((_SOFTMAX, _softmax), (_NORMALIZED, _normalized))
