"""What models cost: parameters and multiply-accumulates.

python models/cost.py FILE...        # a row each: name, parameters, MACs, size
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import NamedTuple

import onnx


class Cost(NamedTuple):
    """Elements of float initializers, and MACs of products and convolutions for one sample."""

    parameters: int
    macs: int


def cost(model: onnx.ModelProto) -> Cost:
    """The cost of `model` with every symbolic dimension 1; `model` is left as it is."""
    bound = onnx.ModelProto()
    bound.CopyFrom(model)
    for value in (*bound.graph.input, *bound.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.HasField("dim_param"):
                dim.dim_value = 1
    graph = onnx.shape_inference.infer_shapes(bound, data_prop=True).graph
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    shapes.update((weight.name, list(weight.dims)) for weight in graph.initializer)
    parameters = sum(
        math.prod(weight.dims)
        for weight in graph.initializer
        if weight.data_type == onnx.TensorProto.FLOAT
    )
    return Cost(parameters, sum(_macs(node, shapes) for node in graph.node))


def _macs(node: onnx.NodeProto, shapes: dict[str, list[int]]) -> int:
    inputs = [shapes.get(name, []) for name in node.input]
    output = shapes.get(node.output[0], [])
    if node.op_type == "Conv":
        return math.prod(output) * math.prod(inputs[1][1:])
    if node.op_type == "ConvTranspose":
        return math.prod(inputs[0]) * math.prod(inputs[1][1:])
    if node.op_type == "MatMul":
        return math.prod(output) * inputs[0][-1]
    if node.op_type == "Gemm":
        transposed = any(item.name == "transA" and item.i for item in node.attribute)
        return math.prod(output) * inputs[0][0 if transposed else 1]
    if node.op_type in ("GRU", "LSTM", "RNN"):
        steps, batch = inputs[0][:2]
        return steps * batch * (math.prod(inputs[1]) + math.prod(inputs[2]))
    return 0


def cells(file: Path) -> str:
    """Parameters, MACs and size of the model in `file`, as cells of a Markdown table."""
    parameters, macs = cost(onnx.load(file))
    size = file.stat().st_size
    return f"{_short(parameters)} | {_short(macs)} | {_short(size)}B"


def _short(number: float) -> str:
    """`number` to three digits with a decimal prefix: 14.2 M."""
    prefixes = iter(" kMG")
    prefix = next(prefixes)
    while number >= 999.5:
        number /= 1000
        prefix = next(prefixes)
    digits = 2 if number < 9.995 else 1 if number < 99.95 else 0
    return f"{number:.{digits}f} {prefix}".rstrip()


def main() -> None:
    for argument in sys.argv[1:]:
        print(f"| `{Path(argument).stem}` | {cells(Path(argument))} |")


if __name__ == "__main__":
    main()
