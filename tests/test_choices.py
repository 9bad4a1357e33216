"""Integers chosen by comparing floats: when another choice is as good."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import model_of

from edgec.choices import find_choices
from edgec.compare import compare_tensor
from edgec.reference import Reference

ARGMAX = "(float[1,4] x) => (int64[1] y) { z = Neg (x)  y = ArgMax <axis = 1, keepdims = 0> (z) }"
TOPK = """(float[1,5] x) => (float[1,3] v, int64[1,3] y)
    { z = Neg (x)  k = Constant <value_ints = [3]> ()  v, y = TopK (z, k) }"""
CAST = "(float[1,4] x) => (int32[1,4] y) { z = Neg (x)  y = Cast <to = 6> (z) }"
ROUND = """(float[1,4] x) => (int32[1,4] y)
    { z = Neg (x)  r = Round (z)  y = Cast <to = 6> (r) }"""
LESS = "(float[1,4] x, float[1,4] w) => (bool[1,4] y) { z = Neg (x)  y = Less (z, w) }"
QUANTIZE = """(float[1,4] x) => (uint8[1,4] y) <float s = {0.5}, uint8 o = {10}>
    { z = Neg (x)  y = QuantizeLinear (z, s, o) }"""
PER_AXIS = """(float[1,4] x) => (int8[1,4] y) <float[4] s = {1, 2, 4, 8}, int8[4] o = {0, 0, 0, 0}>
    { z = Neg (x)  y = QuantizeLinear (z, s, o) }"""


@pytest.mark.parametrize(
    ("text", "x", "expected", "tied", "wrong"),
    [
        (ARGMAX, [[3, -5, 1, -4.99999]], [1], [3], [2]),
        (ARGMAX, [[3, -5, 1, -4.99999]], [1], [3], [4]),
        (TOPK, [[9, -5, 1, -4.99999, 2]], [[1, 3, 2]], [[3, 1, 2]], [[3, 1, 4]]),
        (TOPK, [[9, -5, 1, -4.99999, 2]], [[1, 3, 2]], [[3, 1, 2]], [[3, 3, 2]]),
        (CAST, [[-2.99999, -4, 0, 7]], [[2, 4, 0, -7]], [[3, 3, 0, -7]], [[4, 4, 0, -7]]),
        (CAST, [[-2.9, -4, 0, 7]], [[2, 4, 0, -7]], [[2, 4, 0, -7]], [[3, 4, 0, -7]]),
        (ROUND, [[-2.49999, -4, 0, 7]], [[2, 4, 0, -7]], [[3, 4, 0, -7]], [[2, 3, 0, -7]]),
        (QUANTIZE, [[-1.74999, -4, 0, 1]], [[13, 18, 10, 8]], [[14, 18, 10, 8]], [[13, 19, 10, 8]]),
        (PER_AXIS, [[1.49999, -4, 0, 32]], [[-1, 2, 0, -4]], [[-2, 2, 0, -4]], [[-1, 2, 0, -5]]),
    ],
)
def test_integers_chosen_by_comparing_floats(
    text: str, x: list[object], expected: list[object], tied: list[object], wrong: list[object]
) -> None:
    with Reference(model_of(text)) as oracle:
        outputs, rules = oracle.run({"x": np.float32(x)})
    dtype = outputs["y"].dtype
    assert outputs["y"].tolist() == expected
    ok = compare_tensor("y", outputs["y"], np.array(tied, dtype), justify=rules["y"])
    assert ok.ok
    assert ok.ties == int((np.array(tied) != np.array(expected)).sum())
    bad = compare_tensor("y", outputs["y"], np.array(wrong, dtype), justify=rules["y"])
    assert not bad.ok


def test_a_comparison_may_flip_where_its_sides_are_equal_within_tolerance() -> None:
    inputs = {"x": np.float32([[1, 2, 3, 4]]), "w": np.float32([[-1.00001, 0, -3.1, -4]])}
    with Reference(model_of(LESS)) as oracle:
        outputs, rules = oracle.run(inputs)
    assert outputs["y"].tolist() == [[False, True, False, False]]
    flipped = np.array([[True, True, False, True]])
    report = compare_tensor("y", outputs["y"], flipped, justify=rules["y"])
    assert (report.ok, report.ties) == (True, 2)
    assert not compare_tensor("y", outputs["y"], ~outputs["y"], justify=rules["y"]).ok


NMS = """(float[1,3,4] boxes, float[1,1,3] s) => (int64[n,3] y)
    { z = Neg (s)  m = Constant <value_ints = [3]> ()  y = NonMaxSuppression (boxes, z, m) }"""


def test_boxes_of_equal_score_may_change_places() -> None:
    boxes = np.float32([[[0, 0, 1, 1], [2, 2, 3, 3], [4, 4, 5, 5]]])
    with Reference(model_of(NMS)) as oracle:
        outputs, rules = oracle.run({"boxes": boxes, "s": np.float32([[[-0.9, -0.5, -0.90001]]])})
    expected = outputs["y"]
    assert expected.tolist() == [[0, 0, 2], [0, 0, 0], [0, 0, 1]]
    assert compare_tensor("y", expected, expected[[1, 0, 2]], justify=rules["y"]).ok
    assert not compare_tensor("y", expected, expected[[0, 2, 1]], justify=rules["y"]).ok
    assert not compare_tensor("y", expected, expected[[1, 1, 2]], justify=rules["y"]).ok


def test_choices_are_found_behind_reshaping_but_not_on_inputs() -> None:
    hidden = model_of("""(float[2,4] x) => (float[2,1,1] y)
        { z = Neg (x)  i = ArgMax <axis = 1> (z)  a = Constant <value_ints = [2]> ()
          u = Unsqueeze (i, a)  y = Cast <to = 1> (u) }""")
    assert find_choices(hidden)["y"].op == "ArgMax"
    x = np.float32([[1, 2, 3, 0.99999], [1, 2, 0, 3]])
    with Reference(hidden) as oracle:
        outputs, rules = oracle.run({"x": x})
    assert outputs["y"].ravel().tolist() == [3, 2]
    tied, wrong = (np.float32(v).reshape(2, 1, 1) for v in ([0, 2], [0, 0]))
    assert compare_tensor("y", outputs["y"], tied, justify=rules["y"]).ties == 1
    assert compare_tensor("y", outputs["y"], wrong, justify=rules["y"]).wrong == 1
    assert find_choices(model_of("(float[4] x) => (int64[4] y) { y = Cast <to = 7> (x) }")) == {}
    assert find_choices(model_of("(int64[4] x) => (int64[4] y) { y = Abs (x) }")) == {}
