"""From a model and data to a quantized model: the whole way on one page.

load -> optimise -> find units -> calibrate -> speed gate -> plan -> refine -> insert -> write
         (equalise, smooth)                                  (until the accuracy budget holds)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgec.arrays import Array
from edgec.cache import Cache
from edgec.data import Sample, index_limits
from edgec.errors import ModelError, UsageError
from edgec.external import save_model
from edgec.graph import Graph
from edgec.inspect import describe
from edgec.optimizer import ModelSource, Pipeline
from edgec.quantize.border import byte_ranges, integer_border
from edgec.quantize.budget import Kept, Metric
from edgec.quantize.calibrate import FEW_SAMPLES, input_specs
from edgec.quantize.calibrators import CALIBRATORS, WITH_HISTOGRAM, range_of
from edgec.quantize.formulas import grid
from edgec.quantize.gate import MEASURED, Verdict
from edgec.quantize.maker import LEAST_OPSET, Maker, WeightMaker
from edgec.quantize.measured import statistics
from edgec.quantize.overrides import Overrides
from edgec.quantize.plan import Plan, Ranges, structure
from edgec.quantize.profiles import Profile, resolve
from edgec.quantize.reader import CalibrationData
from edgec.quantize.recover.choose import choose
from edgec.quantize.recover.recovery import Recovery
from edgec.quantize.schemes import Scheme, scheme_of
from edgec.quantize.speed import gate, gated, target_of
from edgec.quantize.units import find_units
from edgec.quantize.within import within
from edgec.quantize.work import macs
from edgec.rewrite import optimize

_FUSES_PRODUCTS = ("fuse-attention",)
"""Passes that hide products in operators that no integer kernel computes."""

OnEvent = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class QuantizeOptions:
    """How to quantize.

    Attributes:
        scheme: bits of weights and activations, one of `edgec.quantize.schemes`.
        formula: of weights, where the scheme is of weights alone; see `edgec.quantize.weights`.
        calibrator: what range of an activation is held, one of `edgec.quantize.calibrators`.
        symmetric: whether zero points of activations are 0; None as the profile says.
        per_channel: whether each channel of a weight has its own scale.
        io_dtype: "float", or "int8" or "uint8" for inputs and outputs that are quantized outside.
        overrides: ranges and layers that the user decides.
        profile: name of a profile, or of a target that has one.
        exclude: operators and names of nodes that stay in floats.
        normalize: "NAME=MEAN,STD" for 8-bit data of a float input, as `edgec.data` takes it.
        samples: at most so many are calibrated with; None for all.
        shapes: whole shapes by input name.
        dims: sizes by symbolic dimension; they are fixed in the result.
        recovery: what is done so that it costs less accuracy; None for what serves the model best
            of `edgec.quantize.recover.choose`.
        max_drop: how much worse than the float model the result may be, by `metric`, or without
            one in its outputs; layers are raised on a ladder until that holds. None for any.
        gate: what leaves layers in floats that are no faster in integers on the target that
            `profile` names: "measure", "model", "off", or "auto" for the best there is.
        metric: from a model as a function to a number, more is better.
        trusted: run ONNX's native code in this process, without the helper that catches crashes.
    """

    scheme: str = "w8a8"
    formula: str = "linear"
    calibrator: str = "minmax"
    symmetric: bool | None = None
    per_channel: bool = True
    io_dtype: str = "float"
    overrides: Overrides = field(default_factory=Overrides)
    profile: str = "portable"
    exclude: tuple[str, ...] = ()
    normalize: tuple[str, ...] = ()
    samples: int | None = None
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    dims: Mapping[str, int] = field(default_factory=dict)
    recovery: Recovery | None = field(default_factory=Recovery)
    max_drop: float | None = None
    metric: Metric | None = None
    gate: str = "off"
    trusted: bool = False


@dataclass(frozen=True)
class Quantized:
    """A quantized model: `model` is ONNX, `graph` the float one that the `plan` was made for.

    `kept` says how an accuracy budget was kept, where there was one, `verdict` what the speed gate
    decided.
    """

    model: onnx.ModelProto
    graph: Graph
    plan: Plan
    scheme: Scheme
    samples: int
    notes: Sequence[str]
    kept: Kept | None = None
    verdict: Verdict | None = None

    @property
    def share(self) -> tuple[int, int] | None:
        """Multiply-adds of integers and all of them, for a batch of 1. None where nothing is
        calibrated, or their number depends on a size that is not known."""
        total = describe(self.graph.to_onnx())["macs"] if self.scheme.calibrated else None
        if total is None:
            return None
        units = find_units(self.graph, resolve("portable"))[0]
        inside = (u for u in units if u.kind == "product" and u.name in self.plan.units)
        return sum(macs(unit) for unit in inside), int(total)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model, atomically; see `edgec.external.save_model`."""
        copy = onnx.ModelProto()
        copy.CopyFrom(self.model)
        save_model(copy, Path(path), external=self.graph.external_data)


