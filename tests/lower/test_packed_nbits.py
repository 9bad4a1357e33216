"""ONNX Runtime's MatMulNBits, against ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from packed_models import Packed

from edgec.compiler import compile_model
from edgec.errors import LoweringError
from edgec.graph import load
from edgec.lower.convert import unsupported


def product(
    made: Packed, rows: int, inner: int, columns: int, bits: int, zeros: bool, **attrs: int
) -> list[str]:
    """The inputs of a new node, whose output is a new output of the model."""
    block = 32
    blocks = -(-inner // block)
    stored = made.random.integers(0, 256, (columns, blocks, block * bits // 8)).astype(np.uint8)
    scale = made.random.uniform(0.01, 0.02, (columns, blocks)).astype(np.float32)
    inputs = [made.input((rows, inner)), made.constant(stored), made.constant(scale)]
    if zeros:
        bytes_ = columns, -(-blocks * bits // 8)
        inputs.append(made.constant(made.random.integers(0, 256, bytes_).astype(np.uint8)))
    sizes = {"K": inner, "N": columns, "bits": bits, "block_size": block}
    y = made.node("MatMulNBits", inputs, domain="com.microsoft", **sizes, **attrs)
    made.output(made.node("Relu", [y]), (rows, columns))
    return inputs


def model_of(made: Packed) -> onnx.ModelProto:
    model = made.model()
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model


def test_agrees_with_onnx_runtime(tmp_path: Path) -> None:
    made = Packed()
    product(made, 1, 128, 96, 4, zeros=False)
    product(made, 5, 96, 40, 4, zeros=True)
    product(made, 3, 64, 48, 8, zeros=False)
    product(made, 2, 100, 32, 4, zeros=False)  # a last block of 4 terms
    inputs = product(made, 2, 64, 80, 4, zeros=False)
    bias = made.constant(made.random.standard_normal(80).astype(np.float32))
    made.nodes[-2].input[:] = [*inputs, "", "", bias]
    result = compile_model(model_of(made), tmp_path / "m.edgec")
    (variant,) = result.manifest["variants"]
    assert variant["verified"] == "device"
    codes = 128 * 96 // 2 + 96 * 40 // 2 + 64 * 48 + 100 * 32 // 2 + 64 * 80 // 2
    scales = 4 * (4 * 96 + 3 * 40 + 2 * 48 + 4 * 32 + 3 * 80) + 3 * 40
    assert codes + scales <= variant["weights_bytes"] < codes + scales + 1024  # aligned


@pytest.mark.parametrize(
    ("attrs", "why"),
    [({"accuracy_level": 4}, "rounds activations to int8"), ({"bits": 3}, "3 bits")],
)
def test_what_is_not_lowered_is_said(attrs: dict[str, Any], why: str) -> None:
    made = Packed()
    product(made, 1, 64, 48, 4, zeros=False)
    node = made.nodes[0]
    for key, value in attrs.items():
        kept = [a for a in node.attribute if a.name != key]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(key, value)])
    refused, *_ = unsupported(load(model_of(made)))
    assert why in refused.why


def test_data_that_does_not_fit_is_an_error(tmp_path: Path) -> None:
    made = Packed()
    product(made, 1, 64, 48, 4, zeros=False)
    node = made.nodes[0]
    (columns,) = (a for a in node.attribute if a.name == "N")
    columns.i = 64
    with pytest.raises(LoweringError, match="do not fit"):
        compile_model(model_of(made), tmp_path / "m.edgec")
