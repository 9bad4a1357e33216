"""The tolerance rules, each shown to pass and to fail."""

from __future__ import annotations

import math

import numpy as np
import pytest
from graphs import model_of
from numpy.typing import NDArray

from edgec.compare import compare, compare_tensor, tolerance
from edgec.floors import find_floors


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
