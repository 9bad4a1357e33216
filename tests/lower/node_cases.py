"""ONNX's own node cases, and how one is judged: right, or refused with a reason; never wrong.

Some cases feed what decides the output's shape (Reshape's `shape`, Resize's `scales`, ...) as an
input. Where such a case is refused for it, it is tried again with its inputs of rank 0 and 1 but
the first made constants.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import numpy_helper

from edgec.errors import EdgecError
from edgec.packing import is_packed

Feeds = dict[str, np.ndarray]
Prepare = Callable[[onnx.ModelProto, bool], Callable[[Feeds], list[np.ndarray]]]
"""Makes a model ready to run, or raises EdgecError; told whether shapes are to be as declared."""

ROUNDED = {
    "test_averagepool_2d_ceil_last_window_starts_on_pad": 1e-3,
    "test_roialign_aligned_false": 2e-3,
    "test_roialign_aligned_true": 2e-3,
}
"""Cases whose expected values are written with few digits, and their relative tolerance."""


class Verdict(NamedTuple):
    """right | bound (right with constants bound) | refused | other, and the reason."""

    kind: str
    why: str = ""


@functools.cache
def cases() -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        return list(collect_testcases(None))


def judge(case: Any, prepare: Prepare) -> Verdict:
    """Prepare and run a case; AssertionError where the result is wrong."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    if not has_plain_tensors(model):
        return Verdict("other", "not a tensor of numbers")
    inputs, outputs = ([_array(x) for x in side] for side in case.data_sets[0])
    feeds = {info.name: x for info, x in zip(model.graph.input, inputs, strict=True)}
    kind = "right"
    try:
        run = prepare(model, False)
    except EdgecError as error:
        kind = "bound"
        try:
            run = prepare(_with_constants(model, feeds), True)
        except EdgecError:
            return Verdict("refused", error.what)
    results = run(feeds)
    assert len(results) == len(outputs)
    for result, expected in zip(results, outputs, strict=True):
        check(result, expected, ROUNDED.get(case.name))
    return Verdict(kind)


def has_plain_tensors(model: onnx.ModelProto) -> bool:
    """Whether all inputs and outputs are tensors of numbers."""
    return all(
        info.type.HasField("tensor_type")
        and info.type.tensor_type.elem_type != onnx.TensorProto.STRING
        for info in (*model.graph.input, *model.graph.output)
    )


def _array(value: Any) -> np.ndarray:
    plain = isinstance(value, onnx.TensorProto)
    return numpy_helper.to_array(value) if plain else np.asarray(value)


def _with_constants(model: onnx.ModelProto, feeds: Feeds) -> onnx.ModelProto:
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
