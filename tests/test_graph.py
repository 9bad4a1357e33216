"""Loading, editing and saving models: what survives."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from graphs import SMALL, assert_same, parse
from onnx import TensorProto, helper, numpy_helper
from oracle import random_feed, run

from edgec.errors import ModelError
from edgec.graph import Graph, load
from edgec.tensors import Constant

SHARED = Path(__file__).parents[1].parent / "shared" / "models"
SHARED_MODELS = sorted(SHARED.glob("*.onnx"))


class TestSharedModels:
    @pytest.mark.parametrize("path", SHARED_MODELS, ids=lambda p: p.stem)
    def test_computes_the_same(self, path: Path) -> None:
        dims = {"batch": 1, "sequence": 576} if "silero" in path.name else None
        graph = load(path, dims=dims)
        feed = random_feed(graph)
        source = onnx.load(path)
        expected = run(source, feed)
        model = graph.to_onnx()
        onnx.checker.check_model(model, full_check=True)
        assert_same(expected, run(model, feed))
        assert_same(expected, run(graph.copy().to_onnx(), feed))
        back = graph.to_source_opset()
        assert_same(expected, run(back, feed))
        assert back.opset_import[0].version == graph.source_opset

    def test_there_are_models(self) -> None:
        if not SHARED.exists():
            pytest.skip(f"{SHARED} is absent")
        assert SHARED_MODELS

    @pytest.mark.parametrize("path", SHARED_MODELS, ids=lambda p: p.stem)
    def test_all_shapes_are_static(self, path: Path) -> None:
        if "silero" in path.name:
            pytest.skip("its branches are decided by constants that passes fold")
        for node in load(path).nodes():
            for tensor in node.outputs:
                assert all(isinstance(d, int) for d in tensor.shape), tensor


class TestWhatSurvives:
    def test_everything_onnx_says(self) -> None:
        model = parse(SMALL)
        model.producer_name, model.producer_version = "someone", "1.2"
        model.domain, model.model_version, model.doc_string = "org.example", 7, "a model"
        helper.set_model_props(model, {"labels": "a,b", "author": "me"})
        model.graph.doc_string = "a graph"
        model.graph.metadata_props.add(key="graph", value="yes")
        model.graph.node[0].doc_string = "adds"
        model.graph.node[0].metadata_props.add(key="layer", value="1")
        model.graph.input[0].doc_string = "an image"
        model.graph.input[0].metadata_props.add(key="range", value="0..1")
        model.graph.input[0].type.tensor_type.shape.dim[0].denotation = "DATA_BATCH"
        model.graph.output[0].doc_string = "a result"

        back = load(model).to_onnx()
        for field in [
            "producer_name",
            "producer_version",
            "domain",
            "model_version",
            "doc_string",
            "metadata_props",
        ]:
            assert getattr(back, field) == getattr(model, field)
        assert back.graph.name == "g"
        assert back.graph.doc_string == "a graph"
        assert back.graph.metadata_props == model.graph.metadata_props
        assert [n.name for n in back.graph.node] == ["first", "second"]
        assert back.graph.node[0].doc_string == "adds"
        assert back.graph.node[0].metadata_props == model.graph.node[0].metadata_props
        assert back.graph.input[0].doc_string == "an image"
        assert back.graph.input[0].metadata_props == model.graph.input[0].metadata_props
        assert back.graph.input[0].type.tensor_type.shape.dim[0].denotation == "DATA_BATCH"
        assert back.graph.output[0].doc_string == "a result"

        older = load(model).to_onnx(17)
        assert older.opset_import[0].version == 17
        assert older.graph.node[0].metadata_props == model.graph.node[0].metadata_props
        assert older.metadata_props == model.metadata_props

    def test_order_of_inputs_and_outputs(self) -> None:
        model = parse("""g (float[1] c, float[1] a, float[1] b) => (float[1] z, float[1] y) {
            y = Add(a, b)
            z = Add(b, c)
        }""")
        back = load(model).to_onnx()
        assert [i.name for i in back.graph.input] == ["c", "a", "b"]
        assert [o.name for o in back.graph.output] == ["z", "y"]

    def test_the_source_is_not_touched(self) -> None:
        model = parse(SMALL)
        before = model.SerializeToString(deterministic=True)
        graph = load(model)
        for tensor in graph.gs.nodes[0].inputs:
            if isinstance(tensor, Constant):
                tensor.name = "renamed"
        graph.to_onnx()
        assert model.SerializeToString(deterministic=True) == before

    @pytest.mark.parametrize(
        "dtype",
        [
            ml_dtypes.int4,
            ml_dtypes.uint4,
            ml_dtypes.int2,
            ml_dtypes.bfloat16,
            ml_dtypes.float8_e4m3fn,
            ml_dtypes.float8_e5m2,
            np.float16,
            np.int8,
        ],
    )
    @pytest.mark.parametrize("size", [5, 5000])
    def test_narrow_constants(self, dtype: Any, size: int) -> None:
        values = np.arange(size).astype(np.int8).astype(np.float32).clip(0, 1).astype(dtype)
        tensor = numpy_helper.from_array(values, "w")
        model = helper.make_model(
            helper.make_graph(
                [helper.make_node("Cast", ["w"], ["y"], to=TensorProto.FLOAT)],
                "g",
                [],
                [helper.make_tensor_value_info("y", TensorProto.FLOAT, [size])],
                [tensor],
            ),
            opset_imports=[helper.make_opsetid("", 25)],
        )
        graph = load(model)
        (weight,) = graph.gs.nodes[0].inputs
        assert weight.nbytes == len(tensor.raw_data)
        assert weight.values.dtype == values.dtype
        np.testing.assert_array_equal(weight.values, values)
        assert graph.to_onnx().graph.initializer[0] == tensor
        weight.values = np.array(weight.values)
        assert graph.to_onnx().graph.initializer[0].raw_data == tensor.raw_data

    def test_values_of_constants_are_read_only(self) -> None:
        graph = load(parse(SMALL))
        weight = graph.gs.nodes[0].inputs[1]
        with pytest.raises(ValueError, match="read-only"):
            weight.values[0] = 5

    def test_every_kind_of_attribute(self) -> None:
        node = helper.make_node(
            "Thing", ["x"], ["y"], domain="custom", f=1.5, i=2, s="text", fs=[1.0, 2.0], ints=[3, 4]
        )
        node.attribute.append(helper.make_attribute("bytes", b"\xff\xfe"))
        node.attribute.append(helper.make_attribute("strings", ["a", "b"]))
        node.attribute.append(
            helper.make_attribute("t", numpy_helper.from_array(np.arange(3), "inner"))
        )
        node.attribute.append(
            helper.make_attribute("type", helper.make_tensor_type_proto(TensorProto.FLOAT, [1]))
        )
        node.attribute.append(onnx.AttributeProto(name="none", type=onnx.AttributeProto.INTS))
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
        model = helper.make_model(
            helper.make_graph([node], "g", [x], [y]),
            opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid("custom", 3)],
        )
        back = load(model).to_onnx()
        assert list(back.graph.node[0].attribute) == list(node.attribute)
        assert {o.domain: o.version for o in back.opset_import} == {"": 25, "custom": 3}
        assert back.graph.output[0].type == y.type

    def test_names_reused_by_sibling_branches(self) -> None:
        model = parse("""g (bool c, float[2] x) => (float[2] y) {
          y = If (c) <
            then_branch = t () => (float[2] r) { k = Constant <value_float = 2.0> ()
               a = Mul(x, k)
               r = Relu(a) },
            else_branch = e () => (float[2] r) { k = Constant <value_float = 3.0> ()
               a = Add(x, k)
               r = Abs(a) }
          >
        }""")
        graph = load(model)
        names = [t.name for n in graph.nodes() for t in n.outputs]
        assert len(names) == len(set(names))
        for condition in (True, False):
            feed = {"c": np.array(condition), "x": np.array([-1, 2], np.float32)}
            assert_same(run(model, feed), run(graph.to_onnx(), feed))

    def test_a_constant_that_several_branches_read_is_written_once(self) -> None:
        model = parse("""g (bool c, float[2] x) => (float[2] y) <float[2] w = {3.0, 4.0}> {
          y = If (c) <
            then_branch = t () => (float[2] r) { r = Mul(x, w) },
            else_branch = e () => (float[2] r) { r = Add(x, w) }
          >
        }""")
        back = load(model).to_onnx()
        assert [t.name for t in back.graph.initializer] == ["w"]
        assert not any(a.g.initializer for a in back.graph.node[0].attribute)
        for condition in (True, False):
            feed = {"c": np.array(condition), "x": np.array([-1, 2], np.float32)}
            assert_same(run(model, feed), run(back, feed))

    def test_a_constant_that_a_branch_yields_is_made_there(self) -> None:
        model = parse("""g (bool c, float[2] x) => (float[2] y) {
          y = If (c) <
            then_branch = t () => (float[2] r) { r = Constant <value_floats = [3.0, 4.0]> () },
            else_branch = e () => (float[2] r) { r = Relu(x) }
          >
        }""")
        graph = load(model)
        [node] = graph.gs.nodes
        kept, other = node.attrs["then_branch"].outputs[0], node.attrs["else_branch"].nodes[0]
        other.op = "Mul"
        other.inputs.append(kept)
        for condition, expected in ((True, [3, 4]), (False, [-3, 8])):
            feed = {"c": np.array(condition), "x": np.array([-1, 2], np.float32)}
            assert_same([np.array(expected, np.float32)], run(graph.to_onnx(), feed))

    def test_a_constant_that_is_an_output(self) -> None:
        model = parse(
            "g (float[1] x) => (float[1] y, float[2] k) <float[2] k = {1.0, 2.0}> { y = Relu(x) }"
        )
        feed = {"x": np.ones(1, np.float32)}
        assert_same(run(model, feed), run(load(model).to_onnx(), feed))


class TestSaving:
    def test_unwritable(self, tmp_path: Path) -> None:
        graph = load(parse(SMALL))
        with pytest.raises(ModelError, match="cannot be written"):
            graph.save(tmp_path / "absent" / "m.onnx")
        assert list(tmp_path.iterdir()) == []

    def test_same_graph_same_bytes(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            load(parse(SMALL)).save(tmp_path / name)
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_twenty_thousand_nodes(chain: Callable[[int], onnx.ModelProto]) -> None:
    graph = load(chain(20_000))
    assert len(graph.gs.nodes) == len(graph.to_onnx().graph.node) == 20_000


class TestEditing:
    def graph(self) -> Graph:
        return load(
            parse(
                """g (float[2] x) => (float[2] y, float[2] z) {
              a = Relu(x)
              b = Exp(a)
              y = Abs(b)
              z = Neg(b)
            }"""
            )
        )

    def test_uses_and_producers(self) -> None:
        graph = self.graph()
        relu, exp, absolute, negate = graph.gs.nodes
        assert graph.consumers(exp.outputs[0]) == [absolute, negate]
        assert graph.producer(exp.outputs[0]) is exp
        assert graph.producer(graph.gs.inputs[0]) is None
        assert graph.uses(relu.outputs[0]) == 1
        assert graph.uses(absolute.outputs[0]) == 1
        assert graph.is_output(absolute.outputs[0])
        assert not graph.is_output(relu.outputs[0])

    def test_insert_and_replace_after_a_tensor(self) -> None:
        graph = self.graph()
        exp = graph.gs.nodes[1]
        old = exp.outputs[0]
        new = graph.insert(exp, "Sqrt", [old])
        graph.replace(old, new.outputs[0])
        graph.sweep()
        graph.infer_shapes()
        assert [n.op for n in graph.gs.nodes] == ["Relu", "Exp", "Sqrt", "Abs", "Neg"]
        assert new.outputs[0].shape == (2,)
        assert new.outputs[0].dtype == np.float32
        onnx.checker.check_model(graph.to_onnx(), full_check=True)

    def test_replacing_an_output_keeps_its_name(self) -> None:
        graph = self.graph()
        _, exp, absolute, _ = graph.gs.nodes
        graph.replace(absolute.outputs[0], exp.outputs[0])
        graph.sweep()
        assert [t.name for t in graph.gs.outputs] == ["y", "z"]
        assert [n.op for n in graph.gs.nodes] == ["Relu", "Exp", "Neg"]
        assert exp.outputs[0].name == "y"

    def test_replacing_removes_what_is_dead(self) -> None:
        graph = self.graph()
        _, exp, absolute, negate = graph.gs.nodes
        new = graph.constant(np.zeros(2, np.float32), "zero")
        absolute.inputs[0] = new
        negate.inputs[0] = new
        assert graph.uses(exp.outputs[0]) == 0
        graph.sweep()
        assert [n.op for n in graph.gs.nodes] == ["Abs", "Neg"]

    def test_a_copy_is_independent(self) -> None:
        graph = self.graph()
        twin = graph.copy()
        before = onnx.printer.to_text(graph.to_onnx())
        twin.replace(twin.gs.nodes[2].outputs[0], twin.gs.nodes[1].outputs[0])
        twin.sweep()
        assert onnx.printer.to_text(graph.to_onnx()) == before
        graph.restore(twin)
        assert len(graph.gs.nodes) == 3

    def test_unique_names(self) -> None:
        graph = self.graph()
        names = {graph.unique_name("a") for _ in range(3)}
        assert len(names) == 3
        assert not names & {"a", "b", "x", "y", "z"}

    def test_constant_bytes(self) -> None:
        model = parse(
            "g (float[4] x) => (float[4] y, float[4] z) <float[4] w = {1.0,2.0,3.0,4.0}>"
            "{ y = Add(x, w)\n z = Mul(x, w) }"
        )
        graph = load(model)
        assert graph.constant_bytes() == graph.source_bytes == 4 * math.prod([4])
