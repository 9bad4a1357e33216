"""Corner values: NaN, infinities, halves, zero divisors, wrap-around, ties. numpy is the judge."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper, shape_inference
from onnx.helper import np_dtype_to_tensor_dtype

from .running import run_model

SPECIAL = [np.nan, np.inf, -np.inf, 1e-30]
BIG = [1e30, -1e30, 90.0, -110.0, 3.4e38, 8388609.0]
FLOATS = np.array(
    [*SPECIAL, 0, -0.0, 1, -1, 0.5, -0.5, 1.5, -1.5, 2.5, -2.5, 3.7, -3.7, 1e-6, -1e-6, *BIG],
    np.float32,
)

UNARY: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "Abs": np.abs,
    "Acos": np.arccos,
    "Acosh": np.arccosh,
    "Asin": np.arcsin,
    "Asinh": np.arcsinh,
    "Atan": np.arctan,
    "Atanh": np.arctanh,
    "Ceil": np.ceil,
    "Cosh": np.cosh,
    "Exp": np.exp,
    "Floor": np.floor,
    "IsInf": np.isinf,
    "IsNaN": np.isnan,
    "Log": np.log,
    "Neg": np.negative,
    "Reciprocal": lambda x: 1 / x,
    "Relu": lambda x: np.maximum(x, 0),
    "Round": np.rint,
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x.astype(np.float64))),
    "Sign": np.sign,
    "Sinh": np.sinh,
    "Softplus": lambda x: np.logaddexp(0, x),
    "Sqrt": np.sqrt,
    "Tanh": np.tanh,
    "Elu": lambda x: np.where(x < 0, np.expm1(x), x),
    "LeakyRelu": lambda x: np.where(x < 0, np.float32(0.01) * x, x),
    "ThresholdedRelu": lambda x: np.where(x <= 1, 0, x),
    "HardSigmoid": lambda x: np.clip(np.float32(0.2) * x + np.float32(0.5), 0, 1),
}

BINARY: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "Max": np.maximum,
    "Min": np.minimum,
    "Equal": np.equal,
    "Less": np.less,
    "GreaterOrEqual": np.greater_equal,
    "Pow": np.power,
}

INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


def model_of(*nodes: Any, inputs: dict[str, np.ndarray]) -> Any:
    """A model of `nodes` over `inputs` whose every result is an output, in the nodes' order."""
    outputs = [name for node in nodes for name in node.output if name]
    graph = helper.make_graph(
        list(nodes),
        "edges",
        [
            helper.make_tensor_value_info(name, np_dtype_to_tensor_dtype(x.dtype), x.shape)
            for name, x in inputs.items()
        ],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)], ir_version=11)
    return shape_inference.infer_shapes(model)


def results(*nodes: Any, **inputs: np.ndarray) -> dict[str, np.ndarray]:
    names = [name for node in nodes for name in node.output if name]
    made = run_model(model_of(*nodes, inputs=inputs), *inputs.values())
    return dict(zip(names, made, strict=True))


def node(op: str, *inputs: str, to: str | None = None, **attrs: Any) -> Any:
    return helper.make_node(op, inputs, [to or op], **attrs)


def same(result: np.ndarray, expected: np.ndarray, rtol: float = 4e-6) -> None:
    np.testing.assert_allclose(result, np.asarray(expected).astype(result.dtype), rtol=rtol)


@pytest.fixture(autouse=True)
def _silence_numpy() -> Any:
    with np.errstate(all="ignore"):
        yield


@pytest.fixture(scope="module")
def unary() -> dict[str, np.ndarray]:
    return results(*(node(op, "x") for op in UNARY), x=FLOATS)


@pytest.mark.parametrize("op", list(UNARY))
def test_unary_of_corner_floats(op: str, unary: dict[str, np.ndarray]) -> None:
    same(unary[op], UNARY[op](FLOATS))


@pytest.fixture(scope="module")
def binary() -> dict[str, np.ndarray]:
    a, b = FLOATS[:, None], FLOATS[None, :]
    return results(*(node(op, "a", "b") for op in BINARY), a=a, b=b)


