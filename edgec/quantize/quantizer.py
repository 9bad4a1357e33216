"""From a model and data to a quantized model: the whole way on one page.

load -> optimise -> find units -> calibrate -> plan -> refine -> insert -> write
         (equalise, smooth)                    (until the accuracy budget holds)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx

from edgec.arrays import Array
from edgec.data import Sample, index_limits
from edgec.errors import ModelError, UsageError
from edgec.external import save_model
from edgec.graph import Graph
from edgec.optimizer import ModelSource, Pipeline
from edgec.quantize.budget import Kept, Metric
from edgec.quantize.calibrate import FEW_SAMPLES, calibrate, input_specs
from edgec.quantize.maker import LEAST_OPSET, Maker
from edgec.quantize.plan import Plan, Ranges, structure
from edgec.quantize.profiles import Profile, resolve
from edgec.quantize.reader import CalibrationData
from edgec.quantize.recover.recovery import Recovery
from edgec.quantize.within import within
from edgec.rewrite import optimize

_FUSES_PRODUCTS = ("fuse-attention",)
"""Passes that hide products in operators that no integer kernel computes."""

OnEvent = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class QuantizeOptions:
    """How to quantize.

    Attributes:
        profile: name of a profile, or of a target that has one.
        exclude: operators and names of nodes that stay in floats.
        normalize: "NAME=MEAN,STD" for 8-bit data of a float input, as `edgec.data` takes it.
        samples: at most so many are calibrated with; None for all.
        shapes: whole shapes by input name.
        dims: sizes by symbolic dimension; they are fixed in the result.
        recovery: what is done so that it costs less accuracy.
        max_drop: how much worse than the float model the result may be, by `metric`, or without
            one in its outputs; layers stay in floats until that holds. None for any.
        metric: from a model as a function to a number, more is better.
        trusted: run ONNX's native code in this process, without the helper that catches crashes.
    """

    profile: str = "portable"
    exclude: tuple[str, ...] = ()
    normalize: tuple[str, ...] = ()
    samples: int | None = None
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    dims: Mapping[str, int] = field(default_factory=dict)
    recovery: Recovery = field(default_factory=Recovery)
    max_drop: float | None = None
    metric: Metric | None = None
    trusted: bool = False


@dataclass(frozen=True)
class Quantized:
    """A quantized model: `model` is ONNX, `graph` the float one that the `plan` was made for.

    `kept` says how an accuracy budget was kept, where there was one.
    """

    model: onnx.ModelProto
    graph: Graph
    plan: Plan
    samples: int
    notes: Sequence[str]
    kept: Kept | None = None

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
    profile = resolve(options.profile)
    notes: list[str] = []
    graph = prepare(source, options, notes)
    check_excluded(graph, options.exclude)
    limits = index_limits(graph.to_onnx())
    samples = CalibrationData(
        input_specs(graph), data, options.normalize, options.samples, limits, notes.append
    )
    options.recovery.before(graph, samples)
    ranges, count = measure(graph, profile, samples, options.exclude, notes, on_event)
    maker = Maker(graph, profile, ranges, samples, options.exclude, options.recovery)
    kept = None
    if options.max_drop is None:
        plan, model = maker.model()
    else:
        plan, kept = within(maker, options.max_drop, options.metric, on_event)
        model = kept.model
    if not plan.units:
        notes.append("nothing of the model is worth quantizing")
    return Quantized(model, graph, plan, count, [*notes, *plan.notes], kept)


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
    exclude: Sequence[str],
    notes: list[str],
    on_event: OnEvent,
) -> tuple[Ranges, int]:
    """The ranges of what could be quantized, by name, and from how many samples they are."""
    wanted = structure(graph, profile, exclude).tensors()
    seen = 0

    def count(done: int) -> None:
        nonlocal seen
        seen = done
        on_event({"event": "stage", "stage": f"sample {done}", "state": "start"})

    found = calibrate(graph, wanted, samples, count)
    if seen < FEW_SAMPLES:
        notes.append(
            f"calibrated with {seen} sample{'s'[: seen != 1]} only; ranges may be too narrow"
        )
    return {name: statistics.range for name, statistics in found.items()}, seen


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
