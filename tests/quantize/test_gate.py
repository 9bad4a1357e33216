"""The speed gate: what integers make no faster stays in floats, conversions included."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import onnx
import pytest
from command import Edgec
from onnx import TensorProto, helper, numpy_helper

from edgec import targets
from edgec.errors import UsageError
from edgec.graph import Graph, load
from edgec.quantize.gate import MARGIN, MEASURED, Pair, Times, judge
from edgec.quantize.modelled import modelled
from edgec.quantize.plan import structure
from edgec.quantize.profiles import resolve
from edgec.quantize.quantizer import QuantizeOptions, quantize_model
from edgec.quantize.units import Unit
from edgec.report import duration

MODELS = Path(__file__).resolve().parents[2] / "models"


def convolutions(*layers: tuple[str, str, int, int], channels: int, size: int) -> onnx.ModelProto:
    """Convolutions, each (name, what it reads, kernel, group), with a Relu; all are outputs that no
    other reads."""
    random = np.random.default_rng(0)
    nodes, weights = [], []
    for name, read, kernel, group in layers:
        shape = (channels, channels // group, kernel, kernel)
        values = random.standard_normal(shape).astype(np.float32) / np.sqrt(np.prod(shape[1:]))
        weights.append(numpy_helper.from_array(values.astype(np.float32), f"{name}_w"))
        pads = [kernel // 2] * 4
        nodes.append(
            helper.make_node(
                "Conv", [read, f"{name}_w"], [f"{name}_sum"], name, group=group, pads=pads
            )
        )
        nodes.append(helper.make_node("Relu", [f"{name}_sum"], [name], f"{name}_relu"))
    read = {name for _, name, _, _ in layers}
    shape = [1, channels, size, size]
    graph = helper.make_graph(
        nodes,
        "layers",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, _, _, _ in layers
            if name not in read
        ],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def units_of(model: onnx.ModelProto) -> tuple[Graph, list[Unit]]:
    graph = load(model)
    return graph, structure(graph, resolve("host")).units


def times(pairs: dict[str, tuple[float, float]], conversion: float) -> Times:
    given = {f"{name}_sum": Pair(*pair) for name, pair in pairs.items()}
    return Times(given, lambda tensor: conversion, MEASURED, duration)


CHAIN = convolutions(("a", "x", 1, 1), ("b", "a", 1, 1), ("c", "b", 1, 1), channels=4, size=4)


@pytest.mark.parametrize(
    ("b", "conversion", "floats"),
    [
        ((1.0, 1.0), 0.0, set()),
        ((1.0, 1.02), 0.0, set()),
        ((1.0, 2.0), 0.1, {"b_sum"}),
        ((1.0, 2.0), 0.6, set()),
        ((1.0, 9.0), 2.0, {"b_sum"}),
    ],
)
def test_a_layer_amid_integers_has_to_gain_more_than_two_conversions(
    b: tuple[float, float], conversion: float, floats: set[str]
) -> None:
    graph, units = units_of(CHAIN)
    given = times({"a": (9.0, 1.0), "b": b, "c": (9.0, 1.0)}, conversion)
    verdict = judge(graph, units, given)
    assert verdict.floats == floats
    assert verdict.reasons.keys() == floats
    for reason in verdict.reasons.values():
        assert "1.00 s in floats" in reason


def test_neighbours_share_their_conversions() -> None:
    """Each of b and c alone gains less than its two conversions would take."""
    graph, units = units_of(CHAIN)
    given = times({"a": (9.0, 1.0), "b": (1.0, 2.0), "c": (1.0, 2.0)}, 0.8)
    assert judge(graph, units, given).floats == {"b_sum", "c_sum"}


def test_what_was_not_timed_stays_an_integer() -> None:
    graph, units = units_of(CHAIN)
    given = times({"a": (1.0, 9.0), "c": (1.0, 9.0)}, 0.5)
    assert judge(graph, units, given).floats == {"a_sum", "c_sum"}


@pytest.mark.parametrize("seed", range(20))
def test_nothing_takes_less_than_what_is_chosen(seed: int) -> None:
    """All choices for two branches, with what each converts counted one by one."""
    layers = [("a", "x"), ("b", "a"), ("c", "a"), ("d", "b"), ("e", "c"), ("f", "d")]
    model = convolutions(*((name, read, 1, 1) for name, read in layers), channels=4, size=4)
    graph, units = units_of(model)
    random = np.random.default_rng(seed)
    pairs = {name: (random.uniform(), random.uniform()) for name, _ in layers}
    conversion = random.uniform(0, 0.3)

    def total(floats: frozenset[str]) -> float:
        spent = sum(
            MARGIN * pairs[name][0] if name in floats else pairs[name][1] for name, _ in layers
        )
        for maker in ["x", *pairs]:
            made = maker == "x" or maker in floats
            readers = {reader in floats for reader, read in layers if read == maker}
            spent += conversion * ((not made) in readers)
        return spent

    choices = [frozenset(chosen) for n in range(7) for chosen in itertools.combinations(pairs, n)]
    found = judge(graph, units, times(pairs, conversion)).floats
    assert total(frozenset(name.removesuffix("_sum") for name in found)) == pytest.approx(
        min(map(total, choices))
    )


GROUPED = convolutions(
    ("first", "x", 1, 1),
    ("grouped", "first", 3, 32),
    ("last", "grouped", 1, 1),
    channels=128,
    size=14,
)
"""Integer kernels compute a grouped convolution as a dense one: 32 times the work."""


def test_a_grouped_convolution_stays_in_floats_by_measurement(edgec: Edgec, tmp_path: Path) -> None:
    onnx.save(GROUPED, tmp_path / "m.onnx")
    words = ("quantize", tmp_path / "m.onnx", "--calib", "random", "-o", tmp_path / "q.onnx")
    done = edgec(*words, "--profile", "host", "--json")
    found = done.result["gate"]
    assert found["origin"] == "measured"
    assert [n for n, row in found["layers"].items() if row["stays_in_floats"]] == ["grouped_sum"]
    for row in found["layers"].values():
        assert 0.5 < row["floats"] < 5000
        assert (row["floats"] < row["integers"]) == row["stays_in_floats"]
    assert "in integers" in done.result["left"]["grouped_sum"]
    again = edgec(*words, "--profile", "host", "--report")
    assert "grouped_sum" in again.out
    assert "us in integers" in again.out
    assert "'grouped_sum' stays in floats; measured:" in again.err

    assert edgec(*words, "--profile", "host", "--gate", "off", "--json").result["gate"] is None
    compiled = edgec(
        "compile",
        tmp_path / "m.onnx",
        "--quantize",
        "w8a8",
        "--calib",
        "random",
        "-o",
        tmp_path / "m.edgec",
    )
    assert compiled.code == 0, compiled.err
    assert "'grouped_sum' stays in floats; measured:" in compiled.err
    assert "verified: device" in compiled.out


def test_other_targets_have_a_model() -> None:
    pairs = {}
    for name in ("rpi5", "x86-64-v3", "x86-64-v4+avx512vnni"):
        _, units = units_of(GROUPED)
        pairs[name] = modelled(units, targets.resolve(name)).units
    for name, least in (("rpi5", 2.5), ("x86-64-v3", 1.1), ("x86-64-v4+avx512vnni", 1.5)):
        pair = pairs[name]["last_sum"]
        assert least < pair.floats / pair.integers < 4
    result = quantize_model(GROUPED, ["random"], QuantizeOptions(profile="rpi5", gate="auto"))
    assert result.verdict is not None
    assert result.verdict.times.origin == "modelled"
    assert "last_sum" in result.plan.units


def test_a_profile_that_is_no_target_has_no_gate() -> None:
    made = quantize_model(GROUPED, ["random"], QuantizeOptions(gate="auto"))
    assert made.verdict is None
    for profile, how in (("portable", "measure"), ("rpi5", "measure"), ("host", "nothing")):
        with pytest.raises(UsageError):
            quantize_model(GROUPED, ["random"], QuantizeOptions(profile=profile, gate=how))