@pytest.mark.parametrize("op", list(BINARY))
def test_binary_of_corner_floats(op: str, binary: dict[str, np.ndarray]) -> None:
    same(binary[op], BINARY[op](FLOATS[:, None], FLOATS[None, :]))


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_wrap_and_never_trap(dtype: str) -> None:
    info = np.iinfo(dtype)
    values = np.array([info.min, info.min + 1, 0, 1, 2, 3, 7, info.max - 1, info.max], dtype)
    if info.min < 0:
        values = np.concatenate([values, np.array([-1, -2, -3, -7], dtype)])
    a, b = values[:, None], values[None, :]
    out = results(
        node("Add", "a", "b"),
        node("Mul", "a", "b"),
        node("Div", "a", "b"),
        node("Mod", "a", "b"),
        node("Mod", "a", "b", to="fmod", fmod=1),
        a=a,
        b=b,
    )
    defined = (b != 0) & ~((b == -1) & (a == info.min)) if info.min < 0 else (b != 0) & (a == a)
    exact = [[int(x) for x in values], [int(x) for x in values]]
    quotient = np.array(
        [
            [
                int(abs(p) // abs(q)) * (1 if (p < 0) == (q < 0) else -1) if q else 0
                for q in exact[1]
            ]
            for p in exact[0]
        ],
        object,
    )
    np.testing.assert_array_equal(out["Add"], a + b)
    np.testing.assert_array_equal(out["Mul"], a * b)
    np.testing.assert_array_equal(out["Div"][defined], quotient[defined].astype(dtype))
    np.testing.assert_array_equal(out["Mod"][defined], np.mod(a, b)[defined])
    np.testing.assert_array_equal(out["fmod"][defined], np.fmod(a, b)[defined])


def test_float_remainders() -> None:
    a, b = FLOATS[:, None], np.array([0.7, -0.7, 2.0, -3.0, np.inf, np.nan], np.float32)[None, :]
    out = results(node("Mod", "a", "b", fmod=1), a=a, b=b)
    same(out["Mod"], np.fmod(a, b))


def test_clip_keeps_nan_and_bounds_may_be_inputs() -> None:
    low, high = np.float32(-1), np.float32(2)
    out = results(
        node("Clip", "x", "low", "high"),
        node("Clip", "x", "", "high", to="upper"),
        x=FLOATS,
        low=np.array(low),
        high=np.array(high),
    )
    same(out["Clip"], np.clip(FLOATS, low, high))
    same(out["upper"], np.minimum(FLOATS, high))


def test_pools_keep_nan() -> None:
    x = np.arange(36, dtype=np.float32).reshape(1, 1, 6, 6)
    x[0, 0, 1, 1], x[0, 0, 4, 4] = np.nan, -np.inf
    out = results(
        node("MaxPool", "x", kernel_shape=[2, 2], strides=[2, 2]),
        node("AveragePool", "x", kernel_shape=[2, 2], strides=[2, 2]),
        node("GlobalMaxPool", "x"),
        x=x,
    )
    tiles = x.reshape(3, 2, 3, 2).transpose(0, 2, 1, 3).reshape(3, 3, 4)
    same(out["MaxPool"][0, 0], tiles.max(-1))
    same(out["AveragePool"][0, 0], tiles.mean(-1))
    assert np.isnan(out["GlobalMaxPool"]).all()


def test_max_pool_of_integers_pads_with_nothing() -> None:
    x = np.full((1, 1, 3, 3), -5, np.int8)
    out = results(node("MaxPool", "x", kernel_shape=[3, 3], pads=[1, 1, 1, 1]), x=x)
    np.testing.assert_array_equal(out["MaxPool"], x)


@pytest.mark.parametrize("axis", [0, 1])
def test_reductions_keep_nan_and_infinity(axis: int) -> None:
    x = np.array([[1, np.nan, -2, 3], [np.inf, 2, -np.inf, 5], [-np.inf, 1, np.inf, 7]], np.float32)
    axes = numpy_helper.from_array(np.array([axis]), "")
    reduced = ("ReduceMax", "ReduceMin", "ReduceSum", "ReduceMean", "ReduceLogSumExp")
    out = results(
        helper.make_node("Constant", [], ["axes"], value=axes),
        *(node(op, "x", "axes", keepdims=0) for op in reduced),
        node("ArgMax", "x", axis=axis, keepdims=0),
        node("ArgMin", "x", axis=axis, keepdims=0),
        x=x,
    )
    same(out["ReduceMax"], x.max(axis))
    same(out["ReduceMin"], x.min(axis))
    same(out["ReduceSum"], x.sum(axis))
    same(out["ReduceMean"], x.mean(axis))
    same(out["ReduceLogSumExp"], np.log(np.exp(x).sum(axis)))
    np.testing.assert_array_equal(out["ArgMax"], x.argmax(axis))
    np.testing.assert_array_equal(out["ArgMin"], x.argmin(axis))


def test_ties_go_to_the_lower_index() -> None:
    x = np.array([[2, 5, 5, 1, 5], [0, 0, 0, 0, 0]], np.float32)
    k = numpy_helper.from_array(np.array([3]), "")
    out = results(
        helper.make_node("Constant", [], ["k"], value=k),
        helper.make_node("TopK", ["x", "k"], ["values", "places"]),
        helper.make_node("TopK", ["x", "k"], ["least", "lowest"], largest=0),
        node("ArgMax", "x", axis=1),
        node("ArgMax", "x", axis=1, select_last_index=1, to="last"),
        x=x,
    )
    np.testing.assert_array_equal(out["places"], [[1, 2, 4], [0, 1, 2]])
    np.testing.assert_array_equal(out["values"], [[5, 5, 5], [0, 0, 0]])
    np.testing.assert_array_equal(out["lowest"], [[3, 0, 1], [0, 1, 2]])
    np.testing.assert_array_equal(out["ArgMax"], [[1], [0]])
    np.testing.assert_array_equal(out["last"], [[4], [4]])


def test_softmax_of_infinities_and_nan() -> None:
    x = np.array([[0, -np.inf, 1, 2], [1e4, -1e4, 0, 1e4], [np.nan, 0, 1, 2]], np.float32)
    out = results(node("Softmax", "x"), node("LogSoftmax", "x"), x=x)
    shifted = x - x.max(-1, keepdims=True)
    total = np.exp(shifted).sum(-1, keepdims=True)
    same(out["Softmax"], np.exp(shifted) / total)
    same(out["LogSoftmax"], shifted - np.log(total))


def test_casts() -> None:
    x = np.array(
        [0.0, -0.0, 0.9, -0.9, 1.5, -1.5, 127.9, -128.9, 300.7, -300.7, np.inf], np.float32
    )
    kinds = {name: np_dtype_to_tensor_dtype(np.dtype(name)) for name in (*INTEGERS, "bool")}
    finite = x[:-1]
    out = results(
        *(helper.make_node("Cast", ["x"], [n], to=k) for n, k in kinds.items()),
        x=x,
    )
    for name in ("int16", "int32", "int64"):
        np.testing.assert_array_equal(out[name][:-1], finite.astype(name))
    for name in ("int8", "uint8", "uint16", "uint32"):
        np.testing.assert_array_equal(out[name][:-1], finite.astype(np.int64).astype(name))
    np.testing.assert_array_equal(out["bool"], x != 0)


def test_gather_and_scatter_stay_inside_the_tensor() -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    wild = np.array([-(2**62), -1, 2, 2**62], np.int64)
    out = results(node("Gather", "x", "i", axis=1), x=x, i=wild)
    np.testing.assert_array_equal(out["Gather"][:, 1:3], x[:, [2, 2]])
    assert np.isin(out["Gather"], x).all()


def test_empty_tensors() -> None:
    x = np.zeros((0, 3), np.float32)
    y = np.ones((2, 3), np.float32)
    axes = numpy_helper.from_array(np.array([0]), "")
    out = results(
        helper.make_node("Constant", [], ["axes"], value=axes),
        node("ReduceSum", "x", "axes"),
        node("ReduceMax", "x", "axes"),
        node("ReduceProd", "x", "axes"),
        node("Concat", "x", "y", axis=0),
        node("Relu", "x"),
        node("Transpose", "x"),
        x=x,
        y=y,
    )
    np.testing.assert_array_equal(out["ReduceSum"], np.zeros((1, 3)))
    np.testing.assert_array_equal(out["ReduceMax"], np.full((1, 3), -np.inf))
    np.testing.assert_array_equal(out["ReduceProd"], np.ones((1, 3)))
    np.testing.assert_array_equal(out["Concat"], y)
    assert out["Relu"].shape == (0, 3)
    assert out["Transpose"].shape == (3, 0)


def test_scalars_have_no_axes() -> None:
    a, b = np.array(3.0, np.float32), np.array(-4.0, np.float32)
    out = results(
        node("Add", "a", "b"),
        node("Relu", "b"),
        node("ReduceSum", "a"),
        node("Sum", "a", "b", "a"),
        a=a,
        b=b,
    )
    assert [float(v) for v in out.values()] == [-1.0, 0.0, 3.0, 2.0]
    assert all(v.shape == () for v in out.values())


@pytest.mark.parametrize("divisor", [8.0, 3.0, 1e-39, 3e38, 0.0])
def test_division_by_a_constant(divisor: float) -> None:
    """Exact where the quotient is seen or rounded; the inverse serves where neither happens."""
    by = np.float32(divisor)
    x = np.concatenate([FLOATS, np.arange(-300, 300, dtype=np.float32) * by]).astype(np.float32)
    constant = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(by))
    hidden = node("Div", "x", "c", to="hidden")
    model = model_of(
        constant, node("Div", "x", "c"), hidden, node("Erf", "hidden"), inputs={"x": x}
    )
    seen = [output for output in model.graph.output if output.name in ("Div", "Erf")]
    del model.graph.output[:]
    model.graph.output.extend(seen)
    quotient, erf = run_model(model, x)
    np.testing.assert_array_equal(quotient, x / by)
    same(erf, np.vectorize(math.erf)(x / by), rtol=2e-6)
