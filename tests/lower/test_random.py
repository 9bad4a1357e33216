"""Random attributes of the operators that have many, against ONNX Runtime without optimisations.

Each operator's draws become the nodes of one model, so that it is compiled once. Draws that ONNX
Runtime refuses are drawn again; MaxPool over padding has its own judge (its NaN is numpy's).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto, helper, numpy_helper, shape_inference
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from edgec.graph import load
from edgec.lower.convert import unsupported

from .node_cases import check
from .running import run

REFUSALS = (ort_errors.Fail, ort_errors.InvalidArgument, ort_errors.RuntimeException)
REFUSALS += (ort_errors.InvalidGraph, ort_errors.NotImplemented)


class Draw(NamedTuple):
    """One node: operator, float32 shape of its input, constants after it, attributes."""

    op: str
    shape: tuple[int, ...]
    constants: tuple[np.ndarray | None, ...] = ()
    attrs: dict[str, Any] = {}  # noqa: RUF012


def _pick(random: np.random.Generator, *choices: Any) -> Any:
    return choices[random.integers(len(choices))]


def _window(random: np.random.Generator, rank: int, *, ceil: bool = False) -> dict[str, Any]:
    kernel = random.integers(1, 4, rank).tolist()
    attrs: dict[str, Any] = {
        "kernel_shape": kernel,
        "strides": random.integers(1, 4, rank).tolist(),
        "dilations": random.integers(1, 3, rank).tolist(),
    }
    auto = _pick(random, "NOTSET", "NOTSET", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")
    if auto == "NOTSET":
        attrs["pads"] = [int(random.integers(0, k)) for k in kernel + kernel]
    else:
        attrs["auto_pad"] = auto
        attrs["dilations"] = [1] * rank
    if ceil:
        attrs["ceil_mode"] = int(random.integers(2))
    return attrs


def _floats(random: np.random.Generator, *shape: int) -> np.ndarray:
    return random.standard_normal(shape, np.float32)


def conv(random: np.random.Generator) -> Draw:
    rank, groups = int(random.integers(1, 4)), int(_pick(random, 1, 1, 2, 4))
    attrs = _window(random, rank) | {"group": groups}
    weight = _floats(
        random, groups * int(random.integers(1, 3)), 4 // groups, *attrs["kernel_shape"]
    )
    bias = _pick(random, None, _floats(random, len(weight)))
    return Draw("Conv", (2, 4, *random.integers(5, 9, rank)), (weight, bias), attrs)


def conv_transpose(random: np.random.Generator) -> Draw:
    rank, groups = int(random.integers(1, 3)), int(_pick(random, 1, 1, 2))
    attrs = _window(random, rank) | {"group": groups}
    attrs["output_padding"] = [int(random.integers(0, s)) for s in attrs["strides"]]
    if "auto_pad" in attrs:
        attrs["auto_pad"] = "VALID"
    weight = _floats(random, 4, int(random.integers(1, 3)), *attrs["kernel_shape"])
    bias = _pick(random, None, _floats(random, weight.shape[1] * groups))
    return Draw("ConvTranspose", (2, 4, *random.integers(2, 6, rank)), (weight, bias), attrs)


def deform_conv(random: np.random.Generator) -> Draw:
    groups, offsets = (int(_pick(random, 1, 2)) for _ in range(2))
    attrs = _window(random, 2) | {"group": groups, "offset_group": offsets}
    attrs.pop("auto_pad", None)
    space, pads = random.integers(5, 9, 2), attrs.get("pads", [0] * 4)
    reach = [(k - 1) * d for k, d in zip(attrs["kernel_shape"], attrs["dilations"], strict=True)]
    out = [
        (int(n) + pads[a] + pads[a + 2] - reach[a] - 1) // attrs["strides"][a] + 1
        for a, n in enumerate(space)
    ]
    weight = _floats(random, 4, 4 // groups, *attrs["kernel_shape"])
    taps = offsets * weight[0, 0].size
    bias = _pick(random, None, _floats(random, 4))
    mask = _pick(random, None, _floats(random, 2, taps, *out))
    offset = 2 * _floats(random, 2, 2 * taps, *out)
    return Draw("DeformConv", (2, 4, *space), (weight, offset, bias, mask), attrs)


def max_pool(random: np.random.Generator) -> Draw:
    rank = int(random.integers(1, 4))
    return Draw(
        "MaxPool", (2, 3, *random.integers(5, 9, rank)), (), _window(random, rank, ceil=True)
    )


def average_pool(random: np.random.Generator) -> Draw:
    rank = int(random.integers(1, 4))
    attrs = _window(random, rank, ceil=True) | {"count_include_pad": int(random.integers(2))}
    attrs["dilations"] = [1] * rank
    return Draw("AveragePool", (2, 3, *random.integers(5, 9, rank)), (), attrs)


def resize(random: np.random.Generator) -> Draw:
    """With mode nearest, factors are powers of 2: ONNX Runtime breaks inexact ties its own way."""
    mode = _pick(random, "nearest", "linear", "cubic")
    attrs = {
        "mode": mode,
        "coordinate_transformation_mode": _pick(
            random, "half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners"
        ),
    }
    if mode == "nearest":
        attrs["nearest_mode"] = _pick(
            random, "round_prefer_floor", "round_prefer_ceil", "floor", "ceil"
        )
    space = random.integers(3, 9, 2)
    out = random.integers(3, 13, 2)
    if mode == "nearest":
        space = 2 * random.integers(2, 5, 2)
        out = (space * random.choice([0.5, 1, 2, 4], 2)).astype(np.int64)
    return Draw("Resize", (1, 2, *space), (None, None, np.array([1, 2, *out])), attrs)


def pad(random: np.random.Generator) -> Draw:
    mode = _pick(random, "constant", "reflect", "edge", "wrap")
    low = -1 if mode == "constant" else 0
    pads = random.integers(low, 3, 6)
    value = np.array(random.standard_normal(), np.float32) if mode == "constant" else None
    return Draw("Pad", tuple(random.integers(3, 6, 3)), (pads, value), {"mode": mode})


def slice_(random: np.random.Generator) -> Draw:
    axes = random.permutation(3)[: int(random.integers(1, 4))] - 3 * random.integers(0, 2)
    bounds = random.integers(-8, 9, (2, len(axes)))
    steps = np.array([_pick(random, 1, 2, 3, -1, -2) for _ in axes])
    return Draw("Slice", tuple(random.integers(3, 7, 3)), (*bounds, axes, steps))


def reduce(random: np.random.Generator) -> Draw:
    op = _pick(random, "Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "LogSumExp", "SumSquare")
    axes = random.permutation(4)[: int(random.integers(0, 4))] - 4 * random.integers(0, 2)
    attrs = {"keepdims": int(random.integers(2)), "noop_with_empty_axes": int(random.integers(2))}
    return Draw(f"Reduce{op}", tuple(random.integers(1, 5, 4)), (axes,), attrs)


def gemm(random: np.random.Generator) -> Draw:
    m, k, n = (int(v) for v in random.integers(1, 6, 3))
    attrs = {
        "transA": int(random.integers(2)),
        "transB": int(random.integers(2)),
        "alpha": _pick(random, 1.0, 0.5),
        "beta": _pick(random, 1.0, 2.0),
    }
    b = _floats(random, *((n, k) if attrs["transB"] else (k, n)))
    c = _floats(random, *_pick(random, (m, n), (1, n), (n,), (m, 1), ()))
    return Draw("Gemm", (k, m) if attrs["transA"] else (m, k), (b, c), attrs)


GENERATORS: dict[str, tuple[Callable[[np.random.Generator], Draw], int]] = {
    "conv": (conv, 24),
    "conv_transpose": (conv_transpose, 20),
    "deform_conv": (deform_conv, 12),
    "max_pool": (max_pool, 24),
    "average_pool": (average_pool, 24),
    "resize": (resize, 40),
    "pad": (pad, 24),
    "slice": (slice_, 30),
    "reduce": (reduce, 40),
    "gemm": (gemm, 20),
}


def _model(draws: list[Draw]) -> ModelProto:
    nodes, inputs, constants = [], [], []
    for k, draw in enumerate(draws):
        names = [f"x{k}"]
        inputs.append(helper.make_tensor_value_info(f"x{k}", 1, [int(n) for n in draw.shape]))
        for c, value in enumerate(draw.constants):
            names.append("" if value is None else f"c{k}_{c}")
            if value is not None:
                constants.append(numpy_helper.from_array(value, f"c{k}_{c}"))
        nodes.append(helper.make_node(draw.op, names, [f"y{k}"], **draw.attrs))
    outputs = [helper.make_tensor_value_info(f"y{k}", 1, None) for k in range(len(draws))]
    graph = helper.make_graph(nodes, "draws", inputs, outputs, constants)
    opset = helper.make_opsetid("", 22)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=10)
    return shape_inference.infer_shapes(model)


def _reference(model: ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    return list(onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, feeds))


def _crops(draw: Draw) -> bool:
    """Whether SAME padding is negative, which edgec refuses: runtimes differ in what it means."""
    same = draw.attrs.get("auto_pad", "").startswith("SAME")
    sides = (
        zip(draw.shape[2:], draw.attrs["strides"], draw.attrs["kernel_shape"], strict=True)
        if same
        else ()
    )
    return any((-(-n // s) - 1) * s + k - n < -1 for n, s, k in sides)


def accepted(
    random: np.random.Generator, generator: Callable[[np.random.Generator], Draw], count: int
) -> Iterator[tuple[Draw, np.ndarray, np.ndarray]]:
    """`count` draws that ONNX Runtime takes, with input and expected output."""
    while count:
        draw = generator(random)
        x = _floats(random, *draw.shape)
        try:
            [y] = _reference(_model([draw]), {"x0": x})
        except REFUSALS:
            continue
        if y.size and not _crops(draw):
            count -= 1
            yield draw, x, y


NIGHTLY = [pytest.param(seed, marks=pytest.mark.nightly) for seed in range(1, 21)]


@pytest.mark.parametrize("seed", [0, *NIGHTLY])
@pytest.mark.parametrize("name", list(GENERATORS))
def test_random_attributes(name: str, seed: int) -> None:
    generator, count = GENERATORS[name]
    draws, inputs, expected = zip(
        *accepted(np.random.default_rng(seed), generator, count), strict=True
    )
    graph = load(_model(list(draws)), trusted=True)
    assert not unsupported(graph)
    results = run(graph, {f"x{k}": x for k, x in enumerate(inputs)})
    for draw, result, reference in zip(draws, results, expected, strict=True):
        try:
            check(result, reference)
        except AssertionError as error:
            raise AssertionError(f"{draw}\n{error}") from error
