"""Whether two results are the same.

Floats agree where abs(a - b) <= 1e-4 abs(b) + 1e-5 max abs(b). The maximum is taken per index of
the channel axis, not over the whole output, so that a quiet channel is not hidden by a loud one.
NaN and infinities must stand in the same places. A deep model can amplify the rounding of its
sums beyond that; what ONNX Runtime's own optimisations do to its result is the measure
(`OWN_RATIO`). Half precision, and quantization of computed numbers, move results farther still:
there `Moved` results, as right as the expected ones, tell how far. Where ONNX Runtime's functions
are not as exact as their results suggest, `edgec.floors` knows. Everything else is compared
exactly, apart from elements that `edgec.choices` justifies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any

import ml_dtypes
import numpy as np

from edgec.arrays import Array, is_float

Justify = Callable[[Array, Array], Array]
"""(expected, actual) -> which elements are as good as equal."""

RTOL = 1e-4
ATOL = 1e-5
"""Of the largest magnitude in the channel."""
FEW = 4
"""Values that are too few to tell how large a channel's values are."""
OWN_RATIO = 4.0
"""Where ONNX Runtime's own optimisations move a result by more than a quarter of the tolerance, the
model amplifies rounding: then this many times their error is allowed, and said."""
MOST_TOLERANCES = 4.0
"""What is never exceeded, however far ONNX Runtime differs from itself."""
MOST_MOVED = 0.5
"""Of the largest value in the channel: an output that rounding moves farther cannot be told from a
wrong one."""
WARN_RATIO = 8.0
"""An error this many times ONNX Runtime's own is a warning."""

_FLOOR = float(np.finfo(np.float32).eps) / (RTOL + ATOL)
"""One rounding of float32 in units of the tolerance: less than that is no error to compare with."""


@dataclass(frozen=True)
class Moved:
    """A result as right as the expected one, of an output that rounding moves far.

    Errors are right up to `ratio` times the error of `result`, both at the largest and in mean
    square; there may be several, of which the one that allows most counts. Errors are in units of
    the largest magnitude in the channel, and never right beyond `MOST_MOVED`.
    """

    result: Array
    ratio: float


