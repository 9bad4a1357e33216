"""Sums of half precision: added up in float32, the bias with them, and rounded once."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, parser
from onnx.reference import ReferenceEvaluator

from edgec.graph import load

from .running import run

CASES = {
    "Conv": ("Conv (x, w, b)", (1, 300, 9, 10), (6, 300, 3, 3)),
    "Conv of groups": ("Conv <group = 2, pads = [1, 1, 1, 1]> (x, w, b)",
                       (1, 200, 6, 6), (4, 100, 5, 5)),
    "Conv along a line": ("Conv <strides = [2]> (x, w, b)", (2, 200, 23), (5, 200, 7)),
    "ConvTranspose": ("ConvTranspose (x, w, b)", (1, 300, 5, 6), (300, 4, 3, 3)),
    "ConvTranspose in phases": ("ConvTranspose <strides = [2, 2]> (x, w, b)",
                                (1, 300, 5, 6), (300, 4, 4, 4)),
    "AveragePool": ("AveragePool <kernel_shape = [20, 20], strides = [10, 10]> (x)",
                    (1, 3, 40, 40), None),
    "GlobalAveragePool": ("GlobalAveragePool (x)", (1, 3, 40, 40), None),
    "LpPool": ("LpPool <kernel_shape = [20, 20], strides = [9, 9]> (x)", (1, 3, 40, 40), None),
    "MatMul": ("MatMul (x, w)", (7, 2000), (2000, 9)),
    "Gemm": ("Gemm <alpha = 0.5, beta = 2.0> (x, w, b)", (7, 2000), (2000, 6)),
}  # fmt: skip
"""(expression, shape of x, shape of the constant w)"""


def draw(name: str) -> tuple[str, dict[str, NDArray]]:
    """The expression and its float64 operands, which float16 and bfloat16 hold exactly."""
    text, shape, weight = CASES[name]
    rng = np.random.default_rng(5)

    def some(*shape: int) -> NDArray:
        return (rng.integers(1, 127, shape) / 128).astype(np.float64)

    operands = {"x": some(*shape)}
    if weight is not None:
        operands["w"] = some(*weight) / 16
    if "b)" in text:
        transposed = text.startswith("ConvT")
        operands["b"] = some(weight[1] if transposed or text.startswith("Gemm") else weight[0])
    return text, operands


def model_of(text: str, operands: dict[str, NDArray], dtype: type) -> onnx.ModelProto:
    """The expression in `dtype`, all operands but x constant."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    name = onnx.TensorProto.DataType.Name(kind).lower()
    sizes = ", ".join(map(str, operands["x"].shape))
    model = parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 22]> g ({name}[{sizes}] x) => ({name} y)'
        f" {{ y = {text} }}"
    )
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(value.astype(dtype), key)
        for key, value in operands.items()
        if key != "x"
    )
    return onnx.shape_inference.infer_shapes(model)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("name", CASES)
def test_a_long_sum_is_rounded_once(name: str, dtype: type) -> None:
    text, operands = draw(name)
    (exact,) = ReferenceEvaluator(model_of(text, operands, np.float64)).run(
        None, {"x": operands["x"]}
    )
    (made,) = run(load(model_of(text, operands, dtype)), {"x": operands["x"].astype(dtype)})
    assert made.dtype == dtype
    rounding = float(ml_dtypes.finfo(dtype).eps) / 2
    np.testing.assert_allclose(made.astype(np.float64), exact, rtol=rounding * 1.05, atol=0)
