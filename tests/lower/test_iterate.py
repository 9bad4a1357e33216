"""Loop and Scan compiled to loops over time, against ONNX Runtime without optimisations."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.compose
import onnx.parser
import pytest

from edgec.errors import LoweringError
from edgec.graph import load
from edgec.lower.convert import unsupported
from edgec.lower.lowering import lower_graph
from edgec.program import Call, Repeat, calls_in
from edgec.targets import host

from .test_recurrent import Results, compiled_and_run, same

HEADER = '<ir_version: 10, opset_import: ["" : 22]>\n'

ONE_OPERATOR_BODIES = {
    "sums": (
        "(float[3] s, float[7,3] x) => (float[3] t, float[7,3] y)",
        "t, y = Scan <num_scan_inputs = 1, body = b (float[3] a, float[3] i)"
        " => (float[3] c, float[3] o) { c = Add(a, i) o = Mul(c, i) }> (s, x)",
    ),
    "two states that change places": (
        "(float[3] s, float[3] r, float[7,3] x) => (float[3] t, float[3] u)",
        "t, u = Scan <num_scan_inputs = 1, body = b (float[3] a, float[3] e, float[3] i)"
        " => (float[3] e1, float[3] c) { e1 = Identity(e) c = Add(a, i) }> (s, r, x)",
    ),
    "the old state is read after the new one is made": (
        "(float[3] s, float[7,3] x) => (float[3] t, float[7,3] y)",
        "t, y = Scan <num_scan_inputs = 1, body = b (float[3] a, float[3] i)"
        " => (float[3] c, float[3] o) { c = Exp(i) m = ReduceSum(c) o = Mul(a, m) }> (s, x)",
    ),
    "the old state is yielded": (
        "(float[3] s, float[7,3] x) => (float[3] t, float[7,3] y)",
        "t, y = Scan <num_scan_inputs = 1, body = b (float[3] a, float[3] i)"
        " => (float[3] c, float[3] o) { c = Add(a, i) o = Identity(a) }> (s, x)",
    ),
    "one value is the state and yielded twice": (
        "(float[3] s, float[7,3] x) => (float[3] t, float[7,3] y, float[7,3] z)",
        "t, y, z = Scan <num_scan_inputs = 1, body = b (float[3] a, float[3] i)"
        " => (float[3] c, float[3] o, float[3] p) { c = Add(a, i) o = Identity(c) p = Identity(c)"
        " }> (s, x)",
    ),
    "a slice becomes the state and is yielded": (
        "(float[3] s, float[7,3] x) => (float[3] t, float[7,3] y, float[7,3] z)",
        "t, y, z = Scan <num_scan_inputs = 1, body = b (float[3] a, float[3] i)"
        " => (float[3] c, float[3] o, float[3] p) { c = Identity(i) o = Identity(i) p = Add(a, i)"
        " }> (s, x)",
    ),
    "no state": (
        "(float[7,3] x) => (float[7,3] y)",
        "y = Scan <num_scan_inputs = 1, body = b (float[3] i) => (float[3] o) { o = Softmax(i) }>"
        " (x)",
    ),
    "other axes, backwards": (
        "(float[3] s, float[3,7] x, float[2,3,7] v) => (float[3] t, float[3,7] y)",
        "t, y = Scan <num_scan_inputs = 2, scan_input_axes = [1, -1], scan_output_axes = [-1],"
        " scan_input_directions = [1, 0], scan_output_directions = [1],"
        " body = b (float[3] a, float[3] i, float[2,3] j) => (float[3] c, float[3] o) {"
        " m = ReduceMax <keepdims = 0> (j, axis) d = Mul(a, i) c = Add(d, m) o = Sub(c, i) }>"
        " (s, x, v)",
    ),
    "a scanned tensor is read whole, twice, both ways": (
        "(float[3] s, float[7,3] x) => (float[3] t, float[7,3] y)",
        "t, y = Scan <num_scan_inputs = 2, scan_input_directions = [0, 1],"
        " body = b (float[3] a, float[3] i, float[3] j) => (float[3] c, float[3] o) {"
        " w = ReduceMean <keepdims = 0> (x, axis) c = Add(a, w) o = Sub(i, j) }> (s, x, x)",
    ),
    "a scan in a scan": (
        "(float[3] s, float[7,5,3] x) => (float[3] t, float[7,5,3] y)",
        "t, y = Scan <num_scan_inputs = 1, body = b (float[3] a, float[5,3] i)"
        " => (float[3] c, float[5,3] o) { c, o = Scan <num_scan_inputs = 1,"
        " body = d (float[3] e, float[3] j) => (float[3] f, float[3] p) {"
        " g = Add(e, j) f = Tanh(g) p = Mul(f, a) }> (a, i) }> (s, x)",
    ),
    "one step": (
        "(float[3] s, float[1,3] x) => (float[3] t, float[1,3] y)",
        "t, y = Scan <num_scan_inputs = 1, body = b (float[3] a, float[3] i)"
        " => (float[3] c, float[3] o) { c = Add(a, i) o = Mul(c, i) }> (s, x)",
    ),
    "a loop that counts": (
        "(float[3] s, float[3] k) => (float[3] t, float[6,3] y)",
        "t, y = Loop <body = b (int64 n, bool g, float[3] a)"
        " => (bool g1, float[3] c, float[3] o) { g1 = Identity(g) f = Cast <to = 1> (n)"
        " d = Mul(f, k) c = Add(a, d) o = Cos(c) }> (six, yes, s)",
    ),
    "a loop that yields its number": (
        "(float[3] s) => (float[3] t, int64[6] y)",
        "t, y = Loop <body = b (int64 n, bool g, float[3] a)"
        " => (bool g1, float[3] c, int64 n1) { g1 = Identity(g) c = Cos(a) n1 = Identity(n)"
        " }> (six, , s)",
    ),
}
CONSTANTS = (
    "axis = Constant <value_ints = [0]> () six = Constant <value_int = 6> ()"
    " yes = Constant <value = bool {1}> () "
)


def model_of(signature: str, nodes: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(f"{HEADER}g {signature} {{ {CONSTANTS} {nodes} }}")


def feeds(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(4)
    return {
        info.name: rng.standard_normal(
            [d.dim_value for d in info.type.tensor_type.shape.dim]
        ).astype(np.float32)
        for info in model.graph.input
    }


@pytest.fixture(scope="module")
def results() -> tuple[Results, Results]:
    """What all of `ONE_OPERATOR_BODIES`, as one model, computes when compiled, and should."""
    first, *others = (
        onnx.compose.add_prefix(model_of(*texts), f"{n} ")
        for n, texts in enumerate(ONE_OPERATOR_BODIES.values())
    )
    for other in others:
        first = onnx.compose.merge_models(first, other, io_map=[])
        del first.opset_import[1:]
    return compiled_and_run(first, feeds(first))


@pytest.mark.parametrize("name", list(ONE_OPERATOR_BODIES))
def test_bodies(name: str, results: tuple[Results, Results]) -> None:
    number = list(ONE_OPERATOR_BODIES).index(name)
    actual, expected = results
    mine = [output for output in expected if output.startswith(f"{number} ")]
    assert len(mine) == len(model_of(*ONE_OPERATOR_BODIES[name]).graph.output)
    for output in mine:
        same(actual[output], expected[output], output)


def test_a_state_is_updated_where_it_lies() -> None:
    model = model_of(*ONE_OPERATOR_BODIES["sums"])
    program = lower_graph(load(model), "net", [], host()).program
    [repeat] = [step for step in program.steps if isinstance(step, Repeat)]
    assert not any(call.kernel.startswith("copy") for call in calls_in(repeat.body))
    assert any(
        isinstance(step, Call) and set(step.inputs) & set(step.outputs) for step in repeat.body
    )


@pytest.mark.parametrize(
    ("signature", "nodes", "why"),
    [
        (
            "(int64 m, float[3] s) => (float[3] t)",
            "t = Loop <body = b (int64 n, bool g, float[3] a) => (bool h, float[3] c)"
            " { h = Identity(g) c = Cos(a) }> (m, , s)",
            "how often it runs is known at run time only",
        ),
        (
            "(float[3] s) => (float[3] t)",
            "t = Loop <body = b (int64 n, bool g, float[3] a) => (bool h, float[3] c)"
            " { c = Cos(a) m = ReduceMax <keepdims = 0> (c) o = Constant <value_float = 1.0> ()"
            " h = Less(m, o) }> (six, yes, s)",
            "whether it goes on is known at run time only",
        ),
        (
            "(float[3] s) => (float[k] t)",
            "t = Loop <body = b (int64 n, bool g, float[p] a) => (bool h, float[q] c)"
            " { h = Identity(g) c = Concat <axis = 0> (a, a) }> (six, yes, s)",
            "goes on with float32[6]",
        ),
    ],
)
def test_what_is_refused(signature: str, nodes: str, why: str) -> None:
    graph = load(model_of(signature, nodes), symbolic=True)
    assert [why in each.why for each in unsupported(graph)] == [True]


def test_a_refused_body_names_the_node_that_has_it() -> None:
    signature, nodes = (
        "(int64 m, float[3] s) => (float[3] t)",
        (
            "t = Loop <body = b (int64 n, bool g, float[3] a) => (bool h, float[3] c)"
            " { h = Identity(g) c = Cos(a) }> (m, , s)"
        ),
    )
    import edgec

    with pytest.raises(LoweringError, match="Loop 't'"):
        edgec.compile(model_of(signature, nodes))
