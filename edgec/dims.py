"""Giving symbolic dimensions of a model's inputs a size."""

from __future__ import annotations

import difflib
from collections.abc import Container, Iterable, Mapping, Sequence

import onnx

from edgec.errors import ModelError, UsageError


def bind(
    graph: onnx.GraphProto,
    weights: Container[str],
    shapes: Mapping[str, Sequence[int]],
    dims: Mapping[str, int],
    notes: list[str],
    *,
    symbolic: bool = False,
    assume_batch: bool = True,
) -> None:
    """Fix every dimension of the inputs of `graph`, in place, and each symbol wherever it occurs.

    Inputs that are named in `weights` only stand for constants.

    `shapes` gives whole shapes by input name, `dims` sizes by symbol. One symbol left over that
    leads an input (the batch) becomes 1, and a line is added to `notes`, with `assume_batch`.
    Raises UsageError for a name, rank or size that does not fit and ModelError that lists what is
    still unbound, unless that may stay `symbolic`.
    """
    inputs = {
        i.name: i.type.tensor_type.shape.dim
        for i in graph.input
        if _is_tensor(i) and i.name not in weights
    }
    symbols = {d.dim_param for shape in inputs.values() for d in shape if d.dim_param}
    sizes: dict[str, int] = {}

    def learn(symbol: str, size: int, where: str) -> None:
        if not 0 < size < 1 << 31:
            raise UsageError(f"{size} is not a size", where=where)
        if sizes.setdefault(symbol, size) != size:
            raise UsageError(f"'{symbol}' is {sizes[symbol]} and {size} at once", where=where)

    for symbol, size in dims.items():
        _known(symbol, symbols, "symbolic dimension")
        learn(symbol, size, f"dim '{symbol}'")
    for name, shape in shapes.items():
        _known(name, inputs, "input")
        where = f"input '{name}'"
        if len(shape) != len(inputs[name]):
            raise UsageError(
                f"the model has rank {len(inputs[name])} ({_text(inputs[name])}), "
                f"the given shape rank {len(shape)}",
                where=where,
            )
        for axis, (dim, size) in enumerate(zip(inputs[name], shape, strict=True)):
            if dim.HasField("dim_value") and dim.dim_value != size:
                raise UsageError(
                    f"axis {axis} is fixed to {dim.dim_value} in the model and cannot be {size}",
                    where=where,
                )
            if dim.dim_param:
                learn(dim.dim_param, size, where)
            elif not dim.HasField("dim_value"):
                if not 0 < size < 1 << 31:
                    raise UsageError(f"{size} is not a size", where=where)
                dim.dim_value = size

    unbound = [
        (name, axis, dim)
        for name, shape in inputs.items()
        for axis, dim in enumerate(shape)
        if not dim.HasField("dim_value") and dim.dim_param not in sizes
    ]
    if unbound:
        left = {dim.dim_param for _, _, dim in unbound}
        leads = [name for name, axis, _ in unbound if axis == 0]
        anonymous = "" in left
        several = len(left) > 1 or not leads or (anonymous and len(leads) < len(unbound))
        if several or not assume_batch:
            if symbolic:
                return _substitute(graph, sizes)
            raise ModelError(
                "these dimensions have no size: "
                + ", ".join(f"{n} axis {a} ({d.dim_param or '?'})" for n, a, d in unbound),
                hint="give each a size, as in --dim NAME=SIZE or --shape INPUT=1x3x224x224",
            )
        for _, _, dim in unbound:
            if anonymous:
                dim.dim_value = 1
            else:
                sizes[dim.dim_param] = 1
        called = "" if anonymous else f" '{unbound[0][2].dim_param}'"
        notes.append(f"batch dimension{called} of {', '.join(leads)} set to 1")
    return _substitute(graph, sizes)


def _is_tensor(info: onnx.ValueInfoProto) -> bool:
    return bool(info.type.HasField("tensor_type"))


def _known(name: str, names: Iterable[str], kind: str) -> None:
    names = sorted(names)
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1)
        raise UsageError(
            f"the model has no {kind} '{name}'",
            hint=(f"did you mean '{close[0]}'? " if close else "")
            + f"it has: {', '.join(names) or 'none'}",
        )


def _text(shape: Iterable[onnx.TensorShapeProto.Dimension]) -> str:
    return "x".join(
        d.dim_param or (str(d.dim_value) if d.HasField("dim_value") else "?") for d in shape
    )


def _substitute(graph: onnx.GraphProto, sizes: Mapping[str, int]) -> None:
    for info in (*graph.input, *graph.output, *graph.value_info):
        for dim in info.type.tensor_type.shape.dim if _is_tensor(info) else ():
            if dim.dim_param in sizes:
                dim.dim_value = sizes[dim.dim_param]
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _substitute(attribute.g, sizes)
