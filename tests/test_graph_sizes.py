"""Inputs and sizes: what is bound, and what is asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from graphs import SMALL, parse
from onnx import TensorProto, helper, numpy_helper

from edgec.errors import ModelError, UsageError
from edgec.graph import load
from edgec.tensors import Constant


class TestInputsAndDims:
    def test_initializers_listed_as_inputs(self) -> None:
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])
        w = helper.make_tensor_value_info("w", TensorProto.FLOAT, [2])
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
        weight = numpy_helper.from_array(np.array([1, 2], np.float32), "w")
        graph = helper.make_graph(
            [helper.make_node("Add", ["x", "w"], ["y"])], "g", [x, w], [y], [weight]
        )
        for ir_version in (3, 4):
            model = helper.make_model(
                graph, ir_version=ir_version, opset_imports=[helper.make_opsetid("", 9)]
            )
            notes: list[str] = []
            loaded = load(model, notes=notes)
            assert [t.name for t in loaded.gs.inputs] == ["x"]
            assert isinstance(loaded.gs.nodes[0].inputs[1], Constant)
            assert bool(notes) == (ir_version == 4)

    def test_a_lone_batch_becomes_one_and_says_so(self) -> None:
        notes: list[str] = []
        graph = load(parse(SMALL), notes=notes)
        assert graph.gs.inputs[0].shape == (1, 3)
        assert graph.gs.outputs[0].shape == (1, 3)
        assert notes == ["batch dimension 'N' of x set to 1"]

    def test_an_anonymous_batch(self) -> None:
        model = parse(SMALL)
        model.graph.input[0].type.tensor_type.shape.dim[0].Clear()
        assert load(model).gs.inputs[0].shape == (1, 3)

    @pytest.mark.parametrize("how", [{"dims": {"N": 4}}, {"shapes": {"x": (4, 3)}}])
    def test_bound(self, how: dict[str, Any]) -> None:
        notes: list[str] = []
        graph = load(parse(SMALL), notes=notes, **how)
        assert graph.gs.inputs[0].shape == (4, 3)
        assert graph.gs.nodes[0].outputs[0].shape == (4, 3)
        assert graph.gs.outputs[0].shape == (4, 3)
        assert notes == []

    def test_one_symbol_binds_every_input(self) -> None:
        text = "g (float[N,T] x, float[N,T] z) => (float[N,T] y) { y = Add(x, z) }"
        graph = load(parse(text), shapes={"x": (2, 5)})
        assert [t.shape for t in graph.gs.inputs] == [(2, 5), (2, 5)]

    def test_shapes_follow_from_dims_through_reshapes(self) -> None:
        text = """g (float[N,4] x) => (float[M] y) <int64[1] minus = {-1}> {
            y = Reshape(x, minus)
        }"""
        assert load(parse(text), dims={"N": 3}).gs.outputs[0].shape == (12,)

    def test_a_wrong_declared_output_shape_is_replaced(self) -> None:
        model = parse(SMALL)
        model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 9
        assert load(model, dims={"N": 2}).gs.outputs[0].shape == (2, 3)

    def test_unbound_dims_are_all_listed(self) -> None:
        text = "g (float[N,T] x, float[2,S] z) => (float[N,T] y) { y = Relu(x) }"
        with pytest.raises(ModelError) as error:
            load(parse(text))
        for part in ("x axis 0 (N)", "x axis 1 (T)", "z axis 1 (S)"):
            assert part in error.value.what
        graph = load(parse(text), symbolic=True)
        assert graph.gs.inputs[0].shape == ("N", "T")

    def test_a_lone_dim_that_is_no_batch(self) -> None:
        with pytest.raises(ModelError, match=r"x axis 1 \(T\)"):
            load(parse("g (float[2,T] x) => (float[2,T] y) { y = Relu(x) }"))

    @pytest.mark.parametrize(
        ("how", "says"),
        [
            ({"dims": {"M": 2}}, "no symbolic dimension 'M'"),
            ({"shapes": {"xx": (1, 3)}}, "did you mean 'x'"),
            ({"shapes": {"x": (1, 3, 2)}}, "rank 2 (Nx3), the given shape rank 3"),
            ({"shapes": {"x": (1, 4)}}, "axis 1 is fixed to 3"),
            ({"shapes": {"x": (1, 3)}, "dims": {"N": 2}}, "'N' is 2 and 1 at once"),
            ({"dims": {"N": 0}}, "0 is not a size"),
            ({"dims": {"N": -1}}, "-1 is not a size"),
            ({"shapes": {"x": (1 << 31, 3)}}, "is not a size"),
        ],
    )
    def test_what_does_not_fit(self, how: dict[str, Any], says: str) -> None:
        with pytest.raises(UsageError) as error:
            load(parse(SMALL), **how)
        assert says in str(error.value)