@dataclass(frozen=True)
class TensorReport:
    """How one output compares, over all samples seen.

    `error` is the largest error in units of its tolerance: above 1 is a failure, and infinite where
    elements differ that must be equal. `index` is where that was, `expected` and `actual` are the
    values there. `wrong` and `ties` count elements: beyond tolerance, and different but justified.
    `ort_error` is what `error` would be for ONNX Runtime with its own optimisations on. Of an
    output with `Moved` results, `share` is the largest error in parts of its channel's largest
    value, and `moved` the largest that is right. `fault` says where not even the dtype or the shape
    is right.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    values: int = 0
    wrong: int = 0
    ties: int = 0
    max_abs: float = 0.0
    max_rel: float = 0.0
    error: float = 0.0
    index: tuple[int, ...] = ()
    expected: str = ""
    actual: str = ""
    sqnr_db: float = math.inf
    ort_error: float | None = None
    share: float | None = None
    moved: float | None = None
    fault: str = ""

    @property
    def problem(self) -> str:
        """What is wrong: the fault, or how many values are; empty where the output is right."""
        wrong = f"{self.wrong} of {self.values} values are wrong" if self.wrong else ""
        worst = self.expected + self.actual
        if wrong and self.moved is not None and ("nan" in worst or "inf" in worst):
            wrong += ", some NaN or infinite that should not be, or the other way about"
        elif wrong and self.moved is not None:
            wrong += f": {self.share:.2g} of the largest, {self.moved:.2g} would be right"
        return self.fault or wrong

    @property
    def ok(self) -> bool:
        """Whether the output is right."""
        return not self.problem

    @property
    def warning(self) -> str:
        """Says so where the error is far above ONNX Runtime's own; empty otherwise."""
        if self.error > 1 and self.moved is not None:
            return (
                f"output {self.name!r}: off by {self.share:.2g} of its largest value; rounding "
                f"inside the model moves it by as much as {self.moved:.2g}"
            )
        if self.error > 1 and self.ort_error is not None:
            return (
                f"output {self.name!r}: the error is {self.error:.1f} tolerances; ONNX Runtime's "
                f"own optimisations move it by {self.ort_error:.1f}"
            )
        if self.ort_error is None or self.error <= WARN_RATIO * max(self.ort_error, _FLOOR):
            return ""
        times = self.error / max(self.ort_error, _FLOOR)
        return f"output {self.name!r}: the error is {times:.0f} times that of ONNX Runtime's own"

    def merged(self, other: TensorReport) -> TensorReport:
        """Both samples in one: counts added, the worst of each kept."""
        worst = max(self, other, key=lambda r: r.error)
        baselines = [r.ort_error for r in (self, other) if r.ort_error is not None]
        return replace(
            worst,
            values=self.values + other.values,
            wrong=self.wrong + other.wrong,
            ties=self.ties + other.ties,
            max_abs=max(self.max_abs, other.max_abs),
            max_rel=max(self.max_rel, other.max_rel),
            sqnr_db=min(self.sqnr_db, other.sqnr_db),
            ort_error=max(baselines, default=None),
            fault=self.fault or other.fault,
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON: infinities as null."""
        fields = {**asdict(self), "ok": self.ok, "problem": self.problem, "warning": self.warning}
        del fields["fault"]
        return {k: None if v in (math.inf, -math.inf) else v for k, v in fields.items()}


def tolerance(expected: Array, channel_axis: int | None = None) -> Array:
    """What each element may be off by, float64, of the shape of `expected`.

    Half precision may be off by 4 roundings.
    """
    rounding = float(ml_dtypes.finfo(expected.dtype).eps)  # type: ignore[no-untyped-call]
    wider = max(1.0, 4 * rounding / RTOL)
    magnitude = _magnitude(expected)
    finite = np.where(np.isfinite(magnitude), magnitude, 0.0)
    allowed: Array = wider * (RTOL * finite + ATOL * _scale(expected, channel_axis))
    return allowed


def _scale(expected: Array, channel_axis: int | None) -> Array:
    """The largest finite magnitude in each channel, in a shape that goes with that of `expected`.

    The channel axis is 1; the last one of matrices and of boxes or sequences (rank 3). Where an
    index of it owns fewer than `FEW` values (a row of scores, the two states of an LSTM), or copies
    of one (a transformer's tokens, all zeros), or there is none, they have no scale of their own,
    and the maximum is over the whole output.
    """
    rank = expected.ndim
    axis = channel_axis if channel_axis is not None else 1 if rank > 3 else rank - 1
    magnitude = _magnitude(expected)
    finite = np.where(np.isfinite(magnitude), magnitude, 0.0)
    others = tuple(i for i in range(rank) if i != axis % rank) if rank > 1 else None
    if others is None or finite.size < FEW * finite.shape[axis] or _copies(expected, others):
        others = None
    scale: Array = finite.max(axis=others, keepdims=True, initial=0.0)
    return scale


def _copies(values: Array, axes: tuple[int, ...]) -> bool:
    """Whether all values along `axes` are the same, but for rounding."""
    wide = _wide(values)
    first = wide[tuple(slice(1) if axis in axes else slice(None) for axis in range(wide.ndim))]
    return bool(np.all(np.abs(wide - first) <= RTOL * np.abs(first)))


def compare(
    expected: Mapping[str, Array],
    actual: Mapping[str, Array],
    *,
    ort: Mapping[str, Array] | None = None,
    justify: Mapping[str, Justify] | None = None,
    channel_axes: Mapping[str, int] | None = None,
    floors: Mapping[str, float] | None = None,
    moved: Mapping[str, Sequence[Moved]] = MappingProxyType({}),
) -> list[TensorReport]:
    """A report for every output of `expected`, in order, and one for each that is not in it.

    `ort` holds ONNX Runtime's own optimised outputs, `justify` the rules of outputs that compare
    floats to choose integers, `channel_axes` the channel axis of outputs where the usual is wrong,
    `floors` the least tolerance of outputs whose values are less exact than their size suggests,
    `moved` results as right as the expected ones.
    """
    reports = []
    for name, wanted in expected.items():
        if name not in actual:
            missing = TensorReport(name, wanted.dtype.name, wanted.shape, fault="missing")
            reports.append(replace(missing, error=math.inf))
            continue
        axis = (channel_axes or {}).get(name)
        rule = (justify or {}).get(name)
        floor = (floors or {}).get(name, 0.0)
        own = None
        if ort is not None and _inexact(wanted.dtype):
            own = compare_tensor(name, wanted, ort[name], channel_axis=axis, floor=floor).error
        report = compare_tensor(
            name,
            wanted,
            actual[name],
            justify=rule,
            channel_axis=axis,
            limit=min(max(1.0, OWN_RATIO * (own or 0.0)), MOST_TOLERANCES),
            floor=floor,
            moved=moved.get(name, ()),
        )
        reports.append(replace(report, ort_error=own))
    for name in actual.keys() - expected.keys():
        array = actual[name]
        unknown = TensorReport(name, array.dtype.name, array.shape, error=math.inf)
        reports.append(replace(unknown, fault="not an output of the model"))
    return reports


def compare_tensor(
    name: str,
    expected: Array,
    actual: Array,
    *,
    justify: Justify | None = None,
    channel_axis: int | None = None,
    limit: float = 1.0,
    floor: float = 0.0,
    moved: Sequence[Moved] = (),
) -> TensorReport:
    """Compare one output of one sample; errors up to `limit` tolerances are no fault, nor are those
    that `moved` results allow.

    No tolerance is less than `floor`.
    """
    report = TensorReport(name, expected.dtype.name, expected.shape, expected.size)
    for what, wanted, given in (
        ("dtype", expected.dtype, actual.dtype),
        ("shape", list(expected.shape), list(actual.shape)),
    ):
        if wanted != given:
            fault = f"{what} {given}, expected {wanted}"
            return replace(report, fault=fault, wrong=expected.size, error=math.inf)
    if expected.size == 0:
        return report
    error, difference = _errors(expected, actual, channel_axis, floor)
    different = error > limit
    if moved and _inexact(expected.dtype):
        share, allowed, right = _as_moved(expected, actual, moved, channel_axis)
        report = replace(report, share=share, moved=allowed)
        if right:
            different &= np.isinf(error)
    ties = np.zeros_like(different)
    if justify is not None and different.any():
        ties = different & justify(expected, actual)
        error = np.where(ties, 0.0, error)
    wrong = int((different & ~ties).sum())
    index = np.unravel_index(int(error.argmax()), error.shape)
    magnitude = _magnitude(expected)
    relative = np.divide(difference, magnitude, out=np.zeros_like(difference), where=magnitude > 0)
    return replace(
        report,
        wrong=wrong,
        ties=int(ties.sum()),
        max_abs=float(difference.max()),
        max_rel=float(np.nan_to_num(relative, posinf=0.0).max()),
        error=float(error[index]),
        index=tuple(int(i) for i in index),
        expected=str(expected[index]),
        actual=str(actual[index]),
        sqnr_db=_sqnr(magnitude, difference),
    )


def _errors(
    expected: Array, actual: Array, channel_axis: int | None, floor: float
) -> tuple[Array, Array]:
    """(error in units of the tolerance, absolute difference where both are finite)."""
    if not _inexact(expected.dtype):
        different = expected != actual
        difference = np.abs(expected.astype(np.float64) - actual.astype(np.float64))
        return np.where(different, math.inf, 0.0), difference
    wanted, given = _wide(expected), _wide(actual)
    finite = np.isfinite(wanted) & np.isfinite(given)
    same = (wanted == given) | (np.isnan(wanted) & np.isnan(given))
    difference = np.abs(np.where(finite, given, 0) - np.where(finite, wanted, 0))
    allowed = np.maximum(tolerance(expected, channel_axis), floor)
    error = np.full(expected.shape, math.inf)
    np.divide(difference, allowed, out=error, where=finite & (allowed > 0))
    return np.where(same, 0.0, error), difference


def _as_moved(
    expected: Array, actual: Array, moved: Sequence[Moved], channel_axis: int | None
) -> tuple[float, float, bool]:
    """The largest error, in parts of the channel's largest value, the largest that is right, and
    whether that and the mean square are."""
    scale = _scale(expected, channel_axis)

    def measured(given: Array) -> Array:
        difference = np.abs(_wide(given) - _wide(expected))
        parts = np.divide(difference, scale, out=np.zeros_like(difference), where=scale > 0)
        finite = parts[np.isfinite(parts)]
        return np.array([finite.max(initial=0.0), math.sqrt(np.square(finite).sum())])

    limits = np.max([each.ratio * measured(each.result) for each in moved], axis=0)
    limits[0] = min(limits[0], MOST_MOVED)
    errors = measured(actual)
    return float(errors[0]), float(limits[0]), bool((errors <= limits).all())


def _inexact(dtype: np.dtype[Any]) -> bool:
    return dtype.kind == "c" or is_float(dtype)


def _wide(array: Array) -> Array:
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def _magnitude(array: Array) -> Array:
    magnitude: Array = np.abs(_wide(array))
    return magnitude


def _sqnr(magnitude: Array, difference: Array) -> float:
    """Signal to quantization noise ratio, 10 log10(sum b^2 / sum (a - b)^2), of finite values."""
    finite = np.isfinite(magnitude)
    signal, noise = (float(np.square(v[finite]).sum()) for v in (magnitude, difference))
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf
