"""Outputs that depend on a quantization of computed numbers.

A computed number near the middle between two codes may go to either, whatever its last bit was
rounded to, and one code is far more than a float's rounding. How far a model carries that is found
by nudging: each number is moved within its tolerance (`edgec.compare`), by a share that its own
lower digits give, before it is quantized. That is at most a thirtieth of a step of 8 bits, so no
code moves by more than one.

Numbers that are the same however they are computed flip nothing: what a model is given, integers,
and what operators of one rounding for each element make of both.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgec.compare import ATOL, RTOL
from edgec.halves import graphs

_SAME = frozenset(
    [
        *("Add", "Cast", "Clip", "Concat", "DepthToSpace", "DequantizeLinear", "Div", "Expand"),
        *("Flatten", "Gather", "Identity", "Max", "MaxPool", "Min", "Mul", "Neg", "Pad"),
        *("QuantizeLinear", "Relu", "Reshape", "Slice", "SpaceToDepth", "Split", "Squeeze", "Sub"),
        *("Tile", "Transpose", "Unsqueeze", "Where"),
    ]
)

_BY_SCALE = frozenset([b"asymmetric", b"half_pixel", b"pytorch_half_pixel"])
"""Ways of Resize to find where an element comes from, which only scales decide."""
_FEW, _MOST_AXES, _MOST_SCALE = 16, 3, 16
"""Scales that are looked at; 9 bits, and 5 for each of three axes, fit a float32."""


def find_flips(model: onnx.ModelProto) -> frozenset[str]:
    """The names of such outputs of `model`."""
    return behind(model, _codes(model)) & {output.name for output in model.graph.output}


DIGITS = "nudge.digits"
"""An input of nudged models, float32: of numbers up to 1, what follows the point after they were
multiplied by it is the share."""
NUDGES = tuple({DIGITS: np.array(value, np.float32)} for value in (47111.9, 54321.7, 61234.3))
"""The values to run a nudged model with, one after the other."""


def nudged(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `model`, in float32, that nudges numbers before it quantizes them."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    codes = _codes(model)
    copy.graph.input.append(helper.make_tensor_value_info(DIGITS, onnx.TensorProto.FLOAT, ()))
    shares = {"of_each": 2 * RTOL, "of_largest": 2 * ATOL, "least": 1e-30, "half": 0.5}
    copy.graph.initializer.extend(
        numpy_helper.from_array(np.float32(share), f"nudge.{name}")
        for name, share in shares.items()
    )
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.output[0] in codes:
            quantize = onnx.NodeProto()
            quantize.CopyFrom(node)
            quantize.input[0] = f"{node.output[0]}.nudged"
            nodes += _nudge(node.input[0], quantize.input[0])
            node = quantize
        nodes.append(node)
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    return copy


def _nudge(source: str, result: str) -> list[onnx.NodeProto]:
    """Nodes that add to `source` a share, of either sign, of its tolerance."""
    nodes: list[onnx.NodeProto] = []

    def made(op: str, *inputs: str, **attributes: int) -> str:
        name = f"{result}.{len(nodes)}"
        nodes.append(helper.make_node(op, inputs, [name], **attributes))
        return name

    size = made("Abs", source)
    largest = made("Add", made("ReduceMax", size, keepdims=0), "nudge.least")
    width = made(
        "Add", made("Mul", size, "nudge.of_each"), made("Mul", largest, "nudge.of_largest")
    )
    digits = made("Mul", made("Div", source, largest), DIGITS)
    share = made("Sub", made("Sub", digits, made("Floor", digits)), "nudge.half")
    nodes.append(helper.make_node("Add", [source, made("Mul", share, width)], [result]))
    return nodes


def behind(model: onnx.ModelProto, names: Collection[str]) -> frozenset[str]:
    """The tensors of the main graph that depend on one called as in `names`, these included."""
    found = set(names)
    for node in model.graph.node:
        inner = [
            name
            for attribute in node.attribute
            if attribute.HasField("g")
            for graph in graphs(attribute.g)
            for each in graph.node
            for name in each.input
        ]
        if not found.isdisjoint((*node.input, *inner)):
            found.update(name for name in node.output if name)
    return frozenset(found)


def _codes(model: onnx.ModelProto) -> frozenset[str]:
    """What quantizations of computed numbers give."""
    made = {name for node in model.graph.node for name in node.output}
    numbers = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer if _is_few(t)}
    whole: set[str] = set()
    rounded: set[str] = set()
    found: set[str] = set()
    for node in model.graph.node:
        data = node.input[0] if node.input else ""
        if (node.op_type == "DynamicQuantizeLinear" and data in made) or (
            node.op_type == "QuantizeLinear" and data in rounded
        ):
            found.update(name for name in node.output if name)
        elif not rounded.isdisjoint(node.input):
            rounded.update(name for name in node.output if name)
        elif _is_byte(node, numbers):
            whole.update(node.output)
        elif node.op_type == "Resize":
            if not _chooses(node) and not (data in whole and _halves(node, numbers)):
                rounded.update(node.output)
        elif _rounds(node):
            rounded.update(name for name in node.output if name)
    return frozenset(found)


def _rounds(node: onnx.NodeProto) -> bool:
    """Whether sums, or functions, of floats are in `node`: two ways to compute it may differ."""
    return node.op_type not in _SAME and "Integer" not in node.op_type


def _is_few(tensor: onnx.TensorProto) -> bool:
    return bool(math.prod(tensor.dims) <= _FEW)


def _is_byte(node: onnx.NodeProto, numbers: Mapping[str, np.ndarray]) -> bool:
    """Whether what `node` makes are whole numbers of 9 bits: a byte less a zero point."""
    if node.op_type != "DequantizeLinear" or len(node.input) < 3:
        return False
    scale, zero = (numbers.get(name) for name in node.input[1:3])
    if scale is None or zero is None:
        return False
    return bool(zero.dtype in (np.int8, np.uint8) and np.all(scale == 1))


def _chooses(resize: onnx.NodeProto) -> bool:
    """Whether each element is one of the input's, or a number that it is given."""
    return bool(_attributes(resize).get("mode", b"nearest") == b"nearest")


def _halves(resize: onnx.NodeProto, numbers: Mapping[str, np.ndarray]) -> bool:
    """Whether a mean of bytes is exact in float32: what its weights are multiples of is a power of
    a half, 2 ** -5 for each axis at least."""
    attributes = _attributes(resize)
    scales = numbers.get(resize.input[2]) if len(resize.input) > 2 else None
    if scales is None or not scales.size or attributes["mode"] != b"linear":
        return False
    where = attributes.get("coordinate_transformation_mode", b"half_pixel")
    changed = scales[scales != 1]
    fits = len(changed) <= _MOST_AXES and np.all(np.frexp(changed)[0] == 0.5)
    few = bool(fits and np.all(changed <= _MOST_SCALE))
    return few and where in _BY_SCALE and not attributes.get("antialias", 0)


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {each.name: helper.get_attribute_value(each) for each in node.attribute}
