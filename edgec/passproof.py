"""Proof that a pass keeps the results: ONNX Runtime runs the model before and after it.

Samples are random, zeros, large (a thousand times standard normal), with NaN and infinities strewn
in, and at the limits of the type. A pass that is `exact` must give the same bits on all of them,
NaN for NaN. Any other gives the same within tolerance on all but the last, whose sums overflow in
another order; and but those that are not finite where the model has a recurrent layer, in which
ONNX Runtime makes numbers of NaN and infinities. The tolerance is `MOST_TOLERANCES` of
`edgec.compare`, or more where the model before the pass amplifies rounding: `OWN_RATIO` times what
ONNX Runtime's own optimisations change in it. Of a pass that computes in a narrower type,
`edgec.narrowproof` knows what may be expected; of one that is `quantized`, whose ranges fit data
and not these samples, that outputs keep their type and shape, and stay finite on ordinary samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx

from edgec.arrays import Array, is_float
from edgec.compare import (
    MOST_TOLERANCES,
    OWN_RATIO,
    Justify,
    TensorReport,
    compare_tensor,
)
from edgec.data import Sample, index_limits, open_data
from edgec.errors import VerifyError
from edgec.graph import Graph
from edgec.limits import graphs
from edgec.narrowproof import NARROW, ORDINARY, probed
from edgec.narrowproof import complaint as narrow_complaint
from edgec.peers import EngineError
from edgec.program import Tensor
from edgec.reference import Reference
from edgec.rewrite import AnyPass, Numerics
from edgec.tensors import numpy_dtype

SYMBOLIC_SIZE = 2
"""What a dimension that has no size is run with."""

_RANDOM = frozenset(
    [
        *("Bernoulli", "Multinomial"),
        *("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"),
    ]
)
_RECURRENT = frozenset(("GRU", "LSTM", "RNN"))
_STREWN = (np.nan, np.inf, -np.inf)


@dataclass(frozen=True)
class Outcome:
    """What ONNX Runtime made of one sample; `rules` say which other choices are as good."""

    name: str
    inputs: Sample
    outputs: Sample
    rules: dict[str, Justify]


@dataclass(frozen=True)
class Complaint:
    """How a changed model is wrong, and on which sample; `actual` is empty where it did not run."""

    text: str
    expected: Outcome
    actual: Sample


class PassProof:
    """The driver's `verify` hook.

    `reproducers` is the folder that receives, for each pass that was wrong, the least part of the
    model that shows it, the inputs, both outputs, and the command that shows it again, in which
    `arguments` name the passes that are not in the table.
    """

    def __init__(
        self,
        reproducers: Path | None = None,
        arguments: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.reproducers = reproducers
        self.arguments = arguments
        self._before: list[Outcome] | None = None

    def __call__(self, before: Graph, after: Graph, rewriter: AnyPass) -> str | None:
        """What is wrong with `after`, or None. Raises VerifyError where `before` cannot be run."""
        model = before.to_source_opset()
        if self._before is None:
            self._before = outcomes(model, samples(before))
        complaint, outputs = check(
            after.to_source_opset(), self._before, rewriter.numerics, before=model
        )
        if complaint is None:
            self._before = outputs
            return None
        if self.reproducers is None:
            return complaint.text
        from edgec.reproducer import smallest, write_reproducer

        least, shown = smallest(before, rewriter, self._before, complaint)
        command = ["edgec", "optimize", "before.onnx", "-o", "after.onnx", "--verify", "each"]
        command += choosing(rewriter.name, self.arguments)
        folder = write_reproducer(self.reproducers / rewriter.name, least, shown, command)
        return f"{complaint.text}; see {folder}"


def choosing(name: str, arguments: Mapping[str, Sequence[str]] | None = None) -> list[str]:
    """The words of a command line that make the pass `name` the only one that runs."""
    named = (arguments or {}).get(name)
    return ["--passes", name] if named is None else ["--passes", "", *named]


def outcomes(model: onnx.ModelProto, given: Mapping[str, Sample]) -> list[Outcome]:
    """What ONNX Runtime, optimisations off, makes of those samples that it can run.

    Raises VerifyError where it can run none.
    """
    found = []
    why = "there is no sample"
    with Reference(model) as engine:
        for name, inputs in given.items():
            try:
                found.append(Outcome(name, inputs, *engine.run(inputs)))
            except EngineError as error:
                why = error.what
    if not found:
        raise VerifyError(f"ONNX Runtime cannot run the model: {why}")
    return found


def check(
    model: onnx.ModelProto, expected: list[Outcome], numerics: Numerics, *, before: onnx.ModelProto
) -> tuple[Complaint | None, list[Outcome]]:
    """The first complaint about `model`, which must give what is `expected` of the model `before`,
    and its outcomes."""
    found: list[Outcome] = []
    narrow = NARROW.get(numerics)
    try:
        engine = Reference(model if narrow is None else probed(model, narrow))
    except VerifyError as error:
        return Complaint(error.what, expected[0], {}), found
    with engine:
        for wanted in expected:
            try:
                outputs, rules = engine.run(_as_declared(wanted.inputs, model))
            except EngineError as error:
                text = f"ONNX Runtime cannot run the model any more: {error.what}"
                return Complaint(text, wanted, {}), found
            if narrow is None:
                wrong = _difference(wanted, outputs, numerics, before)
            else:
                wrong = narrow_complaint(wanted.name, wanted.outputs, outputs, narrow)
                outputs = {name: outputs[name] for name in wanted.outputs}
            found.append(Outcome(wanted.name, wanted.inputs, outputs, rules))
            if wrong:
                return Complaint(f"{wrong}, sample '{wanted.name}'", wanted, outputs), found
    return None, found


def _difference(
    wanted: Outcome, outputs: Sample, numerics: Numerics, before: onnx.ModelProto
) -> str | None:
    if numerics == "quantized":
        return _changed_form(wanted, outputs)
    if numerics == "exact":
        names = [name for name, a in wanted.outputs.items() if not _equal(a, outputs[name])]
        return f"output '{names[0]}' is not the same bit by bit" if names else None
    if wanted.name == "limits" or (wanted.name == "not finite" and _has_recurrent(before)):
        return None
    if not _wrong(wanted, outputs, {}):
        return None
    with Reference(before) as engine:
        own = engine.baseline(wanted.inputs) or {}
    wrong = _wrong(wanted, outputs, own)
    return f"output '{wrong.name}': {wrong.problem}" if wrong else None


def _changed_form(wanted: Outcome, outputs: Sample) -> str | None:
    """How outputs that are quantized differ in what does not depend on the ranges of the data."""
    for name, expected in wanted.outputs.items():
        given = outputs[name]
        if given.shape != expected.shape or given.dtype != expected.dtype:
            return f"output '{name}' is {given.dtype}{list(given.shape)} now"
        if wanted.name in ORDINARY and not np.isfinite(given[np.isfinite(expected)]).all():
            return f"output '{name}' is not finite any more"
    return None


def _has_recurrent(model: onnx.ModelProto) -> bool:
    return any(node.op_type in _RECURRENT for g in graphs(model.graph) for node in g.node)


def _as_declared(inputs: Sample, model: onnx.ModelProto) -> Sample:
    """`inputs` in the types of the inputs of `model`, which a pass may have changed."""
    types = {i.name: numpy_dtype(i.type.tensor_type.elem_type) for i in model.graph.input}
    with np.errstate(over="ignore"):
        return {name: array.astype(types[name], copy=False) for name, array in inputs.items()}


def _wrong(wanted: Outcome, outputs: Sample, own: Sample) -> TensorReport | None:
    """The first output beyond tolerance; `own` are those of ONNX Runtime with optimisations."""
    for name, expected in wanted.outputs.items():
        limit = MOST_TOLERANCES
        if name in own:
            moved = compare_tensor(name, expected, own[name]).error
            limit = max(limit, OWN_RATIO * moved if math.isfinite(moved) else 0.0)
        rule = wanted.rules.get(name)
        report = compare_tensor(name, expected, outputs[name], justify=rule, limit=limit)
        if not report.ok:
            return report
    return None


def _equal(a: Array, b: Array) -> bool:
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.dtype.kind == "O":
        return bool(np.array_equal(a, b))
    same = np.asarray(a == b)
    if is_float(a.dtype):
        same = (same & (np.signbit(a) == np.signbit(b))) | (np.isnan(a) & np.isnan(b))
    return bool(same.all())


def samples(graph: Graph) -> dict[str, Sample]:
    """Inputs for `graph` by name of the sample, the same every time.

    Raises VerifyError where an input is no tensor of numbers, and where the results are random.
    """
    for node in graph.nodes():
        if node.op in _RANDOM and not node.domain and "seed" not in node.attrs:
            raise VerifyError("it draws random numbers without a seed", where=str(node))
    specs = []
    for tensor in graph.gs.inputs:
        if tensor.dtype is None or tensor.shape is None or tensor.dtype.kind in "OUS":
            raise VerifyError("no data can be made for it", where=f"input '{tensor.name}'")
        shape = tuple(d if isinstance(d, int) else SYMBOLIC_SIZE for d in tensor.shape)
        specs.append(Tensor(tensor.name, tensor.dtype.name, shape))
    limits = index_limits(graph.to_onnx())
    rng = np.random.default_rng(5)
    first, second = open_data(specs, ["random"], count=2, limits=limits)
    return {
        "random": first,
        "random again": second,
        "zeros": next(iter(open_data(specs, ["zeros"]))),
        "large": {name: _large(a) for name, a in first.items()},
        "not finite": {name: _strewn(a, rng) for name, a in first.items()},
        "limits": {name: _at_limits(a) for name, a in first.items()},
    }


def _large(array: Array) -> Array:
    if not is_float(array.dtype):
        return array
    return np.asarray(array.astype(np.float32) * 1e3).astype(array.dtype)


def _strewn(array: Array, rng: np.random.Generator) -> Array:
    if not is_float(array.dtype) or not array.size:
        return array
    strewn = array.copy()
    places = rng.choice(array.size, min(len(_STREWN), array.size), replace=False)
    strewn.reshape(-1)[places] = np.array(_STREWN[: len(places)], array.dtype)
    return strewn


def _at_limits(array: Array) -> Array:
    if not is_float(array.dtype):
        return array
    ends = list(_ends(array.dtype))
    return np.resize(np.array(ends, array.dtype), array.shape)


def _ends(dtype: np.dtype[np.generic]) -> Iterator[float]:
    info = ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]
    for value in (info.max, info.smallest_subnormal, info.tiny, 0.0, 1.0):
        yield from (float(value), -float(value))
