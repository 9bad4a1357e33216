"""Sequences that are known while lowering. ONNX Runtime is the judge."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import parser

from edgec.graph import load
from edgec.lower.convert import unsupported

from .test_extent import check

X = np.arange(30, dtype=np.float32).reshape(5, 6)


@pytest.mark.parametrize(
    "text",
    [
        "(float[5,6] x) => (float[A,B] y) {"
        " two = Constant<value = int64 {2}>() one = Constant<value = int64 {1}>()"
        " s = SplitToSequence<axis = 0>(x, two) y = SequenceAt(s, one) }",
        "(float[5,6] x) => (float[A,B] y) { last = Constant<value = int64 {-1}>()"
        " sizes = Constant<value = int64[3] {1, 2, 3}>()"
        " s = SplitToSequence<axis = 1>(x, sizes) y = SequenceAt(s, last) }",
        "(float[5,6] x) => (float[A,B,C] y) { s = SplitToSequence<axis = 1, keepdims = 0>(x)"
        " y = ConcatFromSequence<axis = 1, new_axis = 1>(s) }",
        "(float[5,6] x) => (float[A,B] y, int64 n) { s = SplitToSequence<keepdims = 1>(x)"
        " e = SequenceErase(s) y = ConcatFromSequence<axis = 1>(e) n = SequenceLength(e) }",
        "(float[5,6] x) => (float[A,B] y) { zero = Constant<value = int64 {0}>() z = Neg(x)"
        " s = SequenceConstruct(x, x) t = SequenceInsert(s, z, zero) u = SequenceInsert(t, z)"
        " first = SequenceErase(u, zero) y = ConcatFromSequence<axis = -1>(first) }",
        "(float[5,6] x) => (float[A,B] y) { s = SequenceEmpty() t = SequenceInsert(s, x)"
        " y = ConcatFromSequence<axis = 0>(t) }",
    ],
)
def test_known_sequences(text: str) -> None:
    check(text, X)


@pytest.mark.parametrize("place", [0, 1, -1])
def test_an_element_that_a_run_picks(place: int) -> None:
    text = (
        "(float[5,6] x, int64 i) => (float[A,B] y) { z = Neg(x) s = SequenceConstruct(x, z)"
        " y = SequenceAt(s, i) }"
    )
    check(text, X, np.array(place))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("two = Constant<value = int64 {2}>() y = SequenceAt(s, two)", "position 2 is outside"),
        ("e = SequenceEmpty() y = ConcatFromSequence<axis = 0>(e)", "an empty sequence"),
    ],
)
def test_what_is_refused(text: str, why: str) -> None:
    model = parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]> m (float[5,6] x) => (float[5,6] y)'
        f" {{ s = SequenceConstruct(x, x) {text} }}"
    )
    assert why in unsupported(load(model, trusted=True))[0].why
