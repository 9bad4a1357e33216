"""Inputs and outputs as integers: no QuantizeLinear at the border of a model.

A camera's bytes are what a quantized image input wants: `x = scale * (byte - zero)`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgec.program import dtype_of
from edgec.quantize.formulas import Grid


def integer_border(model: onnx.ModelProto, outputs: dict[str, Grid]) -> tuple[list[str], list[str]]:
    """Let `model`, in place, take and give integers: each input that is only quantized, and the
    `outputs` by their grids.

    What was changed and what not, a line each.
    """
    graph = model.graph
    types = {t.name: t.data_type for t in graph.initializer}
    done, left = [], []
    for info in graph.input:
        readers = [node for node in graph.node if info.name in node.input]
        if [node.op_type for node in readers] != ["QuantizeLinear"]:
            left.append(f"input '{info.name}' stays as it is: it is not only quantized")
            continue
        [node] = readers
        _rename(graph, node.output[0], info.name)
        info.type.tensor_type.elem_type = types[node.input[2]]
        done.append(f"input '{info.name}' is quantized: {_meaning(graph, node)}")
        graph.node.remove(node)
    for info in graph.output:
        grid = outputs.get(info.name)
        if grid is None:
            left.append(f"output '{info.name}' stays as it is: floats make it")
            continue
        _quantize_output(graph, info, grid)
        done.append(f"output '{info.name}' is quantized: {grid.scale:.9g} * (value - {grid.zero})")
    return done, left


def byte_ranges(normalize: Sequence[str], known: Iterable[str]) -> dict[str, tuple[float, float]]:
    """The ranges of inputs whose bytes, by one "NAME=MEAN,STD" each, are to be taken as they are:
    a step of them is a byte then."""
    ranges = {}
    for text in normalize:
        name, _, numbers = text.rpartition("=")
        mean, std, *more = map(float, numbers.split(","))
        if name in known and not more:
            ranges[name] = ((0 - mean) / std, (255 - mean) / std)
    return ranges


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        for i, name in enumerate(node.input):
            if name == old:
                node.input[i] = new
    for info in [info for info in graph.value_info if info.name == old]:
        graph.value_info.remove(info)


def _meaning(graph: onnx.GraphProto, node: onnx.NodeProto) -> str:
    values = {t.name: numpy_helper.to_array(t) for t in graph.initializer if t.name in node.input}
    return f"{float(values[node.input[1]]):.9g} * (value - {int(values[node.input[2]])})"


def _quantize_output(graph: onnx.GraphProto, info: onnx.ValueInfoProto, grid: Grid) -> None:
    name = info.name
    inside = f"{name}_float"
    for node in graph.node:
        for names in (node.input, node.output):
            for i, each in enumerate(names):
                if each == name:
                    names[i] = inside
    zero = np.array(grid.zero, dtype_of(grid.dtype))
    graph.initializer.append(
        numpy_helper.from_array(np.array(grid.scale, np.float32), f"{name}_output_scale")
    )
    graph.initializer.append(numpy_helper.from_array(zero, f"{name}_output_zero_point"))
    inputs = [inside, f"{name}_output_scale", f"{name}_output_zero_point"]
    graph.node.append(helper.make_node("QuantizeLinear", inputs, [name]))
    info.type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(zero.dtype)
