"""Outputs with an extent that only a run decides. ONNX Runtime is the judge."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import parser

from edgec.errors import LoweringError
from edgec.graph import load
from edgec.lower.convert import EXTENTS, to_relax, unsupported
from edgec.lower.lowering import lower_graph, signature
from edgec.targets import resolve

from .running import run_model

NMS = """
    (float[2,40,4] boxes, float[2,3,40] scores) => (int64[M,3] selected) {
      most = Constant<value = int64 {5}>()
      overlap = Constant<value = float {0.3}>()
      least = Constant<value = float {0.7}>()
      selected = NonMaxSuppression(boxes, scores, most, overlap, least) }
"""


def parse(text: str) -> object:
    return parser.parse_model(f'<ir_version: 10, opset_import: ["": 21]> m {text}')


def check(text: str, *inputs: np.ndarray) -> list[np.ndarray]:
    model = parse(text)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    names = [each.name for each in session.get_inputs()]
    expected = session.run(None, dict(zip(names, inputs, strict=True)))
    made = run_model(model, *inputs)
    for result, wanted in zip(made, expected, strict=True):
        assert result.dtype == wanted.dtype
        np.testing.assert_array_equal(result, wanted)
    return made


def boxes_and_scores(seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.RandomState(seed)
    corners = random.rand(2, 40, 2) * 2
    boxes = np.concatenate([corners, corners + 1 + random.rand(2, 40, 2)], axis=2)
    return boxes.astype(np.float32), random.rand(2, 3, 40).astype(np.float32)


@pytest.mark.parametrize("seed", range(4))
def test_boxes_that_are_kept(seed: int) -> None:
    (selected,) = check(NMS, *boxes_and_scores(seed))
    assert 0 < len(selected) < 30


def test_no_box_is_kept() -> None:
    boxes, scores = boxes_and_scores(0)
    assert check(NMS, boxes, scores * 0.7)[0].shape == (0, 3)


def test_by_way_of_cast_and_as_two_outputs() -> None:
    text = NMS.replace("(int64[M,3] selected)", "(int32[M,3] cast, int64[K,3] same, int64[M,3] s)")
    text = text.replace("selected =", "s =").rstrip(" }\n")
    text += "cast = Cast<to = 6>(s) same = Identity(s) }"
    made = check(text, *boxes_and_scores(1))
    assert len({each.shape for each in made}) == 1


@pytest.mark.parametrize("shape", [(7,), (3, 5), (2, 3, 4), (1, 1)])
@pytest.mark.parametrize("kind", ["float", "int64", "bool"])
def test_non_zero(shape: tuple[int, ...], kind: str) -> None:
    random = np.random.RandomState(len(shape))
    dtype = {"float": np.float32, "int64": np.int64, "bool": np.bool_}[kind]
    x = (random.randint(-1, 2, shape)).astype(dtype)
    declared = ",".join(map(str, shape))
    text = f"({kind}[{declared}] x) => (int64[{len(shape)},K] y) {{ y = NonZero(x) }}"
    for value in (x, np.zeros_like(x), np.ones_like(x)):
        check(text, value)


@pytest.mark.parametrize(
    ("axis", "length"), [(None, 30), (None, 7), (0, 2), (1, 3), (1, 1), (-1, 5)]
)
def test_compress(axis: int | None, length: int) -> None:
    random = np.random.RandomState(length)
    x = random.rand(2, 3, 5).astype(np.float32)
    attribute = "" if axis is None else f"<axis = {axis}>"
    declared = "K" if axis is None else ["K,3,5", "2,K,5", "2,3,K"][axis]
    text = f"(float[2,3,5] x, bool[{length}] c) => (float[{declared}] y) {{ y = Compress{attribute}"
    text += "(x, c) }"
    for keep in (random.rand(length) < 0.5, np.zeros(length, bool), np.ones(length, bool)):
        check(text, x, keep)


@pytest.mark.parametrize(
    "rest",
    [
        "(float[K] y) { i = NonZero(x) j = Squeeze(i) y = Gather(x, j) }",
        "(int64[1,K] i, int64[2] n) { i = NonZero(x) n = Shape(i) }",
        "(int64[1,K] i, int64[K] j) { i = NonZero(x) c = Cast<to = 7>(i) j = Squeeze(c) }",
        "(float[K] y) { c = Cast<to = 9>(x) z = Compress(x, c) y = Neg(z) }",
    ],
)
def test_nothing_is_computed_from_them(rest: str) -> None:
    (refused, *_) = unsupported(load(parse(f"(float[9] x) => {rest}"), trusted=True))
    assert refused.op in ("NonZero", "Compress")
    assert "known at run time only" in refused.why


def test_a_program_names_the_count() -> None:
    graph = load(parse(NMS), trusted=True)
    assert [list(map(int, each)) for each in to_relax(graph).attrs[EXTENTS]] == [[0, 0]]
    assert signature(graph)[1][0].shape == (30, 3)
    program = lower_graph(graph, "m", [], resolve("x86-64-v3")).program
    (extent,) = program.extents
    assert (extent.output, extent.axis) == ("selected", 0)
    assert program.buffers[extent.count].where == "arena"
    assert program.buffers[extent.count].nbytes == 8


def test_state_has_a_shape() -> None:
    text = """(float[9] x, int64[1,9] before) => (int64[1,K] i, int64[1,9] sum)
              { i = NonZero(x) sum = Add(before, before) }"""
    with pytest.raises(LoweringError, match="state 'i' is known at run time only"):
        lower_graph(load(parse(text), trusted=True), "m", [("i", "before")], resolve("x86-64-v3"))


@pytest.mark.parametrize("ordered", [0, 1])
@pytest.mark.parametrize("dtype", ["float", "int64", "int8"])
def test_distinct_elements(dtype: str, ordered: int) -> None:
    text = f"({dtype}[4,5] x) => ({dtype}[A] y, int64[A] i, int64[20] j, int64[A] n)"
    x = np.random.default_rng(ordered).integers(-4, 5, (4, 5))
    kind = np.float32 if dtype == "float" else np.dtype(dtype)
    check(f"{text} {{ y, i, j, n = Unique<sorted = {ordered}>(x) }}", x.astype(kind))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_distinct_slices(axis: int) -> None:
    text = "(float[6,3,4] x) => (float[A,B,C] y, int64[M] i, int64[N] j, int64[M] n)"
    x = np.random.default_rng(3).integers(0, 2, (6, 3, 4)).astype(np.float32)
    x = np.take(x, np.resize([0, 2, 1], x.shape[axis]), axis)
    (y, *_) = check(f"{text} {{ y, i, j, n = Unique<axis = {axis}>(x) }}", x)
    assert y.shape[axis] < x.shape[axis] or x.shape[axis] == 3


def test_distinct_elements_alone() -> None:
    x = np.float32([3, 1, 3, 2, 1])
    check("(float[5] x) => (float[A] y) { y = Unique(x) }", x)
