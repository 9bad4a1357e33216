"""Every operator that fold-constants computes, on the examples of the ONNX standard."""

from __future__ import annotations

import warnings
from collections import defaultdict
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgec.graph import load
from edgec.passes.fold_constants import FOLDABLE, FoldConstants
from edgec.rewrite import optimize
from edgec.tensors import Constant

# Nothing beforehand says how many elements are not zero.
UNKNOWN_SIZE = {"NonZero"}


@pytest.fixture(scope="module")
def examples() -> dict[str, list[Any]]:
    """Node test cases by operator."""
    from onnx.backend.test.case.node import collect_testcases

    found: dict[str, list[Any]] = defaultdict(list)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for case in collect_testcases(None):
            nodes = case.model.graph.node
            plain = all(
                isinstance(value, np.ndarray | np.generic | onnx.TensorProto)
                for values in (case.data_sets or [((), ())])[0]
                for value in values
            )
            if len(nodes) == 1 and not nodes[0].domain and case.data_sets and plain:
                found[nodes[0].op_type].append(case)
    return found


def with_constant_inputs(case: Any) -> onnx.ModelProto:
    """The case's model on its own data, each result handed through an Identity."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    graph = model.graph
    for info, value in zip(graph.input, case.data_sets[0][0], strict=False):
        proto = value if isinstance(value, onnx.TensorProto) else None
        graph.initializer.append(proto or numpy_helper.from_array(np.asarray(value), info.name))
        graph.initializer[-1].name = info.name
    del graph.input[:]
    for info in graph.output:
        graph.node.append(helper.make_node("Identity", [info.name], [info.name + "_out"]))
        info.name += "_out"
    return model


@pytest.mark.parametrize("op", sorted(FOLDABLE - UNKNOWN_SIZE))
def test_computes_as_the_standard_says(op: str, examples: dict[str, list[Any]]) -> None:
    folded = 0
    for case in examples[op]:
        graph = load(with_constant_inputs(case), trusted=True)
        optimize(graph, [FoldConstants()])
        for node, expected in zip(graph.gs.nodes, case.data_sets[0][1], strict=False):
            if len(graph.gs.nodes) > len(graph.gs.outputs):
                continue
            (result,) = node.inputs
            assert node.op == "Identity"
            assert isinstance(result, Constant)
            if isinstance(expected, onnx.TensorProto):
                expected = numpy_helper.to_array(expected)
            assert result.values.dtype == np.asarray(expected).dtype, case.name
            assert result.shape == np.shape(expected), case.name
            if result.values.dtype.kind in "OUST":
                assert result.values.astype(str).tolist() == np.asarray(expected, str).tolist()
            else:
                np.testing.assert_allclose(
                    result.values.astype(np.float64),
                    np.asarray(expected).astype(np.float64),
                    rtol=1e-3,
                    atol=1e-6,
                    err_msg=case.name,
                )
            folded += 1
    assert folded
