"""ONNX's own node cases, lowered: each is right, or refused with a reason; none is wrong.

Some cases feed what decides the output's shape (Reshape's `shape`, Resize's `scales`, ...) as an
input. Where such a case is refused for it, it is tried again with its inputs of rank 0 and 1 but
the first made constants and its outputs of the shapes it declares.
"""

from __future__ import annotations

import functools
import warnings
from collections import defaultdict
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgec.errors import EdgecError
from edgec.graph import Graph, load
from edgec.lower.convert import unsupported
from edgec.packing import is_packed

from .running import run

ROUNDED = {
    "test_averagepool_2d_ceil_last_window_starts_on_pad": 1e-3,
    "test_roialign_aligned_false": 2e-3,
    "test_roialign_aligned_true": 2e-3,
}
"""Cases whose expected values are written with few digits, and their relative tolerance."""

NOT_LOWERED = (
    "Bernoulli",
    "ImageDecoder",
    "Loop",
)
"""Operators whose cases may all be refused; any other must have a case that is right."""


class Verdict(NamedTuple):
    """right | bound (right with constants bound) | refused | unreadable | other, and the reason."""

    kind: str
    why: str = ""


@functools.cache
def cases() -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        return list(collect_testcases(None))


def judge(case: Any) -> Verdict:
    """Compile and run a case; AssertionError where the result is wrong."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    if any(not _is_plain(info) for info in [*model.graph.input, *model.graph.output]):
        return Verdict("other", "not a tensor of numbers")
    inputs, outputs = ([_array(x) for x in side] for side in case.data_sets[0])
    feeds = {info.name: x for info, x in zip(model.graph.input, inputs, strict=True)}
    kind = "right"
    graph, why = _lowerable(model)
    if graph is None:
        kind = "bound"
        graph, _ = _lowerable(_with_constants(model, feeds), declared=True)
    if graph is None:
        return Verdict("refused", why)
    results = run(graph, feeds)
    assert len(results) == len(outputs)
    for result, expected in zip(results, outputs, strict=True):
        check(result, expected, ROUNDED.get(case.name))
    return Verdict(kind)


def _is_plain(info: onnx.ValueInfoProto) -> bool:
    tensor = info.type.HasField("tensor_type")
    return tensor and info.type.tensor_type.elem_type != onnx.TensorProto.STRING


def _array(value: Any) -> np.ndarray:
    plain = isinstance(value, onnx.TensorProto)
    return numpy_helper.to_array(value) if plain else np.asarray(value)


def _lowerable(model: onnx.ModelProto, declared: bool = False) -> tuple[Graph | None, str]:
    try:
        graph = load(model, trusted=True)
    except EdgecError as error:
        return None, error.what
    if declared:
        for tensor, info in zip(graph.gs.outputs, model.graph.output, strict=True):
            tensor.shape = tuple(d.dim_value for d in info.type.tensor_type.shape.dim)
    refused = unsupported(graph)
    return (None, f"{refused[0].op}: {refused[0].why}") if refused else (graph, "")


def _with_constants(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> onnx.ModelProto:
    """The model with its small inputs fixed; the first too where it is a shape or a limit."""
    bound = onnx.ModelProto()
    bound.CopyFrom(model)
    names = [info.name for info in model.graph.input]
    ops = ("ConstantOfShape", "Range", "BlackmanWindow", "HammingWindow", "HannWindow")
    generates = any(
        op.lower() in (model.graph.name + model.graph.node[0].op_type).lower() for op in ops
    )
    for name in names if generates else names[1:]:
        if feeds[name].ndim <= 1:
            bound.graph.initializer.append(numpy_helper.from_array(feeds[name], name))
    fixed = {tensor.name for tensor in bound.graph.initializer}
    free = [info for info in bound.graph.input if info.name not in fixed]
    del bound.graph.input[:]
    bound.graph.input.extend(free)
    return bound


def check(result: np.ndarray, expected: np.ndarray, rtol: float | None = None) -> None:
    """Same type, shape and values: exact, but for rounding of floats."""
    assert (result.dtype, result.shape) == (expected.dtype, expected.shape)
    if expected.dtype.kind != "f" and expected.dtype.name != "bfloat16":
        if is_packed(expected.dtype.name):
            result, expected = result.astype(np.float32), expected.astype(np.float32)
        np.testing.assert_array_equal(result, expected)
        return
    close = rtol or {"float16": 2e-3, "bfloat16": 1.6e-2}.get(expected.dtype.name, 1e-4)
    a, b = result.astype(np.float64), expected.astype(np.float64)
    scale = np.max(np.abs(b[np.isfinite(b)]), initial=0.0)
    np.testing.assert_allclose(a, b, rtol=close, atol=close / 10 * scale + 1e-7)


def by_operator() -> dict[str, list[Any]]:
    """The cases of one node by its operator, the two cheapest to compile of each."""
    groups: dict[str, list[Any]] = defaultdict(list)
    for case in cases():
        if len(case.model.graph.node) == 1:
            groups[case.model.graph.node[0].op_type].append(case)
    return {op: group[:: max(len(group) - 1, 1)][:2] for op, group in sorted(groups.items())}


@pytest.mark.parametrize("op", list(by_operator()))
def test_no_case_of_an_operator_is_wrong(op: str) -> None:
    verdicts = [judge(case) for case in by_operator()[op]]
    ran = any(v.kind in ("right", "bound") for v in verdicts)
    reasons = {v.why for v in verdicts if v.why}
    assert ran or reasons
    assert ran or op in NOT_LOWERED or reasons == {"not a tensor of numbers"}, reasons


@pytest.mark.nightly
def test_every_case() -> None:
    kinds: dict[str, int] = defaultdict(int)
    wrong = {}
    for case in cases():
        try:
            kinds[judge(case).kind] += 1
        except AssertionError as error:
            wrong[case.name] = str(error)
    assert not wrong
    assert kinds["right"] + kinds["bound"] >= 1500, dict(kinds)
