"""Means of winning accuracy back are exact, or better, where they are said to be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser
from oracle import run

from edgec.errors import UsageError
from edgec.graph import Graph, load
from edgec.passes.equalize_layers import EqualizeLayers
from edgec.quantize.quantizer import Quantized, QuantizeOptions, quantize_model
from edgec.quantize.recover import refine
from edgec.quantize.recover.choose import CANDIDATES, choose
from edgec.quantize.recover.joints import find_joints
from edgec.quantize.recover.recovery import Recovery
from edgec.quantize.recover.rounding import adaround, gptq
from edgec.quantize.recover.smooth import LargestInChannels, factors, smooth, smoothed
from edgec.quantize.recover.unfold import columns, rows, weights
from edgec.quantize.units import Unit
from edgec.rewrite import optimize

MODELS = Path(__file__).resolve().parents[2] / "models"

UNEVEN = """
<ir_version: 8, opset_import: ["" : 17]>
m (float[1,2,6,6] x) => (float[1,3,6,6] y) {
    a = Conv <kernel_shape = [1,1]> (x, w, b)
    r = Relu (a)
    y = Conv <kernel_shape = [3,3], pads = [1,1,1,1]> (r, v)
}"""
"""Channel 1 of `r` is a hundredth of channel 0, and as important."""


def uneven() -> onnx.ModelProto:
    random = np.random.default_rng(0)
    model = parser.parse_model(UNEVEN)
    w = np.array([[10, 5], [-0.1, 0.06]], np.float32).reshape(2, 2, 1, 1)
    v = random.standard_normal((3, 2, 3, 3)) * np.array([1, 100]).reshape(1, 2, 1, 1)
    for name, values in (("w", w), ("b", np.array([1, 0.01])), ("v", v)):
        model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    return model


def noise_db(wanted: np.ndarray, given: np.ndarray) -> float:
    return float(10 * np.log10((wanted**2).sum() / ((given - wanted) ** 2).sum()))


def sqnr(model: onnx.ModelProto, result: Quantized, samples: dict[str, Any]) -> float:
    """Of the only output, on all samples at once or, where the batch is 1, one by one."""
    dims = model.graph.input[0].type.tensor_type.shape.dim
    [(name, values)] = samples.items()
    feeds = [{name: v} for v in ([values] if dims[0].dim_param else np.split(values, len(values)))]
    wanted, given = (
        np.concatenate([run(each, feed)[0] for feed in feeds]) for each in (model, result.model)
    )
    return noise_db(wanted, given)


@pytest.fixture(scope="module")
def noise() -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(1).standard_normal((24, 2, 6, 6)).astype(np.float32)}


@pytest.fixture(scope="module")
def images() -> dict[str, np.ndarray]:
    return {"image": np.load(MODELS / "digits_test.npz")["image"]}


def both(model: onnx.ModelProto, graph: Graph, feed: dict[str, Any]) -> list[list[np.ndarray]]:
    return [run(model, feed), run(graph.to_source_opset(), feed)]


def test_equalized_layers_compute_the_same_bits(images: dict[str, np.ndarray]) -> None:
    model = onnx.load(MODELS / "digits_detector.onnx")
    graph = load(model)
    from edgec.optimizer import Pipeline

    optimize(graph, Pipeline().chosen())
    before = graph.copy().to_source_opset()
    (report,) = optimize(graph, [EqualizeLayers()])
    assert report.rewrites > 2
    feed = {"image": np.random.default_rng(0).random((1, 1, 96, 96), np.float32)}
    for left, right in zip(*both(before, graph, feed), strict=True):
        assert left.tobytes() == right.tobytes()


def test_smoothing_moves_sizes_and_keeps_results(noise: dict[str, np.ndarray]) -> None:
    model = uneven()
    graph = load(model)
    assert [t.name for t in smoothed(graph)] == ["r"]
    largest = LargestInChannels(graph)
    for factor in (0.5, 1):
        laid = np.array([8, -0.5]).reshape(1, 2, 1, 1)
        largest.add({"r": np.full((1, 2, 6, 6), factor, np.float32) * laid})
    (joint,) = find_joints(graph)
    w = joint.after[0].largest()
    assert factors(joint, 1.0, largest.found) == pytest.approx([8, 0.5])
    assert factors(joint, 0.0, largest.found) == pytest.approx(1 / w)
    assert factors(joint, 0.5, largest.found) == pytest.approx(np.sqrt(np.array([8, 0.5]) / w))
    assert smooth(graph, 0.5, largest.found) == 1
    feed = {"x": noise["x"][:1]}
    [wanted], [given] = both(model, graph, feed)
    np.testing.assert_allclose(given, wanted, rtol=1e-4, atol=1e-5 * np.abs(wanted).max())
    with pytest.raises(UsageError, match="2 is not between 0 and 1"):
        smooth(graph, 2, largest.found)


@pytest.mark.parametrize("recovery", [Recovery(equalize=True), Recovery(smooth=0.5)])
def test_small_channels_are_won_back(recovery: Recovery, noise: dict[str, np.ndarray]) -> None:
    """By a scale of a hundredth more, 6.6 bits of channel 1."""
    model = uneven()
    plain = sqnr(model, quantize_model(model, noise), noise)
    better = sqnr(model, quantize_model(model, noise, QuantizeOptions(recovery=recovery)), noise)
    assert better > plain + 10


@pytest.mark.parametrize(
    ("name", "rounding"),
    [
        ("digits_cnn", "adaround"),
        ("digits_transformer", "adaround"),
        ("digits_transformer", "gptq"),
    ],
)
def test_rounding_wins_on_trained_models(
    name: str, rounding: Any, images: dict[str, np.ndarray]
) -> None:
    """Calibrated on one half of the digits, judged on the other."""
    model = onnx.load(MODELS / f"{name}.onnx")
    halves = [{"image": half} for half in np.split(images["image"], 2)]
    found = [
        sqnr(model, quantize_model(model, halves[0], QuantizeOptions(recovery=recovery)), halves[1])
        for recovery in (Recovery(), Recovery(rounding=rounding))
    ]
    assert found[1] > found[0]


def test_bias_correction_takes_the_mean_error_away(noise: dict[str, np.ndarray]) -> None:
    model = uneven()
    means = []
    for correct in (False, True):
        options = QuantizeOptions(recovery=Recovery(bias_correction=correct))
        result = quantize_model(model, noise, options)
        errors = [
            run(result.model, {"x": x[None]})[0] - run(model, {"x": x[None]})[0] for x in noise["x"]
        ]
        means.append(np.abs(np.mean(errors, axis=(0, 1, 3, 4))).max())
    assert means[1] < means[0] / 2


def test_layers_of_too_many_inputs_keep_their_rounding(
    images: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left is read in several parts."""
    options = QuantizeOptions(recovery=Recovery(rounding="adaround"))
    model = MODELS / "digits_cnn.onnx"
    few = {"image": images["image"][:8]}
    nearest, whole = (quantize_model(model, few, each) for each in (QuantizeOptions(), options))
    monkeypatch.setattr(refine, "BYTES", 16 * 150**2)
    parts = quantize_model(model, few, options)
    assert not any("too many inputs" in note for note in whole.notes)
    left = [note for note in parts.notes if "too many inputs for adaround" in note]
    kept = {
        name
        for name, weight in parts.plan.weights.items()
        if (weight.integers == nearest.plan.weights[name].integers).all()
    }
    assert len(kept) == len(left) == 1
    for name in parts.plan.weights.keys() - kept:
        np.testing.assert_array_equal(
            parts.plan.weights[name].integers, whole.plan.weights[name].integers
        )


