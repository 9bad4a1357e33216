"""Loading and saving models: what survives, what is bound, what is refused."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import ml_dtypes
import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from oracle import random_feed, run

import edgec.external
from edgec.errors import EdgecError, ModelError, UsageError
from edgec.graph import INTERNAL_OPSET, Graph, load
from edgec.tensors import Constant

SHARED = Path(__file__).parents[1].parent / "shared" / "models"
SHARED_MODELS = sorted(SHARED.glob("*.onnx"))
HEADER = '<ir_version: 10, opset_import: ["" : 21]>\n'


def parse(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(text if text.startswith("<") else HEADER + text)


def assert_same(a: list[Any], b: list[Any]) -> None:
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


SMALL = """g (float[N,3] x) => (float[N,3] y) <float[3] w = {1.0, 2.0, 3.0}> {
  [first] a = Add(x, w)
  [second] y = Relu(a)
}"""


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


class TestOpsets:
    CASES: ClassVar = [
        ("softmax", 11, "g (float[2,3,4] x) => (float[2,3,4] y) { y = Softmax(x) }"),
        (
            "logsoftmax",
            11,
            "g (float[2,3,4] x) => (float[2,3,4] y) { y = LogSoftmax <axis=0> (x) }",
        ),
        ("squeeze", 11, "g (float[2,1,4] x) => (float[2,4] y) { y = Squeeze <axes=[1]> (x) }"),
        (
            "reduce",
            11,
            "g (float[2,3] x) => (float[2] y) { y = ReduceSum <axes=[1], keepdims=0> (x) }",
        ),
        (
            "mean",
            13,
            "g (float[2,3] x) => (float[2] y) { y = ReduceMean <axes=[1], keepdims=0> (x) }",
        ),
        ("clip", 9, "g (float[2,3] x) => (float[2,3] y) { y = Clip <min=-1.0, max=1.0> (x) }"),
        ("pad", 9, "g (float[2,3] x) => (float[2,5] y) { y = Pad <pads=[0,1,0,1]> (x) }"),
        (
            "slice",
            9,
            "g (float[2,3] x) => (float[2,2] y) { y = Slice <axes=[1], starts=[1], ends=[9]> (x) }",
        ),
        ("topk", 9, "g (float[2,3] x) => (float[2,2] y, int64[2,2] i) { y, i = TopK <k=2> (x) }"),
        ("dropout", 9, "g (float[2,3] x) => (float[2,3] y) { y = Dropout(x) }"),
        (
            "upsample",
            9,
            "g (float[1,1,2,3] x) => (float[1,1,4,6] y) "
            '<float[4] s = {1.0, 1.0, 2.0, 2.0}> { y = Upsample <mode="nearest"> (x, s) }',
        ),
        (
            "upsample_linear",
            9,
            "g (float[1,1,2,3] x) => (float[1,1,4,6] y) "
            '<float[4] s = {1.0, 1.0, 2.0, 2.0}> { y = Upsample <mode="linear"> (x, s) }',
        ),
        (
            "resize_down",
            10,
            "g (float[1,1,2,7] x) => (float[1,1,2,3] y) "
            "<float[4] s = {1.0, 1.0, 1.0, 0.5}> { y = Resize(x, s) }",
        ),
        (
            "resize_up",
            10,
            "g (float[1,1,2,3] x) => (float[1,1,2,7] y) "
            "<float[4] s = {1.0, 1.0, 1.0, 2.5}> { y = Resize(x, s) }",
        ),
        (
            "resize",
            10,
            "g (float[1,1,2,3] x) => (float[1,1,4,6] y) "
            '<float[4] s = {1.0, 1.0, 2.0, 2.0}> { y = Resize <mode="linear"> (x, s) }',
        ),
        (
            "split",
            11,
            "g (float[4] x) => (float[1] y, float[3] z) { y, z = Split <split=[1,3]> (x) }",
        ),
        (
            "batchnorm",
            9,
            "g (float[1,2,3] x) => (float[1,2,3] y) <float[2] s = {1.0, 2.0}> "
            "{ y = BatchNormalization(x, s, s, s, s) }",
        ),
    ]

    @pytest.mark.parametrize(("opset", "text"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
    def test_raised_model_computes_the_same(self, opset: int, text: str) -> None:
        model = parse(f'<ir_version: 4, opset_import: ["" : {opset}]>\n' + text)
        graph = load(model)
        assert graph.source_opset == opset
        assert graph.opset == INTERNAL_OPSET
        feed = random_feed(graph)
        expected = run(model, feed)
        assert_same(expected, run(graph.to_onnx(), feed))
        back = graph.to_source_opset()
        assert_same(expected, run(back, feed))
        resizes = any(node.op_type == "Resize" for node in back.graph.node)
        assert back.opset_import[0].version == (11 if resizes else opset)

    def test_what_becomes_several_nodes_gives_them_several_names(self) -> None:
        text = "g (float[2,3,4] x) => (float[2,3,4] y) { [only] y = Softmax(x) }"
        model = parse(f'<ir_version: 4, opset_import: ["" : 11]>\n{text}')
        names = [node.name for node in load(model).nodes()]
        assert len(names) > 1
        assert names.count("only") == 1

    def test_a_newer_model_stays_newer_when_it_must(self) -> None:
        text = "g (float[4] x) => (float[4] y) <int64 a = {0}> { y = CumProd(x, a) }"
        graph = load(parse('<ir_version: 13, opset_import: ["" : 26]>\n' + text))
        assert graph.opset == 26
        assert graph.to_onnx().opset_import[0].version == 26

    def test_a_newer_model_is_lowered_when_it_can(self) -> None:
        graph = load(parse('<ir_version: 13, opset_import: ["" : 26]>\n' + SMALL))
        assert graph.opset == INTERNAL_OPSET

    @pytest.mark.parametrize(
        ("opset", "body"),
        [
            (12, "Softmax <axis = 1> (x)"),
            (12, "LogSoftmax <axis = 0> (x)"),
            (18, 'Pad <mode = "wrap"> (x, p)'),
            (13, "Reshape <allowzero = 1> (x, s)"),
            (10, "Concat <axis = -2> (x, x)"),
            (10, "Clip(x, q)"),
        ],
    )
    def test_what_an_old_opset_cannot_say(self, opset: int, body: str) -> None:
        text = "g (float[2,3,4] x, float q) => (float[a,b,c] y) <int64[3] s = {2, 3, 4},"
        text += f" int64[6] p = {{1, 0, 0, 0, 0, 0}}> {{ y = {body} }}"
        graph = load(parse(text))
        with pytest.raises(ModelError):
            graph.to_onnx(opset)
        feed = random_feed(graph)
        later = graph.to_onnx(opset + 1)
        assert_same(run(graph.to_onnx(), feed), run(later, feed))

    def test_an_operator_that_an_old_opset_lacks(self) -> None:
        text = "g (float[2] x) => (float[2] y) { y = Gelu(x) }"
        graph = load(parse(text))
        with pytest.raises(ModelError, match="Gelu"):
            graph.to_onnx(17)


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


class TestFunctions:
    def model(self, depth: int, calls: int = 1) -> onnx.ModelProto:
        """A chain of functions, each calling the next `calls` times in a row."""
        opset = [helper.make_opsetid("", 21), helper.make_opsetid("f", 1)]
        functions = []
        for i in range(depth):
            last = i == depth - 1
            nodes = [
                helper.make_node(
                    "Relu" if last else f"F{i + 1}",
                    ["x" if c == 0 else f"t{c - 1}"],
                    ["y" if c == calls - 1 else f"t{c}"],
                    domain="" if last else "f",
                )
                for c in range(calls)
            ]
            functions.append(helper.make_function("f", f"F{i}", ["x"], ["y"], nodes, opset))
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
        graph = helper.make_graph([helper.make_node("F0", ["x"], ["y"], domain="f")], "g", [x], [y])
        return helper.make_model(graph, opset_imports=opset, functions=functions, ir_version=10)

    def test_inlined(self) -> None:
        graph = load(self.model(3, 2))
        assert [n.op for n in graph.gs.nodes] == ["Relu"] * 8
        assert [o.domain for o in graph.to_onnx().opset_import if o.domain not in ("", "f")] == []

    def test_of_another_opset_are_converted(self) -> None:
        model = self.model(1)
        model.functions[0].opset_import[0].version = 18
        assert [n.op for n in load(model).gs.nodes] == ["Relu"]

    @pytest.mark.parametrize(
        ("depth", "calls", "says"), [(101, 1, "deeper than 100"), (30, 2, "more than 1000000")]
    )
    def test_bombs(self, depth: int, calls: int, says: str) -> None:
        start = time.perf_counter()
        with pytest.raises(ModelError, match=says):
            load(self.model(depth, calls))
        assert time.perf_counter() - start < 5

    def test_recursion(self) -> None:
        model = self.model(2)
        model.functions[1].node[0].op_type = "F0"
        model.functions[1].node[0].domain = "f"
        with pytest.raises(ModelError, match="calls itself"):
            load(model)


class TestRefused:
    @pytest.mark.parametrize(
        "data", [b"", b"hello world, this is no model", b"\x00" * 100, b"PK\x03\x04" + b"a" * 99]
    )
    def test_not_onnx(self, tmp_path: Path, data: bytes) -> None:
        path = tmp_path / "m.onnx"
        path.write_bytes(data)
        with pytest.raises(ModelError):
            load(path)

    def test_truncated(self, tmp_path: Path) -> None:
        data = parse(SMALL).SerializeToString()
        path = tmp_path / "m.onnx"
        for end in range(1, len(data)):
            path.write_bytes(data[:end])
            with pytest.raises(ModelError):
                load(path, trusted=True)

    def test_missing_file_and_folder(self, tmp_path: Path) -> None:
        for path in (tmp_path / "absent.onnx", tmp_path, Path("a\0b")):
            with pytest.raises(ModelError, match="cannot be read"):
                load(path)

    @pytest.mark.parametrize("opset", [0, -1, 29, 1 << 40])
    def test_absurd_opset(self, opset: int) -> None:
        model = parse(SMALL)
        model.opset_import[0].version = opset
        with pytest.raises(ModelError, match="opset"):
            load(model)

    def test_absurd_ir_version(self) -> None:
        model = parse(SMALL)
        model.ir_version = 1 << 40
        with pytest.raises(ModelError, match="IR version"):
            load(model)

    @pytest.mark.parametrize("side", ["input", "output"])
    @pytest.mark.parametrize("dim", [-1, -(1 << 62), 1 << 62])
    def test_absurd_dims(self, side: str, dim: int) -> None:
        model = parse(SMALL)
        getattr(model.graph, side)[0].type.tensor_type.shape.dim[1].dim_value = dim
        with pytest.raises(ModelError, match="absurd dimensions"):
            load(model)

    @pytest.mark.parametrize("side", ["input", "output", "initializer"])
    def test_listed_twice(self, side: str) -> None:
        model = parse(SMALL)
        getattr(model.graph, side).append(getattr(model.graph, side)[0])
        with pytest.raises(ModelError, match="listed twice"):
            load(model)

    def test_made_twice(self) -> None:
        model = parse(SMALL)
        model.graph.node[1].output[0] = "a"
        with pytest.raises(ModelError):
            load(model)

    def test_not_sorted(self) -> None:
        model = parse(SMALL)
        model.graph.node.insert(0, model.graph.node.pop())
        with pytest.raises(ModelError, match="topologically sorted"):
            load(model)

    def test_unknown_operator(self) -> None:
        model = parse(SMALL)
        model.graph.node[1].op_type = "Frobnicate"
        with pytest.raises(ModelError, match="Frobnicate"):
            load(model)

    def test_contradicting_shapes(self) -> None:
        text = "g (float[2,3] x, float[2,3] z) => (float[2,2] y) { y = MatMul(x, z) }"
        with pytest.raises(ModelError, match="MatMul"):
            load(parse(text))

    @pytest.mark.parametrize("elements", [4, 2000])
    @pytest.mark.parametrize("change", [-4, 4, 1])
    def test_tensor_data_of_the_wrong_size(self, elements: int, change: int) -> None:
        model = parse(f"g (float[{elements}] x) => (float[{elements}] y) {{ y = Relu(x) }}")
        model.graph.node[0].op_type = "Add"
        model.graph.node[0].input.append("w")
        tensor = numpy_helper.from_array(np.ones(elements, np.float32), "w")
        tensor.raw_data = (tensor.raw_data + b"abcd")[: 4 * elements + change]
        model.graph.initializer.append(tensor)
        with pytest.raises(ModelError, match=r"need|required"):
            load(model)

    def test_negative_dims_of_a_tensor(self) -> None:
        model = parse(SMALL)
        model.graph.initializer[0].dims[0] = -3
        with pytest.raises(ModelError):
            load(model)

    def test_nested_too_deep(self) -> None:
        model = parse("g (bool c, float[1] x) => (float[1] y) { y = Relu(x) }")
        graph = model.graph
        for _ in range(35):
            node = graph.node.add(op_type="If", input=["c"], output=["y"])
            node.attribute.add(name="then_branch", type=onnx.AttributeProto.GRAPH)
            graph = node.attribute[0].g
        with pytest.raises(ModelError, match="nested deeper"):
            load(model)

    def test_text_that_is_not_utf8(self, tmp_path: Path) -> None:
        path = tmp_path / "m.onnx"
        path.write_bytes(parse(SMALL).SerializeToString().replace(b"first", b"f\xffrst"))
        with pytest.raises(ModelError, match="UTF-8"):
            load(path)

    def test_no_opset(self) -> None:
        model = parse(SMALL)
        del model.opset_import[:]
        with pytest.raises(ModelError, match="opset"):
            load(model)

    def test_bytes_flipped_anywhere(self, tmp_path: Path) -> None:
        sources = [parse(SMALL).SerializeToString(), TestFunctions().model(3).SerializeToString()]
        sources += [
            parse(f'<ir_version: 4, opset_import: ["" : {c[1]}]>\n' + c[2]).SerializeToString()
            for c in TestOpsets.CASES
        ]
        rng = np.random.default_rng(1)
        path = tmp_path / "m.onnx"
        refused = 0
        for i in range(400):
            data = bytearray(sources[i % len(sources)])
            for _ in range(rng.integers(1, 4)):
                data[rng.integers(len(data))] = rng.integers(256)
            path.write_bytes(data)
            try:
                load(path).to_onnx()
            except EdgecError:
                refused += 1
        assert refused > 100


class TestExternalData:
    def save(self, folder: Path, **entries: Any) -> Path:
        """A model whose weight of 8 floats lies in w.bin, with `entries` changed."""
        model = parse("g (float[8] x) => (float[8] y) { y = Relu(x) }")
        model.graph.node[0].op_type = "Add"
        model.graph.node[0].input.append("w")
        tensor = TensorProto(
            name="w", dims=[8], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL
        )
        for key, value in ({"location": "w.bin"} | entries).items():
            tensor.external_data.add(key=key, value=str(value))
        model.graph.initializer.append(tensor)
        path = folder / "m.onnx"
        path.write_bytes(model.SerializeToString())
        return path

    @pytest.mark.parametrize(
        ("entries", "first"),
        [
            ({}, 0),
            ({"offset": 4}, 1),
            ({"offset": 32, "length": 32}, 8),
            ({"length": 32}, 0),
            ({"location": "./w.bin"}, 0),
            ({"location": "deep/er/w.bin"}, 100),
        ],
    )
    def test_read(self, tmp_path: Path, entries: dict[str, Any], first: int) -> None:
        (tmp_path / "w.bin").write_bytes(np.arange(16, dtype=np.float32).tobytes())
        (tmp_path / "deep" / "er").mkdir(parents=True)
        (tmp_path / "deep" / "er" / "w.bin").write_bytes(
            np.arange(100, 108, dtype=np.float32).tobytes()
        )
        graph = load(self.save(tmp_path, **entries))
        np.testing.assert_array_equal(
            graph.gs.nodes[0].inputs[1].values, np.arange(first, first + 8, dtype=np.float32)
        )

    @pytest.mark.parametrize(
        "entries",
        [
            {"location": "../secret.bin"},
            {"location": "a/../../secret.bin"},
            {"location": "/etc/passwd"},
            {"location": "//etc/passwd"},
            {"location": "\\etc\\passwd"},
            {"location": "..\\secret.bin"},
            {"location": "C:\\secret.bin"},
            {"location": "file:///etc/passwd"},
            {"location": ""},
            {"location": "."},
            {"location": "w.bin\0.txt"},
            {"location": "w.bin/"},
            {"location": "a//w.bin"},
            {"location": "absent.bin"},
            {"location": "folder"},
            {"location": "symlink.bin"},
            {"location": "linked/secret.bin"},
            {"location": "hardlink.bin"},
            {"location": "fifo"},
            {"location": "/dev/zero"},
            {"location": "zero"},
            {"offset": 33},
            {"offset": -4},
            {"offset": 1 << 63},
            {"offset": "9" * 5000},
            {"offset": "four"},
            {"offset": "٤"},
            {"length": 1 << 40},
            {"length": 31},
            {"length": -1},
            {"length": 0},
        ],
        ids=str,
    )
    def test_refused(self, tmp_path: Path, entries: dict[str, Any]) -> None:
        outside = tmp_path / "secret.bin"
        outside.write_bytes(bytes(64))
        folder = tmp_path / "model"
        folder.mkdir()
        (folder / "w.bin").write_bytes(bytes(32))
        (folder / "folder").mkdir()
        (folder / "symlink.bin").symlink_to(outside)
        (folder / "linked").symlink_to(tmp_path)
        (folder / "hardlink.bin").hardlink_to(outside)
        (folder / "zero").symlink_to("/dev/zero")
        os.mkfifo(folder / "fifo")
        with pytest.raises(ModelError) as error:
            load(self.save(folder, **entries))
        assert error.value.where == "tensor 'w'"

    def test_one_file_used_by_many_tensors(self, tmp_path: Path) -> None:
        (tmp_path / "w.bin").write_bytes(bytes(1 << 20))
        model = onnx.load(self.save(tmp_path), load_external_data=False)
        model.graph.initializer[0].dims[0] = 1 << 18
        for i in range(20):
            model.graph.initializer.append(model.graph.initializer[0])
            model.graph.initializer[-1].name = f"w{i}"
        path = tmp_path / "m.onnx"
        path.write_bytes(model.SerializeToString())
        with pytest.raises(ModelError, match="many times over"):
            load(path)

    def test_not_from_memory(self, tmp_path: Path) -> None:
        (tmp_path / "w.bin").write_bytes(bytes(32))
        model = onnx.load(self.save(tmp_path), load_external_data=False)
        with pytest.raises(ModelError, match="given in memory"):
            load(model)

    def test_written_when_large(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        weight = np.random.default_rng(0).standard_normal(3000).astype(np.float32)
        model = parse("g (float[3000] x) => (float[3000] y) { y = Relu(x) }")
        model.graph.node[0].op_type = "Add"
        model.graph.node[0].input.append("w")
        model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
        graph = load(model)
        monkeypatch.setattr(edgec.external, "EXTERNAL_BYTES", 1000)
        graph.save(tmp_path / "big.onnx")
        assert sorted(p.name for p in tmp_path.iterdir()) == ["big.onnx", "big.onnx.data"]
        assert (tmp_path / "big.onnx").stat().st_size < 1000
        again = load(tmp_path / "big.onnx")
        np.testing.assert_array_equal(again.gs.nodes[0].inputs[1].values, weight)
        onnx.checker.check_model(str(tmp_path / "big.onnx"))

    def test_written_from_branches_and_typed_data(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model = parse("""g (bool c, float[3000] x) => (float[3000] y) {
          y = If (c) <
            then_branch = t () => (float[3000] r) { r = Mul(x, w) },
            else_branch = e () => (float[3000] r) { r = Relu(x) }
          >
        }""")
        weight = np.random.default_rng(0).standard_normal(3000).astype(np.float32)
        typed = helper.make_tensor("w", TensorProto.FLOAT, [3000], weight.tolist())
        model.graph.node[0].attribute[0].g.initializer.append(typed)
        graph = load(model)
        monkeypatch.setattr(edgec.external, "EXTERNAL_BYTES", 1000)
        graph.save(tmp_path / "big.onnx")
        assert (tmp_path / "big.onnx.data").stat().st_size == weight.nbytes
        feed = {"c": np.array(True), "x": np.ones(3000, np.float32)}
        session = onnxruntime.InferenceSession(tmp_path / "big.onnx")
        assert_same([weight], session.run(None, feed))


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
