"""Narrow elements: every code, every rounding. ml_dtypes, by way of ONNX, is the judge."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgec.packing import is_packed, pack, unpack
from edgec.program import bits_of

from .running import run_model

FLOATS = {
    "float8_e4m3fn": TensorProto.FLOAT8E4M3FN,
    "float8_e4m3fnuz": TensorProto.FLOAT8E4M3FNUZ,
    "float8_e5m2": TensorProto.FLOAT8E5M2,
    "float8_e5m2fnuz": TensorProto.FLOAT8E5M2FNUZ,
    "float4_e2m1fn": TensorProto.FLOAT4E2M1,
}
INTEGERS = {
    "int4": TensorProto.INT4,
    "uint4": TensorProto.UINT4,
    "int2": TensorProto.INT2,
    "uint2": TensorProto.UINT2,
}
SCALE = {"float8_e8m0fnu": TensorProto.FLOAT8E8M0}
ALL = FLOATS | INTEGERS | SCALE


def every(name: str) -> np.ndarray:
    """Each value of a type, one of them twice so that the last byte may be half full."""
    codes = np.arange(2 ** bits_of(name), dtype=np.uint8)
    values = unpack(pack_codes(codes, bits_of(name)), name, codes.shape)
    return np.concatenate([values, values[:1]])


def pack_codes(codes: np.ndarray, bits: int) -> np.ndarray:
    """The bytes of codes in order, spelled as the standard draws them."""
    text = "".join(f"{c:0{bits}b}" for c in codes[::-1])
    return np.array([int(text[k : k + 8], 2) for k in range(0, len(text), 8)][::-1], np.uint8)


def cast(source: int, target: int, shape: tuple[int, ...], **attrs: object) -> object:
    node = helper.make_node("Cast", ["x"], ["y"], to=target, **attrs)
    graph = helper.make_graph(
        [node],
        "cast",
        [helper.make_tensor_value_info("x", source, shape)],
        [helper.make_tensor_value_info("y", target, shape)],
    )
    opset = helper.make_opsetid("", 25)
    return helper.make_model(graph, opset_imports=[opset], ir_version=13)


def same(result: np.ndarray, expected: np.ndarray) -> None:
    """Equal values, -0 and 0 told apart, any NaN for another."""
    assert (result.dtype, result.shape) == (expected.dtype, expected.shape)
    a, b = result.astype(np.float32), expected.astype(np.float32)
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(np.signbit(a[~np.isnan(b)]), np.signbit(b[~np.isnan(b)]))


@pytest.mark.parametrize("name", list(ALL))
def test_every_value_is_taken(name: str) -> None:
    values = every(name)
    (made,) = run_model(cast(ALL[name], TensorProto.FLOAT, values.shape), values)
    same(made, values.astype(np.float32))


@pytest.mark.parametrize("name", list(ALL))
def test_every_value_is_given(name: str) -> None:
    values = every(name).astype(np.float32)
    mode = {"round_mode": "down"} if name in SCALE else {"saturate": 0}
    (made,) = run_model(cast(TensorProto.FLOAT, ALL[name], values.shape, **mode), values)
    same(made, every(name))


@pytest.mark.parametrize("name", list(ALL))
def test_packing(name: str) -> None:
    values = every(name)
    stored = pack(values)
    assert is_packed(name)
    assert stored.tobytes() == numpy_helper.from_array(values).raw_data
    assert unpack(stored, name, values.shape).tobytes() == values.tobytes()


def numbers(name: str) -> np.ndarray:
    """Floats of all sizes around what a type holds, and all that lie half way between two."""
    random = np.random.default_rng(0)
    spread = random.standard_normal(2000) * 2.0 ** random.integers(-20, 20, 2000)
    near = np.sort(every(name).astype(np.float64))
    near = near[np.isfinite(near)]
    middle = (near[1:] + near[:-1]) / 2
    ends = [np.inf, -np.inf, np.nan, 0.0, -0.0, 1e30, -1e30, 1e-40, -1e-40]
    largest = near[-1] * np.array([1, 1.01, 1.03, 1.0625, 1.07, 1.125, 1.13, 1.5, 2])
    chosen = (spread, middle, np.nextafter(middle, np.inf, dtype=np.float32), ends, largest)
    return np.concatenate(chosen).astype(np.float32)


@pytest.mark.parametrize("saturate", [0, 1])
@pytest.mark.parametrize("name", list(FLOATS))
def test_rounding(name: str, saturate: int) -> None:
    x = numbers(name)
    model = cast(TensorProto.FLOAT, FLOATS[name], x.shape, saturate=saturate)
    (expected,) = ReferenceEvaluator(model).run(None, {"x": x})
    same(run_model(model, x)[0], expected)


@pytest.mark.parametrize("saturate", [0, 1])
@pytest.mark.parametrize("mode", ["up", "down", "nearest"])
def test_powers_of_two(mode: str, saturate: int) -> None:
    random = np.random.default_rng(0)
    x = (1 + random.random(2000)) * 2.0 ** random.integers(-126, 127, 2000)
    x = np.concatenate([x, 2.0 ** np.arange(-126, 128), [1.5, 1.25, np.inf, np.nan, 3.4e38]])
    x = x.astype(np.float32)
    attrs = {"round_mode": mode, "saturate": saturate}
    model = cast(TensorProto.FLOAT, TensorProto.FLOAT8E8M0, x.shape, **attrs)
    (expected,) = ReferenceEvaluator(model).run(None, {"x": x})
    same(run_model(model, x)[0], expected)


@pytest.mark.parametrize("name", list(INTEGERS))
@pytest.mark.parametrize("source", [np.float32, np.float16, np.int32, np.uint8, np.int64])
def test_high_bits_are_dropped(name: str, source: type) -> None:
    x = np.arange(0 if source is np.uint8 else -40, 41).astype(source)
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    (made,) = run_model(cast(kind, INTEGERS[name], x.shape), x)
    same(made, x.astype(np.int32).astype(getattr(ml_dtypes, name)))


@pytest.mark.parametrize("name", ["int4", "uint2", "float4_e2m1fn", "float8_e4m3fn"])
def test_moving_narrow_elements(name: str) -> None:
    """Reshaped, transposed and chosen, with a constant beside them."""
    values = np.resize(every(name), (3, 5))
    fixed = np.roll(values, 1).T
    kind = ALL[name]
    graph = helper.make_graph(
        [
            helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0]),
            helper.make_node("Identity", ["c"], ["fixed"]),
            helper.make_node("Reshape", ["t", "shape"], ["moved"]),
        ],
        "moving",
        [helper.make_tensor_value_info("x", kind, (3, 5))],
        [
            helper.make_tensor_value_info("moved", kind, (15,)),
            helper.make_tensor_value_info("fixed", kind, (5, 3)),
        ],
        [
            numpy_helper.from_array(np.array([15]), "shape"),
            numpy_helper.from_array(fixed, "c"),
        ],
    )
    opset = helper.make_opsetid("", 25)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=13)
    moved, constant = run_model(model, values)
    same(moved, values.T.reshape(15))
    same(constant, fixed)
