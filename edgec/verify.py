"""Verification: a module's outputs against those of ONNX Runtime with its optimisations off."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import onnx

from edgec.arrays import Array, save_npz
from edgec.compare import TensorReport, compare
from edgec.data import Sample, TensorLike, index_limits, open_data
from edgec.errors import DataError, ModelError, VerifyError
from edgec.packing import typed
from edgec.peers import EngineError
from edgec.program import Tensor
from edgec.report import table
from edgec.standard import Standard

RANDOM_SAMPLES = 2


class Runnable(Protocol):
    """A compiled module, or anything else that maps inputs to outputs by name."""

    def run(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]: ...


@dataclass
class VerifyReport:
    """What was compared, and how it went.

    `tensors` has the worst of each output over all `samples`; `skipped` says which samples the
    reference itself could not run, and why; `oracle` says so where that was not ONNX Runtime;
    `evidence` is the folder kept after a mismatch.
    """

    tensors: list[TensorReport] = field(default_factory=list)
    samples: int = 0
    skipped: list[str] = field(default_factory=list)
    oracle: str = ""
    evidence: Path | None = None

    @property
    def ok(self) -> bool:
        """Whether every output of every sample is right."""
        return self.samples > 0 and all(tensor.ok for tensor in self.tensors)

    @property
    def warnings(self) -> list[str]:
        """Lines the user should see although the outputs are right."""
        found = [tensor.warning for tensor in self.tensors if tensor.warning]
        found += [f"not compared: {text}" for text in self.skipped]
        return found + ([self.oracle] if self.oracle else [])

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "ok": self.ok,
            "samples": self.samples,
            "outputs": [tensor.to_dict() for tensor in self.tensors],
            "warnings": self.warnings,
            "evidence": str(self.evidence) if self.evidence else None,
        }

    def table(self) -> str:
        """One line per output."""
        header = (
            "output",
            "type",
            "max abs",
            "max rel",
            "error/tolerance",
            "ORT's own",
            "SQNR",
            "",
        )
        rows = []
        for t in self.tensors:
            own = "" if t.ort_error is None else f"{t.ort_error:.3f}"
            verdict = t.problem or "ok" + (f", {t.ties} ties" if t.ties else "")
            sqnr = "exact" if t.sqnr_db == math.inf else f"{t.sqnr_db:.0f} dB"
            kind = f"{t.dtype}{list(t.shape)}".replace(" ", "")
            numbers = (f"{t.max_abs:.2e}", f"{t.max_rel:.2e}", f"{t.error:.3f}", own, sqnr)
            rows.append((t.name, kind, *numbers, verdict))
        return table(header, rows)


class Mismatch(VerifyError):
    """The module computes something else than the model; `report` has the details."""

    def __init__(self, report: VerifyReport, hint: str) -> None:
        wrong = [tensor for tensor in report.tensors if not tensor.ok]
        super().__init__(
            "the outputs differ from ONNX Runtime's: "
            + "; ".join(f"{tensor.name!r}: {tensor.problem}" for tensor in wrong),
            hint=hint,
        )
        self.report = report


def static_inputs(model: onnx.ModelProto) -> list[Tensor]:
    """The inputs of `model` that no initializer fills. `ModelError` where a shape is not known."""
    filled = {tensor.name for tensor in model.graph.initializer}
    found = []
    for value in model.graph.input:
        if value.name in filled:
            continue
        tensor = value.type.tensor_type
        dims = tensor.shape.dim
        if not tensor.HasField("shape") or not all(dim.HasField("dim_value") for dim in dims):
            raise ModelError("its shape is not static", where=f"input {value.name!r}")
        shape = tuple(dim.dim_value for dim in dims)
        found.append(Tensor(value.name, _dtype_name(tensor.elem_type), shape))
    return found


def verify(
    module: Runnable,
    model: onnx.ModelProto | str | os.PathLike[str],
    *,
    given: Iterable[Sample] = (),
    specs: Sequence[TensorLike] | None = None,
    states: Sequence[tuple[TensorLike, str]] = (),
    channel_axes: Mapping[str, int] | None = None,
    evidence: Path | None = None,
    seed: int = 0,
    tf32: bool = False,
    on_sample: Callable[[str], None] = lambda name: None,
) -> VerifyReport:
    """Compare `module` with `model` on random samples, on zeros and on the `given` ones.

    `specs` are the module's inputs (of the model where they are not given: its shapes must then be
    static). `states` pairs input and output name of recurrent state that `module`, newly created or
    reset, keeps to itself: the reference is fed its own from sample to sample, zeros at first. With
    `tf32` the module multiplies in TF32, and is allowed what that does.

    Raises `Mismatch`, exit code 7, where an output is wrong, after writing the first wrong sample
    to the folder `evidence`: inputs.npz, expected.npz, actual.npz, report.txt. Raises `VerifyError`
    where the inputs are not the model's, and where no engine can run any of the samples.
    `on_sample` hears of each before it runs.
    """
    report = VerifyReport()
    failed: tuple[Sample, Sample, Sample] | None = None
    with Standard(model, tf32=tf32) as oracle:
        report.oracle = oracle.warning
        if specs is None:
            specs = static_inputs(oracle.model)
        _check_inputs(oracle.model, [*specs, *(tensor for tensor, _ in states)])
        state = next(iter(open_data([tensor for tensor, _ in states], ["zeros"])))
        for name, sample in _samples(specs, index_limits(oracle.model), seed, given):
            on_sample(name)
            try:
                expected, rules = oracle.run({**sample, **state})
            except EngineError as error:
                report.skipped.append(f"{name}: {error.what}")
                continue
            own = oracle.baseline({**sample, **state})
            moved = oracle.moved({**sample, **state})
            actual = {
                name: typed(array, expected[name].dtype.name, expected[name].shape)
                if name in expected
                else array
                for name, array in module.run(sample).items()
            }
            state = {tensor.name: expected[output] for tensor, output in states}
            hidden = {output for _, output in states} - actual.keys()
            visible = {key: value for key, value in expected.items() if key not in hidden}
            found = compare(
                visible,
                actual,
                ort=own,
                justify=rules,
                channel_axes=channel_axes,
                floors=oracle.floors,
                moved=moved,
            )
            report.samples += 1
            report.tensors = _merged(report.tensors, found)
            if failed is None and not all(tensor.ok for tensor in found):
                failed = (sample, visible, {key: value.copy() for key, value in actual.items()})
    if report.samples == 0:
        raise VerifyError("ONNX Runtime can run no sample: " + report.skipped[0])
    if failed is not None:
        raise Mismatch(report, _keep(evidence, failed, report) if evidence is not None else "")
    return report


def _check_inputs(model: onnx.ModelProto, specs: Sequence[TensorLike]) -> None:
    """`VerifyError` unless `specs` have the names and dtypes of the inputs of `model`."""
    filled = {tensor.name for tensor in model.graph.initializer}
    wanted = {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
    given = {spec.name: spec.dtype for spec in specs}
    for name in given.keys() | (wanted.keys() - filled):
        dtype = _dtype_name(wanted[name]) if name in wanted else "absent"
        if dtype != given.get(name, "absent"):
            raise VerifyError(
                f"{given.get(name, 'absent')} in the module, {dtype} in the model",
                where=f"input {name!r}",
                hint="is this the model that the module was compiled from?",
            )


def _dtype_name(elem_type: int) -> str:
    return str(onnx.helper.tensor_dtype_to_np_dtype(elem_type).name)


def _samples(
    specs: Sequence[TensorLike], limits: Mapping[str, int], seed: int, given: Iterable[Sample]
) -> Iterator[tuple[str, Sample]]:
    noise = open_data(specs, ["random"], count=RANDOM_SAMPLES, seed=seed, limits=limits)
    zeros = open_data(specs, ["zeros"])
    yield from ((f"random {i}", sample) for i, sample in enumerate(noise))
    yield from (("zeros", sample) for sample in zeros)
    yield from ((f"given {i}", sample) for i, sample in zip(itertools.count(), given))


def _merged(before: list[TensorReport], now: list[TensorReport]) -> list[TensorReport]:
    merged = {tensor.name: tensor for tensor in before}
    for tensor in now:
        earlier = merged.get(tensor.name)
        merged[tensor.name] = earlier.merged(tensor) if earlier else tensor
    return list(merged.values())


def _keep(folder: Path, failed: tuple[Sample, Sample, Sample], report: VerifyReport) -> str:
    """Write the evidence of a mismatch; returns a line that says where it is, or why it is not."""
    lines = [report.table(), ""]
    for tensor in report.tensors:
        if not tensor.ok:
            at = f" at {list(tensor.index)}: {tensor.actual}, expected {tensor.expected}"
            lines.append(f"{tensor.name}: {tensor.problem}; the worst{at}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, arrays in zip(("inputs", "expected", "actual"), failed, strict=True):
            save_npz(folder / f"{name}.npz", arrays)
        (folder / "report.txt").write_text("\n".join([*lines, *report.warnings]) + "\n")
    except (OSError, DataError) as error:
        return f"its data could not be kept: {error}"
    report.evidence = folder
    return f"inputs, expected and actual outputs are in {folder}"
