"""Models that are hostile by what their operators are asked to compute, in ONNX's text syntax."""

from __future__ import annotations

import onnx
import onnx.parser

BIG = 1 << 40
LEAST = -(1 << 63)

_ATTRIBUTES = {
    "axis_too_negative": "y = Concat <axis = -5> (x, x)",
    "axis_absurd": f"y = Softmax <axis = {BIG}> (x)",
    "axis_is_text": 'y = Softmax <axis = "one"> (x)',
    "axis_is_a_number_with_a_point": "y = Concat <axis = 0.5> (x, x)",
    "axis_is_missing": "y = Concat(x, x)",
    "permutation_repeats": "y = Transpose <perm = [0, 0]> (x)",
    "permutation_out_of_range": f"y = Transpose <perm = [0, {BIG}]> (x)",
    "cast_to_nothing": "y = Cast <to = 0> (x)",
    "cast_to_the_unknown": "y = Cast <to = 999> (x)",
    "cast_to_text": 'y = Cast <to = "float"> (x)',
    "einsum_nonsense": 'y = Einsum <equation = "ij,jk->...zz->"> (x, x)',
    "einsum_endless": f'y = Einsum <equation = "{"i" * 100_000}"> (x)',
    "einsum_without_equation": "y = Einsum(x)",
    "unknown_operator": "y = Frobnicate(x)",
    "unknown_attribute": "y = Relu <frobnicate = 1> (x)",
    "attribute_refers_outside_a_function": "y = Softmax <axis: int = @axis> (x)",
    "too_few_inputs": "y = MatMul(x)",
    "too_many_inputs": "y = Relu(x, x, x)",
    "too_many_outputs": "y, z, w = Relu(x)",
    "ten_thousand_inputs": f"y = Sum({', '.join(['x'] * 10_000)})",
    "constant_without_a_value": "c = Constant() y = Add(x, c)",
    "constant_with_two_values": "c = Constant <value_int = 1, value_float = 1.0> () y = Add(x, c)",
    "random_shape": f"y = RandomNormal <shape = [{BIG}, {BIG}]> ()",
    "group_of_zero": "i = Constant <value_ints = [1, 1, 2, 2]> () v = Reshape(x, i)"
    " y = Conv <group = 0> (v, v)",
    "strides_of_zero": "i = Constant <value_ints = [1, 1, 2, 2]> () v = Reshape(x, i)"
    " y = Conv <strides = [0, 0]> (v, v)",
    "kernel_of_nothing": "i = Constant <value_ints = [1, 1, 2, 2]> () v = Reshape(x, i)"
    " y = MaxPool <kernel_shape = [0, -1]> (v)",
    "kernel_of_another_rank": "i = Constant <value_ints = [1, 1, 2, 2]> () v = Reshape(x, i)"
    " y = AveragePool <kernel_shape = [1, 1, 1, 1, 1]> (v)",
    "dilations_absurd": "i = Constant <value_ints = [1, 1, 2, 2]> () v = Reshape(x, i)"
    f" y = Conv <dilations = [{BIG}, {BIG}]> (v, v)",
    "pads_absurd": "i = Constant <value_ints = [1, 1, 2, 2]> () v = Reshape(x, i)"
    f" y = MaxPool <kernel_shape = [1, 1], pads = [{BIG}, {BIG}, {BIG}, {BIG}]> (v)",
    "unsqueeze_twice": "i = Constant <value_ints = [0, 0]> () y = Unsqueeze(x, i)",
}

