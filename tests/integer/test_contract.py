"""Compiled modules against the contract, to the bit, on every instruction set that runs here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lower.many_nodes import RUNNABLE

from integer.contract import Scaled, added, convolved, numbers_of, quantized, requantized
from integer.models import Model
from integer.running import outputs

SCALES = (0.5, 0.0625, 0.1, 0.0123)
"""With powers of two, results lie half-way between elements."""


@st.composite
def layers(draw: st.DrawFn) -> dict[str, object]:
    """A convolution and all that quantizes it."""
    depthwise = draw(st.booleans())
    channels = draw(st.sampled_from([1, 3, 16, 18, 33]))
    dtype = draw(st.sampled_from(["uint8", "int8"]))
    limits = np.iinfo(dtype)
    zeros = st.sampled_from([int(limits.min), int(limits.max), 0, 3])
    kernel = draw(st.integers(1, 3))
    return {
        "channels": channels,
        "outputs": channels if depthwise else draw(st.sampled_from([1, 8, 16, 40])),
        "groups": channels if depthwise else 1,
        "size": draw(st.integers(3, 9)),
        "kernel": kernel,
        "stride": draw(st.integers(1, 2)),
        "pad": draw(st.integers(0, kernel - 1)),
        "x": Scaled(draw(st.sampled_from(SCALES)), draw(zeros), dtype),
        "y": Scaled(8 * draw(st.sampled_from(SCALES)), draw(zeros), dtype),
        "scales": draw(st.sampled_from([0.25, 0.011])),
        "per_channel": draw(st.booleans()),
        "bias": draw(st.booleans()),
        "activation": draw(st.sampled_from(["", "Relu", "Clip"])),
        "seed": draw(st.integers(0, 99)),
    }


@pytest.mark.parametrize("name", RUNNABLE)
@settings(
    max_examples=3,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(layer=layers())
def test_convolutions(name: str, session_cache: Path, layer: dict[str, object]) -> None:
    check(layer, name, session_cache)


@pytest.mark.nightly
@pytest.mark.parametrize("name", RUNNABLE)
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(layer=layers())
def test_many_convolutions(name: str, session_cache: Path, layer: dict[str, object]) -> None:
    check(layer, name, session_cache)


def check(layer: dict[str, object], name: str, cache: Path) -> None:
    numbers = np.random.default_rng(layer["seed"])
    channels, size, kernel = layer["channels"], layer["size"], layer["kernel"]
    x_by, y_by, groups = layer["x"], layer["y"], layer["groups"]
    model = Model((1, channels, size, size))
    shape = (layer["outputs"], channels // groups, kernel, kernel)
    weights = numbers.choice([-128, -127, 127, 0, 1, 30], shape).astype(np.int8)
    count = (layer["outputs"],) if layer["per_channel"] else ()
    scales = np.broadcast_to(
        np.float32(layer["scales"]) * numbers.choice([1.0, 0.5], count or 1), count or 1
    ).astype(np.float32)
    scale = np.float64(np.float32(x_by.scale)) * scales.astype(np.float64)
    inputs = [
        model.through("x", x_by),
        model.weights(weights, scales.reshape(count)),
    ]
    bias = np.zeros(layer["outputs"], np.int32)
    if layer["bias"]:
        bias = numbers.integers(-5000, 5000, layer["outputs"]).astype(np.int32)
        inputs.append(model.weights(bias, scale.astype(np.float32).reshape(count)))
    pad, stride = layer["pad"], layer["stride"]
    y = model.node(
        "Conv", *inputs, strides=[stride] * 2, pads=[pad] * 4, group=groups,
        kernel_shape=[kernel] * 2,
    )  # fmt: skip
    low, high = -np.inf, np.inf
    if layer["activation"] == "Relu":
        y, low = model.node("Relu", y), 0.0
    elif layer["activation"] == "Clip":
        low, high = -1.0, 6.0
        y = model.node("Clip", y, *(model.constant(v, "float32") for v in (low, high)))
    y = model.through(y, y_by)
    x = (numbers.standard_normal(model.shape) * 60 * x_by.scale).astype(np.float32)
    centred = quantized(x, x_by).astype(np.int64) - x_by.zero
    sums = convolved(centred, weights, stride, pad, groups) + bias.reshape(-1, 1, 1)
    elements = requantized(sums, scale.reshape(-1, 1, 1), y_by, low, high)
    expected = numbers_of(elements, y_by)
    threads = layer.get("threads", 1 + layer["seed"] % 3)
    made = outputs(model.proto(y, expected.shape), {"x": x}, name, cache, threads)
    np.testing.assert_array_equal(made, expected)


@pytest.mark.parametrize("name", RUNNABLE)
def test_a_sum_of_two(name: str, session_cache: Path) -> None:
    """Products that fused multiply-adds would not round."""
    numbers = np.random.default_rng(3)
    model = Model((1, 40, 5, 7))
    first, second, result = Scaled(0.0123, 9), Scaled(0.0457, 200), Scaled(0.031, 100)
    doubled = model.node("Add", "x", "x")
    y = model.node("Add", model.through("x", first), model.through(doubled, second))
    y = model.through(y, result)
    x = (numbers.standard_normal(model.shape)).astype(np.float32)
    elements = added(quantized(x, first), first, quantized(x + x, second), second, result)
    expected = numbers_of(elements, result)
    made = outputs(model.proto(y, model.shape), {"x": x}, name, session_cache)
    np.testing.assert_array_equal(made, expected)
