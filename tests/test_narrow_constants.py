"""Constants of 4 and 2 bits: the same bytes and values after loading, passes, and saving."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import oracle
import pytest
from onnx import numpy_helper
from packed_models import Packed

import edgec
from edgec.graph import load
from edgec.passes import LEVELS
from edgec.rewrite import optimize
from edgec.tensors import Constant

KINDS = ("int4", "uint4", "int2", "uint2")


def weights_of(kind: str) -> Packed:
    """Weights of 4 or 2 bits with scales by block, by column, and for all, and odd numbers of
    elements; one is read by nodes that passes change."""
    made = Packed()
    forms: tuple[tuple[tuple[int, int], int, int], ...] = (
        ((64, 33), 0, 16),
        ((33, 7), 1, 0),
        ((9, 5), -1, 0),
    )
    for shape, axis, block in forms:
        weight = made.weight(kind, shape, axis, block, "each")
        product = made.node("MatMul", [made.input((3, shape[0])), weight])
        scale = made.constant(np.float32([2]))
        scaled = made.node("Mul", [made.node("Identity", [product]), scale])
        bias = made.constant(made.random.standard_normal(shape[1]).astype(np.float32))
        made.output(made.node("Add", [scaled, bias]), (3, shape[1]))
    return made


def narrow_initializers(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    return {t.name: t for t in model.graph.initializer if t.data_type not in (1, 6, 7)}


@pytest.mark.parametrize("level", sorted(LEVELS))
@pytest.mark.parametrize("kind", KINDS)
def test_bytes_and_values_survive(kind: str, level: int, tmp_path: Path) -> None:
    model = weights_of(kind).model()
    graph = load(model)
    for node in graph.nodes():
        for tensor in node.inputs:
            if isinstance(tensor, Constant):
                assert tensor.values.shape == tensor.shape  # graphsurgeon unpacks what was read
    optimize(graph, LEVELS[level])
    onnx.save(graph.to_onnx(), tmp_path / "saved.onnx")
    saved = load(tmp_path / "saved.onnx").to_onnx()
    onnx.checker.check_model(saved, full_check=True)
    before, after = narrow_initializers(model), narrow_initializers(saved)
    assert len(before) == 6
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert tensor.raw_data == after[name].raw_data
        assert list(tensor.dims) == list(after[name].dims)
        np.testing.assert_array_equal(
            numpy_helper.to_array(tensor), numpy_helper.to_array(after[name])
        )
    feed = oracle.random_feed(graph)
    for expected, actual in zip(oracle.run(model, feed), oracle.run(saved, feed), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_pass_makes_of_them_is_packed(kind: str) -> None:
    """Values assigned anew are stored several to a byte again."""
    dtype = np.dtype(getattr(ml_dtypes, kind))
    graph = load(weights_of(kind).model())
    node = next(node for node in graph.nodes() if node.op == "DequantizeLinear")
    codes = node.inputs[0]
    assert isinstance(codes, Constant)
    moved = np.ascontiguousarray(codes.values[::-1])
    codes.values = moved
    (tensor,) = (t for t in graph.to_onnx().graph.initializer if t.name == codes.name)
    assert len(tensor.raw_data) == codes.nbytes == (64 * 33 * int(kind[-1]) + 7) // 8
    np.testing.assert_array_equal(numpy_helper.to_array(tensor).astype(dtype), moved)


@pytest.mark.parametrize("kind", KINDS)
def test_fields_for_small_data_survive(kind: str) -> None:
    """`int32_data` holds bytes of packed numbers."""
    model = weights_of(kind).model()
    tensor = next(t for t in model.graph.initializer if t.data_type not in (1, 6, 7))
    values, packed = numpy_helper.to_array(tensor), tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.int32_data.extend(packed)
    (saved,) = (t for t in load(model).to_onnx().graph.initializer if t.name == tensor.name)
    np.testing.assert_array_equal(numpy_helper.to_array(saved), values)


@pytest.mark.parametrize("kind", ["int4", "int8", "float16"])
def test_optimised_models_keep_the_weights_of_products_narrow(kind: str, tmp_path: Path) -> None:
    made = Packed()
    product = made.node("MatMul", [made.input((1, 256)), made.weight(kind, (256, 128))])
    made.output(made.node("Relu", [product]), (1, 128))
    onnx.save(made.model(), tmp_path / "model.onnx")
    optimised = edgec.optimize(tmp_path / "model.onnx").SerializeToString()
    assert len(optimised) < 1.05 * (tmp_path / "model.onnx").stat().st_size
