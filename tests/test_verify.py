"""The tolerance rules, each shown to pass and to fail, and verification against ONNX Runtime."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import parser

from edgec.arrays import load_npz
from edgec.choices import find_choices
from edgec.compare import TensorReport, compare, compare_tensor, tolerance
from edgec.errors import ModelError, VerifyError
from edgec.floors import find_floors
from edgec.peers import EngineError
from edgec.program import Tensor
from edgec.reference import Reference, reference
from edgec.verify import Mismatch, VerifyReport, verify

SHARED = Path(__file__).parents[1].parent / "shared" / "models"


def model_of(text: str, opset: int = 21) -> onnx.ModelProto:
    return parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}]> m {text}')


class Module:
    """Runs a model by ONNX Runtime, then lets a test spoil the outputs."""

    def __init__(
        self, model: onnx.ModelProto, spoil: Callable[[dict[str, NDArray]], object] = lambda o: None
    ) -> None:
        self._model, self._spoil = model, spoil

    def run(self, inputs: Mapping[str, NDArray]) -> dict[str, NDArray]:
        outputs = {k: v.copy() for k, v in reference(self._model, inputs).items()}
        self._spoil(outputs)
        return outputs


def scaled(shape: tuple[int, ...], axis: int) -> NDArray:
    """Ones and halves, index 0 of `axis` a thousand times quieter; the ends are not halves."""
    array = np.ones(shape, np.float32)
    array.flat[1:-1:2] = 0.5
    np.moveaxis(array, axis, 0)[0] = 1e-3
    return array


@pytest.mark.parametrize(
    ("shape", "axis"), [((2, 3, 4, 5), 1), ((1, 6, 4), 2), ((6, 4), 1), ((2, 3, 4, 5, 6), 1)]
)
def test_tolerance_is_per_channel(shape: tuple[int, ...], axis: int) -> None:
    expected = scaled(shape, axis)
    loud, quiet = expected.copy(), expected.copy()
    loud[(-1,) * len(shape)] += 1.05e-4
    quiet[(0,) * len(shape)] += 1e-6
    assert compare_tensor("y", expected, loud).ok
    report = compare_tensor("y", expected, quiet)
    assert report.problem == f"1 of {expected.size} values are wrong"
    assert report.index == (0,) * len(shape)
    assert 9 < report.error < 10


def test_the_channel_axis_can_be_given() -> None:
    expected = scaled((4, 3, 5), 1)
    actual = expected.copy()
    actual[0, 0, 0] += 1e-6
    assert compare_tensor("y", expected, actual).ok
    assert not compare_tensor("y", expected, actual, channel_axis=1).ok


@pytest.mark.parametrize("shape", [(1, 2), (2,), (1, 2, 1, 1), (3, 1, 2), (3, 2)])
def test_few_values_are_measured_by_the_whole_output(shape: tuple[int, ...]) -> None:
    expected, near, far = (
        np.resize(np.float32([10, 1e-3 + error]), shape) for error in (0, 9e-5, 1.1e-4)
    )
    assert compare_tensor("y", expected, near).ok
    assert not compare_tensor("y", expected, far).ok


def test_copies_of_a_value_are_measured_by_the_whole_output() -> None:
    """Every row the same, as of a transformer over zeros: a value near 0 is not more exact then."""
    row = np.linspace(-2, 2, 40).astype(np.float32) + np.float32(1e-3)
    copies = np.tile(row, (1, 64, 1))
    near, far = (copies + np.float32(share * tolerance(row).min()) for share in (0.9, 1.2))
    assert compare_tensor("y", copies, near).ok
    assert not compare_tensor("y", copies, far).ok
    one_differs = copies.copy()
    one_differs[0, 5] += np.float32(0.01)
    assert not compare_tensor("y", one_differs, one_differs + (near - copies)).ok


def test_relative_error_counts_where_it_is_larger() -> None:
    expected = np.float32([[100.0]])
    assert compare_tensor("y", expected, np.float32([[100.0109]])).ok
    assert not compare_tensor("y", expected, np.float32([[100.0121]])).ok


@pytest.mark.parametrize("shape", [(7,), (5, 3), (1, 40, 4), (2, 6, 5, 4), (1, 9)])
def test_the_tolerance_is_where_values_become_wrong(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(len(shape))
    expected = rng.standard_normal(shape) * 10.0 ** rng.integers(-6, 6, shape[-1])
    within = expected + 0.999 * tolerance(expected) * rng.choice([-1, 1], shape)
    assert compare_tensor("y", expected, within).ok
    for index in rng.integers(0, expected.size, 20):
        beyond = within.copy()
        beyond.flat[index] = expected.flat[index] + 1.001 * tolerance(expected).flat[index]
        assert compare_tensor("y", expected, beyond).wrong == 1


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_stand_in_the_same_places(special: float) -> None:
    expected = np.float32([special, 1, 2])
    assert compare_tensor("y", expected, expected.copy()).ok
    for actual in ([0, 1, 2], [special, special, 2], [-special if special > 0 else 0, 1, 2]):
        report = compare_tensor("y", expected, np.float32(actual))
        assert report.wrong == 1
        assert report.error == math.inf


def test_infinity_does_not_widen_the_tolerance_of_its_channel() -> None:
    expected = np.float32([np.inf, 1, 2])
    assert not compare_tensor("y", expected, np.float32([np.inf, 1.01, 2])).ok


@pytest.mark.parametrize("dtype", ["int64", "uint8", "bool"])
def test_integers_and_bools_are_exact(dtype: str) -> None:
    expected = np.array([0, 1, 1, 0], dtype)
    actual = np.array([0, 1, 0, 0], dtype)
    assert compare_tensor("y", expected, expected.copy()).ok
    report = compare_tensor("y", expected, actual)
    assert (report.wrong, report.index, report.error) == (1, (2,), math.inf)


def test_half_precision_has_a_tolerance_of_its_own() -> None:
    expected = np.float16([[1.0, 2.0]])
    one_off = np.nextafter(expected, np.float16(9))
    assert compare_tensor("y", expected, one_off).ok
    assert not compare_tensor("y", expected, expected * np.float16(1.01)).ok


def test_complex_values() -> None:
    expected = np.array([1 + 1j, 2], np.complex64)
    assert compare_tensor("y", expected, expected + np.complex64(1e-5j)).ok
    assert not compare_tensor("y", expected, expected.conj()).ok


@pytest.mark.parametrize(
    ("actual", "problem"),
    [
        (np.zeros((2, 3), np.float64), "dtype float64, expected float32"),
        (np.zeros((3, 2), np.float32), "shape [3, 2], expected [2, 3]"),
    ],
)
def test_dtype_and_shape_must_be_the_same(actual: NDArray, problem: str) -> None:
    report = compare_tensor("y", np.zeros((2, 3), np.float32), actual)
    assert (report.problem, report.wrong, report.error) == (problem, 6, math.inf)


def test_missing_and_unknown_outputs() -> None:
    one = np.ones(2, np.float32)
    missing, unknown = compare({"y": one}, {"z": one})
    assert (missing.name, missing.problem) == ("y", "missing")
    assert (unknown.name, unknown.problem) == ("z", "not an output of the model")


def test_empty_outputs_are_equal() -> None:
    assert compare_tensor("y", np.zeros((0, 3), np.int64), np.zeros((0, 3), np.int64)).ok


def test_measures() -> None:
    expected = np.float32([[3, 4]])
    report = compare_tensor("y", expected, np.float32([[3, 4.5]]))
    assert report.max_abs == pytest.approx(0.5)
    assert report.max_rel == pytest.approx(0.125)
    assert report.sqnr_db == pytest.approx(10 * math.log10(25 / 0.25))
    assert (report.expected, report.actual) == ("4.0", "4.5")


def test_eight_times_the_error_of_onnx_runtime_is_a_warning() -> None:
    expected = np.ones((1, 64), np.float32)
    own, near, far = (expected + np.float32(error) for error in (1e-6, 7e-6, 9e-6))
    (quiet,) = compare({"y": expected}, {"y": near}, ort={"y": own})
    (loud,) = compare({"y": expected}, {"y": far}, ort={"y": own})
    assert quiet.ok
    assert loud.ok
    assert not quiet.warning
    assert "times that of ONNX Runtime's own" in loud.warning


@pytest.mark.parametrize(
    ("error", "own", "right"),
    [
        (3.9, 1.0, True),
        (4.1, 1.0, False),
        (1.9, 0.5, True),
        (2.1, 0.5, False),
        (1.1, 0.1, False),
        (4.1, 100.0, False),
    ],
)
def test_a_model_that_amplifies_rounding_may_do_so_within_limits(
    error: float, own: float, right: bool
) -> None:
    expected = np.ones((4, 8), np.float32)
    allowed = tolerance(expected)[0, 0]
    report = compare(
        {"y": expected},
        {"y": (expected + np.float64(error) * allowed).astype(np.float32)},
        ort={"y": (expected + np.float64(own) * allowed).astype(np.float32)},
    )[0]
    assert report.ok is right
    assert "tolerances" in report.warning


def test_one_rounding_beside_an_exact_onnx_runtime_is_no_warning() -> None:
    expected = np.ones((1, 64), np.float32)
    (report,) = compare({"y": expected}, {"y": np.nextafter(expected, 2)}, ort={"y": expected})
    assert report.ok
    assert not report.warning


def test_a_sigmoid_near_zero_is_as_exact_as_onnx_runtime_makes_it() -> None:
    model = model_of("(float[1, 4, 99] x) => (float[1, 4, 99] y, float[1, 4, 99] z) "
                     "{ s = Sigmoid(x) y = Identity(s) z = Relu(s) }")  # fmt: skip
    assert list(find_floors(model)) == ["y"]
    floor = find_floors(model)["y"]
    wanted = np.full((1, 4, 99), 1e-6, np.float32)
    for error, ok in ((0.9 * floor, True), (1.2 * floor, False)):
        actual = wanted + np.float32(error)
        assert not compare({"y": wanted}, {"y": actual})[0].ok
        assert compare({"y": wanted}, {"y": actual}, floors={"y": floor})[0].ok == ok


def test_floors_are_found_in_parts_of_an_output() -> None:
    model = model_of("(float[2] x) => (float[4] y) { s = Sigmoid(x) y = Concat<axis=0>(x, s) }")
    assert list(find_floors(model)) == ["y"]


def test_merged_reports_keep_the_worst() -> None:
    expected = np.float32([1, 2])
    good = compare_tensor("y", expected, expected)
    bad = compare_tensor("y", expected, np.float32([1, 3]))
    for merged in (good.merged(bad), bad.merged(good)):
        assert (merged.values, merged.wrong, merged.index) == (4, 1, (1,))
        assert merged.problem == "1 of 4 values are wrong"


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


MATMUL = """(float[1,8] x) => (float[1,2] y, int64[1,1] i)
    { s = Sin (x)  a, b = Split <axis = 1, num_outputs = 2> (s)  p = Mul (a, b)
      ax = Constant <value_ints = [1]> ()  q = ReduceSum (p, ax)
      y = Concat <axis = 1> (q, q)  i = ArgMax <axis = 1> (p) }"""


def test_verify_passes_and_counts_its_samples() -> None:
    model = model_of(MATMUL)
    heard: list[str] = []
    given = [{"x": np.ones((1, 8), np.float32)}]
    report = verify(Module(model), model, given=given, on_sample=heard.append)
    assert heard == ["random 0", "random 1", "zeros", "given 0"]
    assert report.ok
    assert report.samples == 4
    assert [(t.name, t.values) for t in report.tensors] == [("y", 8), ("i", 4)]
    assert "ok" in report.table()
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["ok"]


def test_a_mismatch_keeps_the_evidence(tmp_path: Path) -> None:
    model = model_of(MATMUL)

    def spoil(outputs: dict[str, NDArray]) -> None:
        outputs["y"][0, 1] += 0.25

    folder = tmp_path / "m.mismatch"
    with pytest.raises(Mismatch, match="'y': 3 of 6 values are wrong") as caught:
        verify(Module(model, spoil), model, evidence=folder)
    assert caught.value.exit_code == 7
    assert str(folder) in caught.value.hint
    assert caught.value.report.evidence == folder
    assert [t.ok for t in caught.value.report.tensors] == [False, True]
    inputs, expected, actual = (
        load_npz(folder / f"{name}.npz") for name in ("inputs", "expected", "actual")
    )
    assert np.array_equal(reference(model, inputs)["y"], expected["y"])
    assert actual["y"][0, 1] == expected["y"][0, 1] + np.float32(0.25)
    assert "the worst at [0, 1]" in (folder / "report.txt").read_text()


def test_evidence_that_cannot_be_kept_does_not_hide_the_mismatch(tmp_path: Path) -> None:
    model = model_of(MATMUL)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Mismatch) as caught:
        verify(Module(model, lambda o: o.pop("i")), model, evidence=tmp_path / "file" / "m")
    assert caught.value.hint.startswith("its data could not be kept")
    assert caught.value.report.evidence is None


def test_without_a_folder_nothing_is_written() -> None:
    model = model_of(MATMUL)
    with pytest.raises(Mismatch) as caught:
        verify(Module(model, lambda outputs: outputs.pop("i")), model)
    assert caught.value.hint == ""
    assert "'i': missing" in caught.value.what


def test_state_is_fed_to_the_reference() -> None:
    model = model_of(
        "(float[1,3] x, float[1,3] h) => (float[1,3] y, float[1,3] hn)"
        " { hn = Add (x, h)  y = Mul (hn, hn) }"
    )

    class Accumulates:
        total = np.zeros((1, 3), np.float32)

        def run(self, inputs: Mapping[str, NDArray]) -> dict[str, NDArray]:
            self.total = self.total + inputs["x"]
            return {"y": self.total * self.total}

    x, h = Tensor("x", "float32", (1, 3)), Tensor("h", "float32", (1, 3))
    given = [{"x": np.ones((1, 3), np.float32)}]
    assert verify(Accumulates(), model, specs=[x], states=[(h, "hn")], given=given).ok

    class Forgets:
        def run(self, inputs: Mapping[str, NDArray]) -> dict[str, NDArray]:
            return {"y": inputs["x"] * inputs["x"]}

    with pytest.raises(Mismatch):
        verify(Forgets(), model, specs=[x], states=[(h, "hn")], given=given)


CRASHES = """(int64[1] x) => (int64[1] y)
    { m = Constant <value_ints = [-9223372036854775808]> ()  y = Div (m, x) }"""


def test_a_sample_that_kills_onnx_runtime_is_skipped_and_said() -> None:
    model = model_of(CRASHES)
    with Reference(model) as oracle:
        with pytest.raises(EngineError, match="SIGFPE"):
            oracle.run({"x": np.int64([-1])})
        assert oracle.run({"x": np.int64([1])})[0]["y"] == np.iinfo(np.int64).min
    given = [{"x": np.int64([1])}, {"x": np.int64([-1])}]
    report = verify(Module(model), model, given=given)
    assert report.ok
    assert "zeros" in report.warnings[-2]
    assert "given 1: the process died (SIGFPE)" in report.warnings[-1]


def test_no_sample_at_all_is_an_error() -> None:
    model = model_of("(float[2] x) => (float[2] y) { y = Nonsense (x) }")
    with pytest.raises(VerifyError, match="cannot load"):
        verify(Module(model), model)
    assert not VerifyReport().ok


def test_models_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"\xff" * 99)
    with pytest.raises(ModelError, match="not an ONNX model"):
        reference(tmp_path / "m.onnx", {})
    with pytest.raises(ModelError, match="cannot be read"):
        reference(tmp_path / "absent.onnx", {})


def test_symbolic_shapes_need_specs() -> None:
    model = model_of("(float[N,2] x) => (float[N,2] y) { y = Neg (x) }")
    with pytest.raises(ModelError, match="not static"):
        verify(Module(model), model)
    assert verify(Module(model), model, specs=[Tensor("x", "float32", (3, 2))]).ok


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (Tensor("x", "int8", (2,)), "'x': int8 in the module, float32 in the model"),
        (Tensor("z", "float32", (2,)), "absent in the m"),
    ],
)
def test_inputs_of_another_model(spec: Tensor, message: str) -> None:
    model = model_of("(float[2] x) => (float[2] y) { y = Neg (x) }")
    with pytest.raises(VerifyError) as caught:
        verify(Module(model), model, specs=[spec])
    assert message in str(caught.value)


def test_a_reference_that_fails_on_every_sample_is_an_error() -> None:
    model = model_of("""(int64[1] x) => (float[n] y)
        { z = Constant <value_floats = [1.0, 2.0]> ()  five = Constant <value_ints = [5]> ()
          s = Add (x, five)  y = Reshape (z, s) }""")
    with pytest.raises(VerifyError, match="can run no sample: random 0"):
        verify(Module(model), model)


@pytest.mark.parametrize("name", ["mlperf_tiny_kws_fp32", "mlperf_tiny_kws_int8_qdq"])
def test_onnx_runtime_agrees_with_itself_on_a_real_model(name: str) -> None:
    path = SHARED / f"{name}.onnx"
    if not path.exists():
        pytest.skip(f"{path} is absent")
    dtype = "int8" if "int8" in name else "float32"
    with Reference(path) as oracle:

        class Optimised:
            def run(self, inputs: Mapping[str, NDArray]) -> Mapping[str, NDArray]:
                outputs = oracle.baseline(inputs)
                assert outputs is not None
                return outputs

        specs = [Tensor("input_1", dtype, (1, 49, 10, 1))]
        report = verify(Optimised(), path, specs=specs)
    tensor: TensorReport = report.tensors[0]
    assert report.ok
    assert tensor.ort_error is None or tensor.error == tensor.ort_error


WHOLE = "(int16[3] x, int16[3] z) => (int16[3] y) { y = Max(x, z) }"
"""ONNX Runtime has no kernel for this type."""


def test_onnx_stands_in_for_onnx_runtime(edgec: Callable[..., Any], tmp_path: Path) -> None:
    model = model_of(WHOLE)
    with pytest.raises(VerifyError, match="ONNX Runtime cannot load the model"):
        Reference(model)
    inputs = {"x": np.int16([1, -5, 7]), "z": np.int16([2, -9, 7])}
    with Reference(model, or_onnx=True) as oracle:
        assert oracle.run(inputs)[0]["y"].tolist() == [2, -5, 7]
        assert oracle.baseline(inputs) is None
    path = tmp_path / "whole.onnx"
    onnx.save(model, path)
    done = edgec("compile", path, "-o", tmp_path / "whole.edgec")
    assert done.code == 0
    assert "warning: checked against onnx's reference" in done.err


def test_no_engine_can_load_it() -> None:
    model = model_of(WHOLE)
    model.graph.node[0].domain = "nobody.knows"
    with pytest.raises(VerifyError, match="ONNX Runtime cannot load the model"):
        Reference(model, or_onnx=True)
