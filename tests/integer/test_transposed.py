"""Transposed convolutions against the contract, to the bit, on every instruction set at hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lower.many_nodes import RUNNABLE

from integer.contract import Scaled, numbers_of, quantized, requantized, transposed
from integer.draws import FEW, MANY, scaled
from integer.models import Model
from integer.running import outputs

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


def common(outputs: int, channels: int, **others: object) -> dict[str, object]:
    """The up-convolution of a U-Net."""
    layer = {
        **{"groups": 1, "channels": channels, "outputs": outputs, "sizes": [5, 7]},
        **{"strides": [2, 2], "dilations": [1, 1], "kernel": [2, 2], "pads": [0] * 4},
        **{"extra": [0, 0], "x": Scaled(0.02, 255), "y": Scaled(0.1, -128, "int8")},
        **{"per_channel": True, "bias": True, "relu": True, "seed": 1},
    }
    return layer | others


@pytest.mark.parametrize("name", RUNNABLE)
@pytest.mark.parametrize(
    "layer",
    [
        common(32, 32),
        common(8, 20, relu=False, kernel=[4, 3], pads=[1, 0, 1, 1], seed=2),
        common(4, 12, groups=3, strides=[2, 3], dilations=[1, 2], kernel=[3, 3], extra=[1, 2]),
    ],
    ids=["doubled", "overlapping", "in groups"],
)
def test_layers(name: str, layer: dict[str, object], session_cache: Path) -> None:
    check(layer, name, session_cache)


@pytest.mark.parametrize("name", RUNNABLE)
@FEW
@given(layer=layers())
def test_drawn_layers(name: str, session_cache: Path, layer: dict[str, object]) -> None:
    check(layer, name, session_cache)


@pytest.mark.nightly
@pytest.mark.parametrize("name", RUNNABLE)
@MANY
@given(layer=layers())
def test_many_layers(name: str, session_cache: Path, layer: dict[str, object]) -> None:
    check(layer, name, session_cache)


def check(layer: dict[str, object], name: str, cache: Path) -> None:
    numbers = np.random.default_rng(layer["seed"])
    x_by, y_by, groups, depth = layer["x"], layer["y"], layer["groups"], layer["outputs"]
    model = Model((2, layer["channels"], *layer["sizes"]))
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
    x = (numbers.standard_normal(model.shape) * 60 * x_by.scale).astype(np.float32)
    centred = quantized(x, x_by).astype(np.int64) - x_by.zero
    sums = transposed(centred, weights, groups, extra=layer["extra"], **attributes)
    along = (-1, *[1] * len(layer["sizes"]))
    elements = requantized(
        sums + bias.reshape(along), whole.reshape(along), y_by, 0.0 if layer["relu"] else -np.inf
    )
    expected = numbers_of(elements, y_by)
    made = outputs(
        model.proto(y, expected.shape), {"x": x}, name, cache, 1 + layer["seed"] % 3, share=1.0
    )
    np.testing.assert_array_equal(made, expected)


@pytest.mark.parametrize("auto_pad", ["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"])
def test_a_size_that_is_given(auto_pad: str, session_cache: Path) -> None:
    """What is cut off follows from it; where it is odd, one side loses more."""
    by, to, model = Scaled(0.02, 7), Scaled(0.3, 100), Model((1, 8, 4, 5))
    weights = np.random.default_rng(1).integers(-128, 128, (8, 6, 3, 3)).astype(np.int8)
    size = {"output_shape": [8, 10]} if auto_pad == "NOTSET" else {}
    y = model.node(
        "ConvTranspose", model.through("x", by), model.weights(weights, np.float32(0.01)),
        strides=[2, 2], auto_pad=auto_pad, **size,
    )  # fmt: skip
    y = model.through(y, to)
    x = np.random.default_rng(2).standard_normal(model.shape).astype(np.float32)
    pads = {"SAME_UPPER": [0, 0, 1, 1], "VALID": [0] * 4}.get(auto_pad, [1, 1, 0, 0])
    centred = quantized(x, by).astype(np.int64) - by.zero
    sums = transposed(centred, weights, 1, [2, 2], [1, 1], pads, [0, 0])
    scale = np.float64(by.scale) * np.float64(np.float32(0.01))
    expected = numbers_of(requantized(sums, scale, to), to)
    made = outputs(model.proto(y, expected.shape), {"x": x}, "host", session_cache, share=1.0)
    np.testing.assert_array_equal(made, expected)