_VALUES = {
    "least_divided_by_minus_one": f"a = Constant <value_int = {LEAST}> ()"
    " b = Constant <value_int = -1> () d = Div(a, b) f = Cast <to = 1> (d) y = Add(x, f)",
    "least_of_32_bits_divided_by_minus_one": "a = Constant <value_int = -2147483648> ()"
    " b = Constant <value_int = -1> () c = Cast <to = 6> (a) e = Cast <to = 6> (b)"
    " d = Div(c, e) f = Cast <to = 1> (d) y = Add(x, f)",
    "least_modulo_minus_one": f"a = Constant <value_int = {LEAST}> ()"
    " b = Constant <value_int = -1> () d = Mod(a, b) f = Cast <to = 1> (d) y = Add(x, f)",
    "divided_by_zero": "a = Constant <value_int = 1> () b = Constant <value_int = 0> ()"
    " d = Div(a, b) f = Cast <to = 1> (d) y = Add(x, f)",
    "modulo_zero": "a = Constant <value_int = 1> () b = Constant <value_int = 0> ()"
    " d = Mod(a, b) f = Cast <to = 1> (d) y = Add(x, f)",
    "shifted_too_far": f"a = Constant <value_int = {BIG}> () b = Cast <to = 13> (a)"
    ' d = BitShift <direction = "LEFT"> (b, b) f = Cast <to = 1> (d) y = Add(x, f)',
    "not_a_number_to_integer": "a = Constant <value_float = 0.0> () n = Div(a, a)"
    " i = Cast <to = 7> (n) d = Unsqueeze(i, i) f = Cast <to = 1> (d) y = Add(x, f)",
    "power_of_integers": f"a = Constant <value_int = {BIG}> () p = Pow(a, a)"
    " f = Cast <to = 1> (p) y = Add(x, f)",
    "negative_power_of_integers": "a = Constant <value_int = 0> () b = Constant <value_int = -1> ()"
    " p = Pow(a, b) f = Cast <to = 1> (p) y = Add(x, f)",
    "reshaped_to_two_unknowns": "s = Constant <value_ints = [-1, -1]> () y = Reshape(x, s)",
    "reshaped_to_the_least": f"s = Constant <value_ints = [{LEAST}]> () y = Reshape(x, s)",
    "gathered_out_of_range": f"s = Constant <value_ints = [{BIG}]> () c = Gather(s, s)"
    " f = Cast <to = 1> (c) y = Add(x, f)",
    "gathered_out_of_range_of_an_input": f"s = Constant <value_int = {LEAST}> () y = Gather(x, s)",
    "sliced_with_step_zero": "z = Constant <value_ints = [0]> () y = Slice(x, z, z, z, z)",
    "sliced_with_the_least_step": f"z = Constant <value_ints = [0]> ()"
    f" l = Constant <value_ints = [{LEAST}]> () y = Slice(x, z, l, z, l)",
    "sliced_along_no_axis": f"z = Constant <value_ints = [0]> ()"
    f" l = Constant <value_ints = [{BIG}]> () y = Slice(x, z, z, l)",
    "split_into_other_sizes": "z = Constant <value_ints = [-1, 7]> () y, w = Split(x, z)",
    "split_into_too_many": f"y, w = Split <num_outputs = {BIG}> (x)",
    "range_that_stands": "a = Constant <value_float = 0.0> () b = Constant <value_float = 1.0> ()"
    " r = Range(a, b, a) y = Add(x, r)",
    "range_to_not_a_number": "a = Constant <value_float = 0.0> () n = Div(a, a)"
    " b = Constant <value_float = 1.0> () r = Range(a, n, b) y = Add(x, r)",
    "most_of_minus_one": "k = Constant <value_ints = [-1]> () y, i = TopK(x, k)",
    "most_of_very_many": f"k = Constant <value_ints = [{BIG}]> () y, i = TopK(x, k)",
    "one_hot_of_minus_one": "d = Constant <value_int = -1> () i = Cast <to = 7> (x)"
    " v = Constant <value_floats = [0.0, 1.0]> () y = OneHot(i, d, v)",
    "resized_by_zero": "s = Constant <value_floats = [0.0, 0.0]> () y = Resize(x, , s)",
    "resized_by_infinity": "o = Constant <value_floats = [1.0, 1.0]> ()"
    " z = Constant <value_floats = [0.0, 0.0]> () s = Div(o, z) y = Resize(x, , s)",
    "padded_below_nothing": f"p = Constant <value_ints = [0, 0, {LEAST}, 0]> () y = Pad(x, p)",
    "tiled_by_minus_one": "r = Constant <value_ints = [-1, -1]> () y = Tile(x, r)",
    "no_elements": "s = Constant <value_ints = [0, 2]> () c = ConstantOfShape(s)"
    " m = ReduceMax <keepdims = 1> (c) y = Add(x, m)",
    "no_elements_but_large": f"s = Constant <value_ints = [0, {BIG}]> () c = ConstantOfShape(s)"
    " t = Transpose(c) f = Flatten(t) y = Identity(f)",
    "a_shape_with_minus_one": "s = Constant <value_ints = [-1]> () c = ConstantOfShape(s)"
    " y = Add(x, c)",
    "expanded_to_the_least": f"s = Constant <value_ints = [{LEAST}]> () y = Expand(x, s)",
    "scattered_out_of_range": f"i = Constant <value_ints = [{BIG}]> () c = ScatterElements(i, i, i)"
    " f = Cast <to = 1> (c) y = Add(x, f)",
}