def loss(h: np.ndarray, weights: np.ndarray, chosen: np.ndarray) -> float:
    error = chosen - weights
    return float(np.einsum("io,ij,jo->", error, h, error))


def test_rounding_lessens_the_loss_and_keeps_within_its_range() -> None:
    random = np.random.default_rng(3)
    x = random.standard_normal((200, 12)) @ random.standard_normal((12, 12))
    h = x.T @ x
    exact = random.uniform(-8, 8, (12, 5))
    nearest = np.clip(np.rint(exact), -7, 7)
    for way in (adaround, gptq):
        chosen = way(h @ exact, h, exact, -7, 7)
        assert loss(h, exact, chosen) < 0.7 * loss(h, exact, nearest)
        assert np.abs(chosen).max() <= 7
        assert (chosen == np.rint(chosen)).all()
    up_or_down = adaround(h @ exact, h, exact, -7, 7)
    inside = np.abs(exact) < 6
    assert (np.abs(up_or_down - exact)[inside] < 1).all()


def test_rounding_by_uncorrelated_inputs_is_to_the_nearest() -> None:
    h = np.diag(np.arange(1.0, 7.0))
    exact = np.random.default_rng(5).uniform(-4, 4, (6, 3))
    for way in (adaround, gptq):
        np.testing.assert_array_equal(way(h @ exact, h, exact, -7, 7), np.rint(exact))


