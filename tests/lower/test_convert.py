"""What conversion promises beyond numbers: names, order, origins, and refusals all at once."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import parser
from tvm import relax

from edgec.errors import LoweringError
from edgec.graph import Graph, load
from edgec.lower.context import Unsupported
from edgec.lower.convert import ORIGIN, to_relax, unsupported

from .running import run, run_model


def graph_of(text: str, opset: int = 25) -> Graph:
    model = parser.parse_model(f'<ir_version: 11, opset_import: ["" : {opset}]> {text}')
    return load(model, trusted=True)


def test_parameters_keep_the_names_and_order_of_the_inputs() -> None:
    graph = graph_of(
        "g (float[2] second, float[2] first) => (float[2] y) { y = Sub(first, second) }"
    )
    main = to_relax(graph)["main"]
    assert [param.name for param in main.params] == ["second", "first"]
    feeds = {"second": np.float32([1, 2]), "first": np.float32([5, 5])}
    np.testing.assert_array_equal(run(graph, feeds)[0], [4, 3])


def test_one_output_is_a_tuple_too() -> None:
    graph = graph_of("g (float[2] x) => (float[2] y) { y = Relu(x) }")
    assert isinstance(to_relax(graph)["main"].ret_ty, relax.TupleType)


def test_an_input_or_a_constant_may_be_an_output() -> None:
    model = parser.parse_model(
        '<ir_version: 11, opset_import: ["" : 25]> g (float[2] x) => (float[2] a, float[2] b)'
        " { a = Identity(x)  b = Constant <value = float[2] {1, 2}> () }"
    )
    a, b = run_model(model, np.float32([3, 4]))
    np.testing.assert_array_equal(a, [3, 4])
    np.testing.assert_array_equal(b, [1, 2])


def test_every_binding_knows_its_node() -> None:
    graph = graph_of(
        "g (float[1,4,4] x, float[4] s) => (float[1,4,4] y) "
        "{ [norm] n = RMSNormalization(x, s)  [act] y = Relu(n) }"
    )
    module = to_relax(graph)
    bindings = [binding.var.name for binding in module["main"].body.blocks[0].bindings[:-1]]
    origins = [module.attrs[ORIGIN][name] for name in bindings]
    assert origins == sorted(origins, reverse=True)
    assert set(origins) == {"norm", "act"}


def test_refusals_are_reported_all_at_once_with_node_and_reason() -> None:
    graph = graph_of(
        "g (float[4,4] x) => (float[4,4] y) { [one] a = RandomNormalLike(x)  b = Relu(a)"
        "  [two] y = RandomNormalLike(b) }"
    )
    reason = "this operator is not lowered"
    assert unsupported(graph) == [
        Unsupported("one", "RandomNormalLike", reason),
        Unsupported("two", "RandomNormalLike", reason),
    ]
    with pytest.raises(LoweringError, match="2 of the model's nodes") as caught:
        to_relax(graph)
    assert "one" in str(caught.value)
    assert "two" in str(caught.value)


def test_operators_of_other_domains_are_refused_by_name() -> None:
    model = parser.parse_model(
        '<ir_version: 11, opset_import: ["" : 25, "com.acme" : 1]> g (float[2] x) => (float[2] y)'
        " { y = com.acme.Blend(x) }"
    )
    [refusal] = unsupported(load(model, trusted=True))
    assert "'com.acme'" in refusal.why


def test_an_attribute_no_entry_reads_is_refused() -> None:
    graph = graph_of("g (float[2] x) => (float[2] y) { y = Relu(x) }")
    graph.gs.nodes[0].attrs["slope"] = 0.5
    [refusal] = unsupported(graph)
    assert refusal.why == "attribute slope is not handled"


def test_a_result_that_is_not_as_declared_is_refused() -> None:
    graph = graph_of("g (float[2,3] x) => (float[3,2] y) { y = Transpose(x) }")
    graph.gs.outputs[0].shape = (2, 3)
    [refusal] = unsupported(graph)
    assert "declared" in refusal.why


def test_shape_arithmetic_needs_no_kernel() -> None:
    graph = graph_of(
        "g (float[2,3,4] x) => (float[2,12] y) { s = Shape(x)  i = Constant <value_ints = [0]> ()"
        "  m = Constant <value_ints = [-1]> ()  b = Gather(s, i)  t = Concat <axis = 0> (b, m)"
        "  y = Reshape(x, t) }"
    )
    module = to_relax(graph)
    assert [gv.name_hint for gv in module.get_global_vars()] == ["main"]


def test_boxes_that_are_computed_with_want_a_bound() -> None:
    boxes = np.float32([[[0, 0, 1, 1], [0, 0, 1, 0.9], [2, 2, 3, 3]]])
    scores = np.float32([[[0.5, 0.9, 0.8]]])
    graph = graph_of(
        "g (float[1,3,4] b, float[1,1,3] s) => (int64[n,3] y)"
        " <int64[1] k = {3}, float[1] o = {0.5}> { z = NonMaxSuppression(b, s, k, o) y = Neg(z) }"
    )
    refusal, *_ = unsupported(graph)
    assert "declare its output as [3,3]" in refusal.why
    graph.gs.nodes[0].outputs[0].shape = (4, 3)
    graph.gs.outputs[0].shape = (4, 3)
    (kept,) = run(graph, {"b": boxes, "s": scores})
    np.testing.assert_array_equal(kept, [[0, 0, -1], [0, 0, -2], [1, 1, 1], [1, 1, 1]])


def test_transposed_convolution_by_phases_is_the_gathered_one() -> None:
    random = np.random.default_rng(0)
    x = random.standard_normal((2, 3, 5, 4), np.float32)
    w = random.standard_normal((3, 2, 4, 2), np.float32)
    text = (
        "g (float[2,3,5,4] x{}) => (float[2,2,a,b] y) {} {{ y = ConvTranspose <strides = [2, 2], "
        "pads = [1, 0, 0, 1], output_padding = [1, 0]> (x, w) }}"
    )
    gathered = parser.parse_model(_header(text.format(", float[3,2,4,2] w", "")))
    phased = parser.parse_model(_header(text.format("", "<float[3,2,4,2] w>")))
    phased.graph.initializer.append(onnx.numpy_helper.from_array(w, "w"))
    (expected,), (result,) = run_model(gathered, x, w), run_model(phased, x)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)


def _header(text: str) -> str:
    return f'<ir_version: 11, opset_import: ["" : 25]> {text}'


def test_a_tensor_too_large_to_hold() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]> g (float[1] x) => (float[3000000000] y)'
        "<int64[1] n = {3000000000}> { y = Expand(x, n) }"
    )
    [refused] = unsupported(load(model))
    assert refused.why == "it makes (3000000000,), too large a tensor"