_QUANTIZED = {
    "scale_of_zero": "<int8[2,2] w = {1, 2, 3, 4}, float s = {0.0}> { d = DequantizeLinear(w, s)"
    " q = QuantizeLinear(x, s) e = DequantizeLinear(q, s) y = MatMul(e, d) }",
    "scale_below_zero": "<int8[2,2] w = {1, 2, 3, 4}, float s = {-1.0}>"
    " { d = DequantizeLinear(w, s) y = MatMul(x, d) }",
    "scale_per_channel_of_another_length": "<int8[2,2] w = {1, 2, 3, 4}, float[3] s = {1, 1, 1}>"
    " { d = DequantizeLinear(w, s) y = MatMul(x, d) }",
    "quantized_along_no_axis": "<int8[2,2] w = {1, 2, 3, 4}, float[2] s = {1, 1}>"
    " { d = DequantizeLinear <axis = 7> (w, s) y = MatMul(x, d) }",
    "blocks_of_minus_one": "<int8[2,2] w = {1, 2, 3, 4}, float[2,2] s = {1, 1, 1, 1}>"
    " { d = DequantizeLinear <block_size = -1> (w, s) y = MatMul(x, d) }",
    "zero_point_of_another_type": "<int8[2,2] w = {1, 2, 3, 4}, float s = {1.0}, uint8 z = {0}>"
    " { d = DequantizeLinear(w, s, z) y = MatMul(x, d) }",
}

_GRAPHS = {
    "if_without_branches": "c = Constant <value_int = 1> () b = Cast <to = 9> (c) y = If(b)",
    "if_with_one_branch": "c = Constant <value_int = 1> () b = Cast <to = 9> (c)"
    " y = If(b) <then_branch = t () => (float[2,2] z) { z = Relu(x) }>",
    "if_with_branches_of_many_results": "c = Constant <value_int = 1> () b = Cast <to = 9> (c)"
    " y = If(b) <then_branch = t () => (float[2,2] z, float[2,2] w) { z = Relu(x) w = Exp(x) },"
    " else_branch = e () => () {}>",
    "if_of_many_conditions": "c = Cast <to = 9> (x)"
    " y = If(c) <then_branch = t () => (float[2,2] z) { z = Relu(x) },"
    " else_branch = e () => (float[2,2] w) { w = Exp(x) }>",
    "loop_without_end": "c = Constant <value_int = 1> () b = Cast <to = 9> (c)"
    " y = Loop(, b, x) <body = l (int64 i, bool d, float[2,2] v) => (bool e, float[2,2] w)"
    " { e = Identity(d) w = Relu(v) }>",
    "loop_of_constants_without_end": "c = Constant <value_int = 1> () b = Cast <to = 9> (c)"
    " f = Cast <to = 1> (c) l = Loop(, b, f) <body = l (int64 i, bool d, float v)"
    " => (bool e, float w) { e = Identity(d) w = Relu(v) }> y = Add(x, l)",
    "loop_without_a_body": "y = Loop(, , x)",
    "loop_with_a_body_of_other_results": "c = Constant <value_int = 1> ()"
    " y = Loop(c, , x) <body = l (int64 i) => (float[2,2] w) { w = Relu(x) }>",
    "scan_of_nothing": "y = Scan(x) <num_scan_inputs = 0, body = s () => (float[2] w)"
    " { w = Constant <value_floats = [0.0, 0.0]> () }>",
    "scan_of_too_much": f"y = Scan(x) <num_scan_inputs = {BIG}, body = s (float[2] v)"
    " => (float[2] w) { w = Relu(v) }>",
    "graph_for_a_number": "y = Softmax <axis = g () => (float z) { z = Relu(x) }> (x)",
    "number_for_a_graph": "c = Constant <value_int = 1> () b = Cast <to = 9> (c)"
    " y = If <then_branch = 1, else_branch = 2> (b)",
}


def models() -> dict[str, onnx.ModelProto]:
    """By name."""
    bodies = {name: f"{{ {body} }}" for name, body in (_ATTRIBUTES | _VALUES | _GRAPHS).items()}
    return {name: _model(body) for name, body in (bodies | _QUANTIZED).items()}


def _model(body: str) -> onnx.ModelProto:
    header = '<ir_version: 10, opset_import: ["" : 21]>\n'
    return onnx.parser.parse_model(f"{header} g (float[2,2] x) => (float[a,b] y) {body}")