def quantize_model(
    source: ModelSource,
    data: Sequence[str] | Mapping[str, Array],
    options: QuantizeOptions | None = None,
    on_event: OnEvent = lambda event: None,
) -> Quantized:
    """`source` with its products and what lies between them in 8-bit integers.

    `data` are sources as `edgec.quantize.reader` takes them, or arrays of samples by input name.

    Raises:
        EdgecError: what went wrong, by stage; see `edgec.errors`.
    """
    options = options or QuantizeOptions()
    scheme, profile = scheme_of(options.scheme), profile_of(options)
    exclude = (*options.exclude, *options.overrides.floats)
    notes: list[str] = []
    graph = prepare(source, options, notes)
    check_excluded(graph, exclude)
    options.overrides.check(graph)
    if not scheme.calibrated:
        return _weights_alone(graph, scheme, profile, data, options, notes, on_event)
    if options.formula != "linear":
        raise UsageError(f"{scheme.name} has no {options.formula} weights", where="--formula")
    samples = _samples(graph, data, options, notes)
    recovery = options.recovery or _chosen(graph, profile, samples, options, notes, on_event)
    maker, count = _calibrated(graph, profile, samples, recovery, options, notes, on_event)
    verdict = gate(maker, options.profile, options.gate, notes, on_event)
    if verdict is not None:
        maker = gated(maker, verdict)
    kept = None
    if options.max_drop is None:
        plan, model = maker.model()
    else:
        times = verdict.times if verdict and verdict.times.origin == MEASURED else None
        target = target_of(options.profile)
        plan, kept = within(maker, options.max_drop, options.metric, target, times, on_event)
        model = kept.model
    if verdict is not None:
        plan.left.update(verdict.reasons)
        notes += [f"'{name}' stays in floats; {why}" for name, why in verdict.reasons.items()]
    if not plan.units:
        notes.append("nothing of the model is worth quantizing")
    if options.io_dtype != "float":
        notes += _border(model, graph, plan, maker.ranges, options.io_dtype)
    return Quantized(model, graph, plan, scheme, count, [*notes, *plan.notes], kept, verdict)


def _calibrated(
    graph: Graph,
    profile: Profile,
    samples: Iterable[Sample],
    recovery: Recovery,
    options: QuantizeOptions,
    notes: list[str],
    on_event: OnEvent,
) -> tuple[Maker, int]:
    """What makes quantized models of `graph`, which is changed, and of how many samples."""
    recovery.before(graph, samples)
    ranges, count = measure(graph, profile, samples, options, notes, on_event)
    exclude = (*options.exclude, *options.overrides.floats)
    return Maker(graph, profile, ranges, samples, exclude, recovery), count


def _chosen(
    graph: Graph,
    profile: Profile,
    samples: Iterable[Sample],
    options: QuantizeOptions,
    notes: list[str],
    on_event: OnEvent,
) -> Recovery:
    def quantize(twin: Graph, recovery: Recovery, half: Iterable[Sample]) -> onnx.ModelProto:
        return _calibrated(twin, profile, half, recovery, options, [], on_event)[0].model()[1]

    recovery, why = choose(graph, samples, quantize)
    notes += [why] if why else []
    return recovery


def profile_of(options: QuantizeOptions) -> Profile:
    """The profile that `options` name, changed as they say."""
    if options.calibrator not in CALIBRATORS:
        known = ", ".join(CALIBRATORS)
        raise UsageError(f"there is no calibrator '{options.calibrator}'", hint=f"it is: {known}")
    profile = replace(resolve(options.profile), per_channel=options.per_channel)
    if options.symmetric:
        profile = replace(profile, symmetric=True, activations="int8")
    elif options.symmetric is False:
        profile = replace(profile, symmetric=False)
    if options.io_dtype not in ("float", "int8", "uint8"):
        raise UsageError(f"there is no border of {options.io_dtype}", where="--io-dtype")
    return profile if options.io_dtype == "float" else replace(profile, inputs=options.io_dtype)


def _check_uncalibrated(options: QuantizeOptions) -> None:
    """Raises UsageError for an option that only calibrated schemes have."""
    given = {
        "--equalize, --smooth, --rounding or --bias-correction": options.recovery
        not in (None, Recovery()),
        "--io-dtype": options.io_dtype != "float",
    }
    for name, used in given.items():
        if used:
            raise UsageError(f"{options.scheme} is not calibrated: w8a8 alone has it", where=name)


