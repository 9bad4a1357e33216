"""Models that are hostile by how they are put together: bytes, names, types, tensors, calls."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import onnx
import onnx.parser
from onnx import AttributeProto, TensorProto, helper, numpy_helper

BIG = 1 << 40
NAMES = {
    "newlines": "a\nb\r\nc",
    "nul": "a\0b",
    "html": "<script>alert(1)</script>&quot;",
    "path": "../../../../etc/passwd",
    "shell": "$(touch /tmp/owned); `id` | sh",
    "format": "%s%n{0.__class__}",
    "terminal": "\x1b[2J\x1b]0;title\x07",
    "backwards": "\u202egnp.exe",
    "long": "x" * 1_000_000,
    "nothing": "",
}
_FLOAT = TensorProto.FLOAT


def base() -> onnx.ModelProto:
    """y = Relu(x + w), a valid model."""
    header = '<ir_version: 10, opset_import: ["" : 21]>\n'
    return onnx.parser.parse_model(
        header
        + "g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { a = Add(x, w) y = Relu(a) }"
    )


def models() -> dict[str, onnx.ModelProto | bytes]:
    """By name."""
    found: dict[str, onnx.ModelProto | bytes] = {}
    for part in (_bytes, _headers, _names, _types, _tensors, _shapes_of_graphs, _calls):
        for name, model in part():
            if name in found:
                raise ValueError(f"two models are named {name}")
            found[name] = model
    return found


def _bytes() -> Iterator[tuple[str, bytes]]:
    whole = base().SerializeToString()
    yield "empty", b""
    yield "one_byte", b"\x08"
    yield "noise", np.random.default_rng(3).bytes(4096)
    yield "text", b"this is no model\n" * 100
    yield "half_of_it", whole[: len(whole) // 2]
    yield "rubbish_behind", whole + b"\xff" * 64
    yield "zeros", bytes(5_000_000)
    yield "twice", whole * 2
    yield "not_utf8", whole.replace(b"Relu", b"R\xfflu")
    nested = b""
    for _ in range(3000):
        nested = b"\x0b" + nested + b"\x0c"
    yield "groups_in_groups", nested


def _headers() -> Iterator[tuple[str, onnx.ModelProto]]:
    for version in (0, -1, 1 << 62):
        model = base()
        model.ir_version = version
        yield f"ir_{version}", model
        model = base()
        model.opset_import[0].version = version
        yield f"opset_{version}", model
    model = base()
    del model.opset_import[:]
    yield "no_opset", model
    model = base()
    model.opset_import.append(helper.make_opsetid("ai.onnx", 20))
    yield "two_opsets", model
    model = base()
    model.opset_import.extend(helper.make_opsetid(f"domain{i}", 1 << 62) for i in range(10_000))
    yield "ten_thousand_domains", model
    model = base()
    model.ClearField("graph")
    yield "no_graph", model
    model = base()
    model.graph.Clear()
    yield "empty_graph", model
    model = base()
    del model.graph.output[:]
    yield "no_outputs", model
    model = base()
    model.graph.output[0].name = "nobody"
    yield "output_that_nothing_makes", model
    model = base()
    model.graph.output[0].name = "x"
    yield "output_is_an_input", model
    model = base()
    model.training_info.add().algorithm.CopyFrom(model.graph)
    yield "training", model
    model = base()
    model.graph.quantization_annotation.add(tensor_name="nobody").quant_parameter_tensor_names.add()
    yield "quantization_of_nobody", model


def _names() -> Iterator[tuple[str, onnx.ModelProto]]:
    for kind, name in NAMES.items():
        model = base()
        model.graph.name = model.producer_name = model.graph.node[0].name = name
        model.graph.node[0].output[0] = model.graph.node[1].input[0] = name
        model.graph.input[0].name = model.graph.node[0].input[0] = f"{name}in" if name else name
        model.graph.metadata_props.add(key=name, value=name)
        yield f"named_{kind}", model
        model = base()
        model.graph.node[1].op_type = name
        model.graph.node[1].domain = name
        yield f"operator_{kind}", model
    for side in ("input", "output", "initializer"):
        model = base()
        getattr(model.graph, side).append(getattr(model.graph, side)[0])
        yield f"{side}_twice", model
    model = base()
    model.graph.node[1].output[0] = "a"
    yield "made_twice", model
    model = base()
    model.graph.node[0].name = model.graph.node[1].name = "same"
    yield "nodes_of_one_name", model


def _types() -> Iterator[tuple[str, onnx.ModelProto]]:
    deep = helper.make_tensor_type_proto(_FLOAT, [2])
    for _ in range(60):
        deep = helper.make_sequence_type_proto(deep)
    odd = {
        "no_type": onnx.TypeProto(),
        "sequence_60_deep": deep,
        "optional": helper.make_optional_type_proto(helper.make_tensor_type_proto(_FLOAT, [2])),
        "map": helper.make_map_type_proto(7, helper.make_tensor_type_proto(_FLOAT, [2])),
        "sparse": helper.make_sparse_tensor_type_proto(_FLOAT, [2]),
        "element_0": helper.make_tensor_type_proto(0, [2]),
        "element_999": helper.make_tensor_type_proto(999, [2]),
        "strings": helper.make_tensor_type_proto(TensorProto.STRING, [2]),
        "complex": helper.make_tensor_type_proto(TensorProto.COMPLEX64, [2]),
        "rank_1000": helper.make_tensor_type_proto(_FLOAT, [1] * 1000),
        "negative": helper.make_tensor_type_proto(_FLOAT, [-2]),
        "overflow": helper.make_tensor_type_proto(_FLOAT, [BIG, BIG, BIG]),
        "huge": helper.make_tensor_type_proto(_FLOAT, [BIG, 2]),
    }
    for name, kind in odd.items():
        for side in ("input", "output"):
            model = base()
            getattr(model.graph, side)[0].type.CopyFrom(kind)
            yield f"{side}_{name}", model


def _tensors() -> Iterator[tuple[str, onnx.ModelProto]]:
    raw = np.ones(2, np.float32).tobytes()
    odd = {
        "without_data": TensorProto(dims=[BIG], data_type=_FLOAT),
        "overflowing": TensorProto(dims=[1 << 32, 1 << 32, 2], data_type=_FLOAT, raw_data=raw),
        "negative": TensorProto(dims=[-2], data_type=_FLOAT, raw_data=raw),
        "zero_times_huge": TensorProto(dims=[0, BIG], data_type=_FLOAT),
        "of_no_type": TensorProto(dims=[2], raw_data=raw),
        "of_type_999": TensorProto(dims=[2], data_type=999, raw_data=raw),
        "too_short": TensorProto(dims=[2], data_type=_FLOAT, raw_data=raw[:5]),
        "too_long": TensorProto(dims=[2], data_type=_FLOAT, raw_data=raw * 2),
        "twofold": TensorProto(dims=[2], data_type=_FLOAT, raw_data=raw, float_data=[1, 2]),
        "in_another_field": TensorProto(dims=[2], data_type=_FLOAT, int64_data=[1, 2]),
        "of_odd_nibbles": TensorProto(dims=[3], data_type=TensorProto.INT4, raw_data=b"1"),
        "of_strings": TensorProto(
            dims=[2], data_type=TensorProto.STRING, string_data=[b"\xff\xfe", b"\0"]
        ),
        "in_segments": TensorProto(
            dims=[2], data_type=_FLOAT, raw_data=raw, segment=TensorProto.Segment(begin=-1, end=BIG)
        ),
        "of_rank_1000": TensorProto(dims=[1] * 1000, data_type=_FLOAT, raw_data=raw[:4]),
    }
    for name, tensor in odd.items():
        tensor.name = "w"
        model = base()
        model.graph.initializer[0].CopyFrom(tensor)
        yield f"tensor_{name}", model
        model = base()
        del model.graph.initializer[:]
        model.graph.node.insert(0, helper.make_node("Constant", [], ["w"], value=tensor))
        yield f"constant_{name}", model
    values = numpy_helper.from_array(np.ones(1, np.float32), "w")
    for name, place, dims in (("outside", 99, [2]), ("negative", -1, [2]), ("huge", 0, [BIG, BIG])):
        indices = numpy_helper.from_array(np.array([place]), "w_indices")
        sparse = onnx.SparseTensorProto(values=values, indices=indices, dims=dims)
        model = base()
        del model.graph.initializer[:]
        model.graph.sparse_initializer.append(sparse)
        yield f"sparse_{name}", model
        model = base()
        del model.graph.initializer[:]
        model.graph.node.insert(0, helper.make_node("Constant", [], ["w"], sparse_value=sparse))
        yield f"sparse_constant_{name}", model


def _shapes_of_graphs() -> Iterator[tuple[str, onnx.ModelProto]]:
    model = base()
    model.graph.node[0].input[1] = "y"
    yield "cycle", model
    model = base()
    model.graph.node[0].input[1] = "a"
    yield "eats_itself", model
    model = base()
    model.graph.node.insert(0, model.graph.node.pop())
    yield "unsorted", model
    model = base()
    del model.graph.node[1].output[:]
    yield "makes_nothing", model
    for depth in (31, 40, 90):
        model = base()
        graph = model.graph
        graph.initializer.append(numpy_helper.from_array(np.array(True), "c"))
        for level in range(depth):
            node = graph.node.add(op_type="If", input=["c"], output=[f"o{level}"])
            for branch in ("then_branch", "else_branch"):
                body = node.attribute.add(name=branch, type=AttributeProto.GRAPH).g
                body.output.add(name=f"o{level + 1}").type.tensor_type.elem_type = _FLOAT
                if branch == "else_branch" or level == depth - 1:
                    body.node.add(op_type="Identity", input=["x"], output=[f"o{level + 1}"])
            graph = node.attribute[0].g
        yield f"graphs_{depth}_deep", model
    model = base()
    attribute = model.graph.node[1].attribute.add(name="alpha", type=AttributeProto.FLOATS)
    model.graph.node[1].attribute.append(attribute)
    yield "attribute_twice", model
    model = base()
    model.graph.node[1].attribute.add(name="axis", s=b"\xff\xfe", type=AttributeProto.STRING)
    yield "attribute_not_utf8", model


def _calls() -> Iterator[tuple[str, onnx.ModelProto]]:
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("own", 1)]

    def calling(count: int, times: int, last: str) -> onnx.ModelProto:
        model = base()
        model.opset_import.append(helper.make_opsetid("own", 1))
        model.graph.node[1].op_type, model.graph.node[1].domain = "f0", "own"
        for i in range(count):
            names = ["p", *(f"p{j}" for j in range(1, times)), "q"]
            called, domain = (
                (f"f{i + 1}", "own") if i < count - 1 else (last, "own" * (last != "Relu"))
            )
            nodes = [helper.make_node(called, [a], [b], domain=domain) for a, b in pairwise(names)]
            model.functions.append(
                helper.make_function("own", f"f{i}", ["p"], ["q"], nodes, opsets)
            )
        return model

    yield "calls_that_double_30_times", calling(30, 2, "Relu")
    yield "calls_200_deep", calling(200, 1, "Relu")
    yield "calls_itself", calling(1, 1, "f0")
    yield "calls_in_a_ring", calling(5, 1, "f0")
    yield "calls_nobody", calling(2, 1, "nobody")
    model = calling(1, 1, "Relu")
    del model.functions[0].opset_import[:]
    yield "function_without_opset", model
    model = calling(1, 1, "Relu")
    model.functions.append(model.functions[0])
    yield "function_twice", model
    model = calling(1, 1, "Relu")
    model.functions[0].node[0].attribute.add(
        name="axis", ref_attr_name="nobody", type=AttributeProto.INT
    )
    yield "function_of_an_attribute_nobody_gives", model
    model = calling(1, 1, "Relu")
    model.functions[0].domain, model.functions[0].name = "", "Relu"
    yield "function_in_place_of_an_operator", model
