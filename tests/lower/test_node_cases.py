"""ONNX's own node cases, lowered: each is right, or refused with a reason; none is wrong."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest

from edgec.errors import LoweringError
from edgec.graph import load
from edgec.lower.convert import unsupported

from .node_cases import Feeds, cases, judge
from .running import run

NOT_LOWERED = (
    "Bernoulli",
    "ImageDecoder",
    "Loop",
)
"""Operators whose cases may all be refused; any other must have a case that is right."""


def lowered(model: onnx.ModelProto, declared: bool) -> Callable[[Feeds], list[np.ndarray]]:
    """Runs the lowered model in this process. With `declared`, its outputs have the shapes that
    the model declares."""
    graph = load(model, trusted=True)
    if declared:
        for tensor, info in zip(graph.gs.outputs, model.graph.output, strict=True):
            tensor.shape = tuple(d.dim_value for d in info.type.tensor_type.shape.dim)
    for refused in unsupported(graph):
        raise LoweringError(f"{refused.op}: {refused.why}")
    return lambda feeds: run(graph, feeds)


@cache
def by_operator() -> dict[str, list[Any]]:
    """The cases of one node by its operator, the two cheapest to compile of each."""
    groups: dict[str, list[Any]] = defaultdict(list)
    for case in cases():
        if len(case.model.graph.node) == 1:
            groups[case.model.graph.node[0].op_type].append(case)
    return {op: group[:: max(len(group) - 1, 1)][:2] for op, group in sorted(groups.items())}


@pytest.mark.parametrize("op", list(by_operator()))
def test_no_case_of_an_operator_is_wrong(op: str) -> None:
    verdicts = [judge(case, lowered) for case in by_operator()[op]]
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
            kinds[judge(case, lowered).kind] += 1
        except AssertionError as error:
            wrong[case.name] = str(error)
    assert not wrong
    assert kinds["right"] + kinds["bound"] >= 1500, dict(kinds)
