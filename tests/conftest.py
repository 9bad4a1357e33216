"""Fixtures that several test modules share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper


@pytest.fixture
def chain() -> Callable[[int], onnx.ModelProto]:
    """A model of so many nodes in a row, a quarter of them Identity, with a symbolic batch."""
    return _chain


def _chain(nodes: int) -> onnx.ModelProto:
    ops = ["Relu", "Add", "Identity", "Sigmoid"]
    items = [
        helper.make_node(
            ops[i % 4],
            [f"t{i}", "w"] if ops[i % 4] == "Add" else [f"t{i}"],
            [f"t{i + 1}"],
            name=f"n{i}",
        )
        for i in range(nodes)
    ]
    x = helper.make_tensor_value_info("t0", TensorProto.FLOAT, ["N", 16])
    y = helper.make_tensor_value_info(f"t{nodes}", TensorProto.FLOAT, ["N", 16])
    weight = numpy_helper.from_array(np.ones(16, np.float32), "w")
    return helper.make_model(
        helper.make_graph(items, "chain", [x], [y], [weight]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
