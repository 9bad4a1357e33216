"""Transposed convolutions against the contract, to the bit, on every instruction set at hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lower.many_nodes import RUNNABLE

from edgec.program import Tensor
from edgec.qdq.meaning import meaning_of
from edgec.reference import reference
from integer.contract import Scaled, numbers_of, quantized, requantized, transposed
from integer.draws import MANY, scaled
from integer.models import Model
from integer.running import all_outputs

SCALES = (0.5, 0.0625, 0.1, 0.0123)
"""With powers of two, results lie half-way between elements."""


@st.composite
def layers(draw: st.DrawFn) -> dict[str, object]:
    """A transposed convolution over one to three axes, and all that quantizes it."""
    rank = draw(st.sampled_from([1, 2, 2, 2, 3]))
    groups = draw(st.sampled_from([1, 1, 2]))
    strides = draw(st.lists(st.integers(1, 3), min_size=rank, max_size=rank))
    dilations = draw(st.lists(st.sampled_from([1, 1, 2]), min_size=rank, max_size=rank))
    kernel = draw(st.lists(st.integers(1, 4), min_size=rank, max_size=rank))
    pads = [draw(st.integers(0, (k - 1) * d)) for k, d in zip(kernel, dilations, strict=True)]
    pads += [draw(st.integers(0, (k - 1) * d)) for k, d in zip(kernel, dilations, strict=True)]
    extra = [draw(st.integers(0, max(s, d) - 1)) for s, d in zip(strides, dilations, strict=True)]
    return {
        "groups": groups,
        "channels": groups * draw(st.sampled_from([1, 3, 17, 32])),
        "outputs": draw(st.sampled_from([1, 8, 16, 20])),
        "sizes": draw(st.lists(st.integers(3, 5), min_size=rank, max_size=rank)),
        "strides": strides,
        "dilations": dilations,
        "kernel": kernel,
        "pads": pads,
        "extra": extra,
        "x": scaled(draw, draw(st.sampled_from(SCALES))),
        "y": scaled(draw, 8 * draw(st.sampled_from(SCALES))),
        "per_channel": draw(st.booleans()),
        "bias": draw(st.booleans()),
        "relu": draw(st.booleans()),
        "seed": draw(st.integers(0, 99)),
    }


DOUBLED = {
    **{"groups": 1, "channels": 32, "outputs": 16, "sizes": [5, 7]},
    **{"strides": [2, 2], "dilations": [1, 1], "kernel": [2, 2], "pads": [0] * 4},
    **{"extra": [0, 0], "x": Scaled(0.02, 255), "y": Scaled(0.1, -128, "int8")},
    **{"per_channel": True, "bias": True, "relu": True, "seed": 1},
}
"""The up-convolution of a U-Net."""
OVERLAPPING = {"outputs": 8, "kernel": [4, 3], "pads": [1, 0, 1, 1], "relu": False}
IN_GROUPS = {"groups": 2, "strides": [2, 3], "dilations": [1, 2], "kernel": [3, 3], "extra": [1, 2]}


@pytest.mark.parametrize("name", RUNNABLE)
def test_layers(name: str, session_cache: Path) -> None:
    check([DOUBLED, DOUBLED | OVERLAPPING, DOUBLED | IN_GROUPS], name, session_cache)


@settings(parent=MANY, derandomize=True)
@given(layer=layers())
def test_integer_graphs(layer: dict[str, object]) -> None:
    check([layer], "", None)


@pytest.mark.nightly
@pytest.mark.parametrize("name", RUNNABLE)
@MANY
@given(layer=layers())
def test_many_layers(name: str, session_cache: Path, layer: dict[str, object]) -> None:
    check([layer], name, session_cache)


def check(layers: list[dict[str, object]], name: str, cache: Path | None) -> None:
    """All of the same input; compiled for the target `name`, or their integer graph alone."""
    first = layers[0]
    model = Model((2, first["channels"], *first["sizes"]))
    numbers = np.random.default_rng(first["seed"])
    x = (numbers.standard_normal(model.shape) * 60 * first["x"].scale).astype(np.float32)
    expected = dict(added(model, layer, x) for layer in layers)
    shapes = {y: values.shape for y, values in expected.items()}
    proto = model.proto(*shapes.popitem(), **shapes)
    if name:
        made = all_outputs(proto, {"x": x}, name, cache, 1 + first["seed"] % 3)
    else:
        made = of_integers(proto, x)
    for y, values in expected.items():
        np.testing.assert_array_equal(made[y], values)


def of_integers(proto: onnx.ModelProto, x: np.ndarray) -> dict[str, np.ndarray]:
    """What ONNX Runtime makes of the integer graph, which no float product is left in."""
    made = meaning_of(proto, [Tensor("x", "float32", x.shape)])
    assert "ConvTranspose" not in {node.op_type for node in made.graph.node}
    return reference(made, {"x": x})


def added(model: Model, layer: dict[str, object], x: np.ndarray) -> tuple[str, np.ndarray]:
    """The name of the result of a layer in `model`, and what it is of `x`."""
    numbers = np.random.default_rng(layer["seed"])
    x_by, y_by, groups, depth = layer["x"], layer["y"], layer["groups"], layer["outputs"]
    shape = (layer["channels"], depth, *layer["kernel"])
    weights = numbers.choice([-128, -127, 127, 0, 1, 30], shape).astype(np.int8)
    count = (depth,) if layer["per_channel"] else ()
    scales = (np.float32(0.011) * numbers.choice([1.0, 0.5], count or 1)).astype(np.float32)
    scale = np.float64(x_by.scale) * scales.astype(np.float64)
    whole = np.tile(scale, groups) if scale.size > 1 else scale
    inputs = [model.through("x", x_by), model.weights(weights, scales.reshape(count), 1)]
    bias = np.zeros(groups * depth, np.int32)
    if layer["bias"]:
        bias = numbers.integers(-5000, 5000, groups * depth).astype(np.int32)
        steps = whole.astype(np.float32)
        inputs.append(model.weights(bias, steps if len(steps) > 1 else steps.reshape(())))
    attributes = {key: layer[key] for key in ("strides", "dilations", "pads")}
    y = model.node(
        "ConvTranspose", *inputs, group=groups, output_padding=layer["extra"],
        kernel_shape=layer["kernel"], **attributes,
    )  # fmt: skip
    if layer["relu"]:
        y = model.node("Relu", y)
    y = model.through(y, y_by)
    centred = quantized(x, x_by).astype(np.int64) - x_by.zero
    sums = transposed(centred, weights, groups, extra=layer["extra"], **attributes)
    along = (-1, *[1] * len(layer["sizes"]))
    elements = requantized(
        sums + bias.reshape(along), whole.reshape(along), y_by, 0.0 if layer["relu"] else -np.inf
    )
    return y, numbers_of(elements, y_by)


def test_sizes_that_are_given() -> None:
    """What is cut off follows from them; where it is odd, one side loses more."""
    by, to, model = Scaled(0.02, 7), Scaled(0.3, 100), Model((1, 8, 4, 5))
    weights = np.random.default_rng(1).integers(-128, 128, (8, 6, 3, 3)).astype(np.int8)
    x = np.random.default_rng(2).standard_normal(model.shape).astype(np.float32)
    centred = quantized(x, by).astype(np.int64) - by.zero
    scale = np.float64(by.scale) * np.float64(np.float32(0.01))
    inputs = [model.through("x", by), model.weights(weights, np.float32(0.01))]
    expected = {}
    for pads, attributes in [
        ([1, 1, 0, 0], {"output_shape": [8, 10]}),
        ([0, 0, 1, 1], {"auto_pad": "SAME_UPPER"}),
        ([1, 1, 0, 0], {"auto_pad": "SAME_LOWER"}),
        ([0, 0, 0, 0], {"auto_pad": "VALID"}),
    ]:
        y = model.through(model.node("ConvTranspose", *inputs, strides=[2, 2], **attributes), to)
        sums = transposed(centred, weights, 1, [2, 2], [1, 1], pads, [0, 0])
        expected[y] = numbers_of(requantized(sums, scale, to), to)
    shapes = {y: values.shape for y, values in expected.items()}
    proto = model.proto(*shapes.popitem(), **shapes)
    made = of_integers(proto, x)
    for y, values in expected.items():
        np.testing.assert_array_equal(made[y], values)