def _samples(
    graph: Graph,
    data: Sequence[str] | Mapping[str, Array],
    options: QuantizeOptions,
    notes: list[str],
) -> CalibrationData:
    limits = index_limits(graph.to_onnx())
    return CalibrationData(
        input_specs(graph), data, options.normalize, options.samples, limits, notes.append
    )


def _weights_alone(
    graph: Graph,
    scheme: Scheme,
    profile: Profile,
    data: Sequence[str] | Mapping[str, Array],
    options: QuantizeOptions,
    notes: list[str],
    on_event: OnEvent,
) -> Quantized:
    """A scheme that needs no calibration; samples only to keep an accuracy budget."""
    _check_uncalibrated(options)
    exclude = (*options.exclude, *options.overrides.floats)
    if options.max_drop is None:
        maker = WeightMaker(graph, profile, scheme.name, options.formula, (), exclude)
        plan, model = maker.model()
        return Quantized(model, graph, plan, scheme, 0, notes)
    samples = _samples(graph, data, options, notes)
    maker = WeightMaker(graph, profile, scheme.name, options.formula, samples, exclude)
    target = target_of(options.profile)
    plan, kept = within(maker, options.max_drop, options.metric, target, None, on_event)
    return Quantized(kept.model, graph, plan, scheme, 0, notes, kept)


def prepare(source: ModelSource, options: QuantizeOptions, notes: list[str]) -> Graph:
    """The optimised float graph. Raises ModelError where the model is quantized already."""
    pipeline = Pipeline(
        disable=_FUSES_PRODUCTS,
        shapes=options.shapes,
        dims=options.dims,
        trusted=options.trusted,
    )
    graph = pipeline.load(source, notes)
    graph.opset_limit = min(max(graph.opset_limit, LEAST_OPSET), graph.opset)
    optimize(graph, pipeline.chosen())
    for node in graph.nodes():
        if node.op == "QuantizeLinear" or node.op.startswith("QLinear"):
            raise ModelError("the model is quantized already", where=str(node))
    return graph


def measure(
    graph: Graph,
    profile: Profile,
    samples: Iterable[Sample],
    options: QuantizeOptions,
    notes: list[str],
    on_event: OnEvent,
) -> tuple[Ranges, int]:
    """The ranges of what could be quantized, by name, and from how many samples they are."""
    wanted = dict.fromkeys(structure(graph, profile, options.exclude).tensors())
    if options.io_dtype != "float":
        wanted |= dict.fromkeys(t for t in graph.gs.outputs if t.dtype == np.float32)
    found, count, zeros = statistics(
        graph,
        list(wanted),
        samples,
        Cache.default(),
        histograms=options.calibrator in WITH_HISTOGRAM,
        on_sample=lambda done: on_event(
            {"event": "stage", "stage": f"sample {done}", "state": "start"}
        ),
    )
    if count < FEW_SAMPLES:
        notes.append(
            f"calibrated with {count} sample{'s'[: count != 1]} only; ranges may be too narrow"
        )
    for name, places in zeros.items():
        channels = ", ".join(map(str, places[:8])) + ("..." if len(places) > 8 else "")
        notes.append(
            f"channels of input '{name}' are zero on all samples ({channels}); their range is "
            "taken to be that of the others"
        )
    ranges = {name: range_of(options.calibrator, each, profile) for name, each in found.items()}
    if options.io_dtype != "float":
        ranges |= byte_ranges(options.normalize, ranges)
    return {**ranges, **options.overrides.ranges}, count


def _border(
    model: onnx.ModelProto, graph: Graph, plan: Plan, ranges: Ranges, dtype: str
) -> list[str]:
    """Make the inputs and outputs of `model` integers; what was done, and what not."""
    units = find_units(graph, resolve("portable"))[0]
    made = {t for unit in units if unit.name in plan.units for t in unit.outputs}
    grids = {
        t.name: grid(*ranges[t.name], dtype, symmetric=dtype == "int8")
        for t in graph.gs.outputs
        if t in made and t.name in ranges
    }
    done, left = integer_border(model, grids)
    return [*done, *left]


def check_excluded(graph: Graph, names: Sequence[str]) -> None:
    """Raises UsageError for one of `names` that is no operator or node of `graph`."""
    known = {name for node in graph.nodes() for name in (node.op, node.name)}
    for name in names:
        if name not in known and not onnx.defs.has(name):
            raise UsageError(
                f"there is no operator and no node '{name}'",
                where="--exclude",
                hint="names are those after optimisation: --report lists them",
            )