@pytest.mark.parametrize(
    "attributes",
    [
        "kernel_shape = [3,2], pads = [1,0,2,1], strides = [2,1]",
        "kernel_shape = [3,2], dilations = [2,3], group = 2",
        'kernel_shape = [3,2], auto_pad = "SAME_UPPER", strides = [2,3]',
        'kernel_shape = [3,2], auto_pad = "SAME_LOWER", strides = [3,2]',
        'kernel_shape = [3,2], auto_pad = "VALID"',
    ],
)
def test_rows_times_columns_are_the_convolution(attributes: str) -> None:
    groups = 2 if "group" in attributes else 1
    random = np.random.default_rng(0)
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> m (float[2,4,7,8] x) => (float[n,6,h,w] y)'
        f" {{ y = Conv <{attributes}> (x, k) }}"
    )
    kernel = random.standard_normal((6, 4 // groups, 3, 2)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(kernel, "k"))
    x = random.standard_normal((2, 4, 7, 8)).astype(np.float32)
    [wanted] = run(model, {"x": x})
    (node,) = load(model, trusted=True).gs.nodes
    unit = Unit("product", (node,), (0,), 1, 0)
    matrices = columns(unit, kernel)
    np.testing.assert_array_equal(weights(unit, matrices), kernel)
    results = rows(unit, x, random) @ matrices
    given = results.transpose(1, 0, 2).reshape(2, *wanted.shape[2:], 6).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(given, wanted, rtol=1e-4, atol=1e-5)


def test_what_serves_a_model_is_chosen_on_samples_apart(noise: dict[str, np.ndarray]) -> None:
    """Smoothing is what small channels need; a single sample leaves nothing to judge by."""
    model = uneven()
    result = quantize_model(model, noise, QuantizeOptions(recovery=None))
    [told] = [note for note in result.notes if "won back by" in note]
    assert told.startswith("accuracy is won back by smoothing by 0.5 and bias correction: ")
    by_hand = Recovery(smooth=0.5, bias_correction=True)
    expected = quantize_model(model, noise, QuantizeOptions(recovery=by_hand))
    assert result.model == expected.model

    single = {"x": noise["x"][:1]}
    result = quantize_model(model, single, QuantizeOptions(recovery=None))
    assert not [note for note in result.notes if "won back by" in note]
    assert result.model == quantize_model(model, single).model


def test_only_samples_apart_judge(noise: dict[str, np.ndarray]) -> None:
    """Each of the means is given every other sample; of equals the first is taken."""
    graph = load(uneven())
    quantized = quantize_model(uneven(), noise).model
    seen: list[list[float]] = []

    def quantize(twin: Graph, recovery: Recovery, half: Any) -> onnx.ModelProto:
        seen.append([float(sample["x"].sum()) for sample in half])
        return quantized if recovery.smooth else twin.to_source_opset()

    samples = [{"x": x[None]} for x in noise["x"]]
    recovery, _ = choose(graph, samples, quantize)
    assert recovery == Recovery()
    assert seen == len(CANDIDATES) * [[float(sample["x"].sum()) for sample in samples[::2]]]
