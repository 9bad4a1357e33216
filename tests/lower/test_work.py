"""What kernels have to do: bytes to move, products to add up."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from onnx import parser

from edgec.graph import load
from edgec.lower.lowering import lower_graph
from edgec.program import Call, Program, Repeat, calls_in
from edgec.runtime.load import read_manifest
from edgec.targets import host

TABLE = f"<float[64,4] t = {{{', '.join(map(str, range(256)))}}}>"
LSTM = (
    "(float[10,1,4] x, float[1,32,4] w, float[1,32,8] r) => (float[10,1,1,8] y)"
    " { y = LSTM <hidden_size = 8> (x, w, r) }"
)
# Where each argument is, in order, and the bytes of it that a call touches.
CASES = {
    "elementwise: all of everything": (
        "(float[6,4] x) => (float[6,4] y) { y = Softplus (x) }",
        [("input", 96), ("output", 96)],
    ),
    "a gather: the rows it picks": (
        f"(int64[3] x) => (float[3,4] y) {TABLE} {{ y = Gather (t, x) }}",
        [("weight", 48), ("input", 24), ("output", 48)],
    ),
    "a slice: what it keeps": (
        "(float[4,64] x) => (float[4,2] y)"
        " <int64[1] a = {8}, int64[1] b = {10}, int64[1] c = {1}>"
        " { z = Slice (x, a, b, c) y = Softplus (z) }",
        [("input", 32), ("output", 32)],
    ),
    "a product: every element once": (
        f"(float[8,64] x) => (float[8,4] y) {TABLE} {{ y = MatMul (x, t) }}",
        [("input", 2048), ("weight", 1024), ("output", 128)],
    ),
    "a loop that ends when data say so: all of it": (
        "(float[32] x) => (float[32] y, int64[32] i) <int64[1] k = {32}> { y, i = TopK (x, k) }",
        [("input", 128), ("output", 128), ("output", 256)],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bytes_of_each_argument(name: str) -> None:
    text, expected = CASES[name]
    program = lowered(text)
    (call,) = program.calls()
    places = [program.buffers[number].where for number in (*call.inputs, *call.outputs)]
    assert list(zip(places, call.traffic, strict=True)) == expected


def lowered(text: str) -> Program:
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> m {text}')
    return lower_graph(load(model), "m", [], host()).program


def test_a_loop_touches_a_slice_at_a_time() -> None:
    """One of ten steps multiplies the state by the weights and adds its own part of the input's
    product."""
    program = lowered(LSTM)
    (loop,) = (step for step in program.steps if isinstance(step, Repeat))
    product = next(call for call in calls_in(loop.body) if "matmul" in call.kernel)
    assert sorted(product.traffic) == [4 * 8, 4 * 32, 4 * 32, 4 * 8 * 32]
    assert product.macs == 8 * 32


def test_macs_of_a_node_in_several_calls_are_their_own() -> None:
    """All that the layer multiplies: the input, of ten steps at once, and the state in each."""
    program = lowered(LSTM)
    (loop,) = (step for step in program.steps if isinstance(step, Repeat))
    inside = sum(call.macs for call in calls_in(loop.body))
    outside = sum(call.macs for call in program.steps if isinstance(call, Call))
    assert outside + 10 * inside == 10 * (4 * 32 + 8 * 32)


@pytest.mark.parametrize(
    ("text", "macs"),
    [
        ("(float[8,64] x, float[64,4] t) => (float[8,4] y) { y = MatMul (x, t) }", 8 * 64 * 4),
        (
            "(float[8,64] x) => (float[8] y)"
            " { a = Constant <value_ints = [1]> () y = ReduceSum <keepdims = 0> (x, a) }",
            0,
        ),
        ("(float[8,64] x) => (float[8,64] y) { z = Mul (x, x) y = Add (x, z) }", 0),
    ],
)
def test_macs(text: str, macs: int) -> None:
    """Of products that are summed; neither sums of other things nor single products count."""
    assert sum(call.macs for call in lowered(text).calls()) == macs


def test_the_manifest_says_where(digits_artifact: Path) -> None:
    """In the arena at an offset, elsewhere by number; what one step writes, a later one reads."""
    (variant,) = read_manifest(digits_artifact)["variants"]
    steps = [step["touches"] for step in variant["steps"]]
    assert steps[0][0] == ["input 0", 0, 4 * 8 * 8]
    assert steps[-1][-1] == ["output 0", 0, 4 * 10]
    for before, after in itertools.pairwise(steps):
        assert before[-1] in after
    arena = [touch for step in steps for touch in step if touch[0] == "arena"]
    assert max(offset + nbytes for _, offset, nbytes in arena) <= variant["arena_bytes"]
