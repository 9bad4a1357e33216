"""Proof of a pass that makes the model compute in a narrower type.

ONNX Runtime on a CPU computes float16 in float32 where it lacks a kernel, and would hide what
overflows. So the narrow tensors inside the model are made outputs as well, which rounds them.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import numpy_helper

from edgec.arrays import is_float
from edgec.data import Sample
from edgec.rewrite import Numerics
from edgec.tensors import numpy_dtype, onnx_dtype

ROUNDINGS = 16
"""By how many roundings of the largest value of an output it may be off at the end of a model."""

NARROW: dict[Numerics, np.dtype[Any]] = {
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
ORDINARY = ("random", "random again", "zeros")
"""Samples that no model may be expected to overflow on."""


def probed(model: onnx.ModelProto, dtype: np.dtype[Any]) -> onnx.ModelProto:
    """A copy of `model` whose tensors of `dtype` are outputs too.

    None are where a constant is infinite: what follows from it is no overflow.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if any(_is_infinite(tensor) for tensor in model.graph.initializer):
        return copy
    known = {output.name for output in model.graph.output}
    copy.graph.output.extend(
        info
        for info in model.graph.value_info
        if info.type.tensor_type.elem_type == onnx_dtype(dtype) and info.name not in known
    )
    return copy


def _is_infinite(tensor: onnx.TensorProto) -> bool:
    return is_float(numpy_dtype(tensor.data_type)) and bool(
        np.isinf(numpy_helper.to_array(tensor)).any()
    )


def complaint(sample: str, expected: Sample, outputs: Sample, dtype: np.dtype[Any]) -> str | None:
    """What is wrong with the `outputs` of a probed model, which belong to the sample of that name.

    Nothing is said of samples that are not of ordinary size: the model may overflow on them.
    """
    if sample not in ORDINARY:
        return None
    for name, array in outputs.items():
        if name not in expected and np.isinf(array).any():
            return f"tensor '{name}' overflows {dtype}"
    rounding = float(ml_dtypes.finfo(dtype).eps)  # type: ignore[no-untyped-call]
    for name, array in expected.items():
        wanted, given = (each.astype(np.float64) for each in (array, outputs[name]))
        largest = np.abs(wanted[np.isfinite(wanted)]).max(initial=0.0)
        limit = ROUNDINGS * rounding * largest if is_float(array.dtype) else 0.0
        if not np.allclose(given, wanted, rtol=0, atol=limit, equal_nan=True):
            return f"output '{name}' is off by more than {ROUNDINGS} roundings of {dtype}"
    return None
