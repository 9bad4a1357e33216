"""Pooling of blocked images against windows cut out by numpy, NaN and borders included."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from edgec import targets
from edgec.graph import load
from edgec.lower.lowering import lower_graph
from tests.lower.running import run

CASES: list[dict[str, Any]] = [
    {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
    {"kernel_shape": [2, 3], "strides": [1, 2], "pads": [1, 0, 0, 2]},
    {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [0, 1, 0, 0], "ceil_mode": 1},
    {"kernel_shape": [3, 3], "dilations": [2, 3], "pads": [2, 3, 2, 1]},
    {"kernel_shape": [2, 2], "pads": [3, 2, 0, 2]},
    {"kernel_shape": [5, 7], "pads": [2, 3, 2, 3]},
    {"kernel_shape": [9, 1], "strides": [3, 1], "pads": [4, 0, 4, 0]},
    {"kernel_shape": [11, 9], "strides": [1, 2]},
]
"""Borders on each side, windows that begin outside, dilations, windows of many taps."""


def image(special: bool) -> np.ndarray:
    values = np.random.default_rng(3).normal(size=(2, 20, 12, 11)).astype(np.float32)
    if special:
        values[0, 3, 4, 5] = values[1, 17, 0, 0] = values[1, 2, 11, 10] = np.nan
        values[0, 4] = -np.inf
        values[0, 5, 6, 6] = np.inf
    return values


def model(op: str, values: np.ndarray, attributes: dict[str, Any]) -> ModelProto:
    """A pool of `values`, in blocked form: the convolution it is added to is of zeros."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["zeros"]),
        helper.make_node("Add", ["zeros", "values"], ["image"]),
        helper.make_node(op, ["image"], ["y"], **attributes),
    ]
    shape = [values.shape[0], 1, *values.shape[2:]]
    weights = [
        numpy_helper.from_array(np.ones((values.shape[1], 1, 1, 1), np.float32), "w"),
        numpy_helper.from_array(values, "values"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def windows(values: np.ndarray, attributes: dict[str, Any], shape: tuple[int, ...]) -> np.ndarray:
    """The elements of every window, [*shape, taps], those outside of the image masked."""
    kernel = attributes["kernel_shape"]
    strides, dilations = (attributes.get(name, [1, 1]) for name in ("strides", "dilations"))
    pads = attributes.get("pads", [0] * 4)
    taps = list(product(*map(range, kernel)))
    found = np.ma.masked_all((*shape, len(taps)), np.float32)
    for i, j in product(*map(range, shape[2:])):
        for place, tap in enumerate(taps):
            at = [
                o * s - p + k * d
                for o, s, p, k, d in zip((i, j), strides, pads, tap, dilations, strict=False)
            ]
            if all(0 <= a < n for a, n in zip(at, values.shape[2:], strict=True)):
                found[:, :, i, j, place] = values[:, :, at[0], at[1]]
    return found


@pytest.mark.parametrize("attributes", CASES, ids=str)
def test_max_pool_keeps_nan(attributes: dict[str, Any]) -> None:
    values = image(special=True)
    graph = load(model("MaxPool", values, attributes))
    (got,) = run(graph, {"x": np.zeros((2, 1, 12, 11), np.float32)})
    found = windows(values, attributes, got.shape)
    expected = np.max(found.filled(-np.inf), axis=-1)
    assert np.isnan(expected).any()
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("count_include_pad", [0, 1])
@pytest.mark.parametrize("attributes", [CASES[0], CASES[1], CASES[5], CASES[6]], ids=str)
def test_average_pool(attributes: dict[str, Any], count_include_pad: int) -> None:
    values = image(special=False)
    both = attributes | {"count_include_pad": count_include_pad}
    (got,) = run(load(model("AveragePool", values, both)), {"x": np.zeros((2, 1, 12, 11), "f")})
    found = windows(values, attributes, got.shape)
    expected = found.filled(0).mean(-1) if count_include_pad else found.mean(-1)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_no_padded_copy_is_made() -> None:
    graph = load(model("MaxPool", image(special=False), CASES[0]))
    kernels = lower_graph(graph, "m", [], targets.resolve("x86-64-v3")).kernels
    text = "\n".join(function.script() for function in kernels.values())
    assert 'T.sblock("max_pool_blocked")' in text
    assert 'T.sblock("pad")' not in text
