"""Quantized tensors in float arithmetic, against numpy."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from onnx import ModelProto, helper, numpy_helper
from onnx.helper import np_dtype_to_tensor_dtype

from .running import run_model


def model_of(
    op: str, x: np.ndarray, out: str, constants: list[np.ndarray], known: bool = False, **attrs: int
) -> ModelProto:
    """One node over `x`, a constant itself if `known`, and constants, to type `out`."""
    names = [f"c{k}" for k in range(len(constants))]
    tensors = [numpy_helper.from_array(c, n) for c, n in zip(constants, names, strict=True)]
    inputs = [helper.make_tensor_value_info("x", np_dtype_to_tensor_dtype(x.dtype), x.shape)]
    output = helper.make_tensor_value_info("y", np_dtype_to_tensor_dtype(np.dtype(out)), x.shape)
    if known:
        tensors.append(numpy_helper.from_array(x, "x"))
        inputs = []
    node = helper.make_node(op, ["x", *names], ["y"], **attrs)
    graph = helper.make_graph([node], "g", inputs, [output], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)], ir_version=11)


@pytest.mark.parametrize("dtype", ["int4", "uint4", "int8", "uint8", "int16"])
def test_blocked_constants_are_dequantized(dtype: str) -> None:
    random = np.random.default_rng(0)
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    low, high = (0, 15) if dtype == "uint4" else (-7, 8)
    low = max(low, 0) if dtype == "uint8" else low
    plain = random.integers(low, high, (6, 4))
    scale = random.uniform(0.1, 1, (3, 4)).astype(np.float32)
    zero = random.integers(0, 3, (3, 4))
    constants = [scale, zero.astype(kind)]
    x = plain.astype(kind)
    model = model_of("DequantizeLinear", x, "float32", constants, True, axis=0, block_size=2)
    expected = (plain - zero.repeat(2, 0)).astype(np.float32) * scale.repeat(2, 0)
    np.testing.assert_array_equal(run_model(model)[0], expected)


def test_quantizing_rounds_to_even_and_saturates() -> None:
    x = np.float32([0.5, 1.5, 2.5, -0.5, -1.5, 1e9, -1e9, np.inf, -np.inf, 126.4, -129.0])
    model = model_of("QuantizeLinear", x, "int8", [np.float32(1), np.int8(1)])
    expected = [1, 3, 3, 1, -1, 127, -128, 127, -128, 127, -128]
    np.testing.assert_array_equal(run_model(model, x)[0], expected)


@pytest.mark.parametrize("dtype", ["int4", "uint4", "int2", "uint2"])
def test_quantizing_below_a_byte_saturates(dtype: str) -> None:
    x = np.float32([0.5, 1.5, 2.5, -0.5, -9.5, 20.0, np.inf, -np.inf])
    kind = np.dtype(getattr(ml_dtypes, dtype))
    model = model_of("QuantizeLinear", x, "int8", [np.float32(1), np.ones((), kind)])
    model.graph.output[0].type.tensor_type.elem_type = np_dtype_to_tensor_dtype(kind)
    limits = ml_dtypes.iinfo(kind)
    expected = np.clip(np.rint(x) + 1, int(limits.min), int(limits.max)).astype(np.int8)
    np.testing.assert_array_equal(run_model(model, x)[0].astype(np.int8), expected)
