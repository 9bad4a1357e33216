"""From two models and data to where the error is made: the whole way on one page.

load both -> match tensors -> run side by side -> measure -> report
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

from edgec.arrays import Array, is_float
from edgec.data import Sample, index_limits
from edgec.debugquant.match import Pair, match
from edgec.debugquant.measure import Errors, Measure
from edgec.debugquant.report import WORST_CHANNELS, Channel, DebugReport, TensorReport
from edgec.debugquant.run import Program, SideBySide
from edgec.errors import ModelError
from edgec.graph import Graph, load
from edgec.optimizer import ModelSource, Pipeline
from edgec.program import Tensor
from edgec.quantize.reader import CalibrationData
from edgec.rewrite import optimize
from edgec.tensors import Node

OnEvent = Callable[[Mapping[str, Any]], None]

_FUSES_PRODUCTS = ("fuse-attention",)
"""Not run before quantization: products inside another operator are no layers."""
_OTHER_DB = 6.0
"""SQNR of weights, one bit, below which they are not those of the float model."""
_QOPERATORS = ("QLinear", "ConvInteger", "MatMulInteger")


@dataclass(frozen=True)
class DebugOptions:
    """What to compare with.

    Attributes:
        normalize: "NAME=MEAN,STD" for 8-bit data of a float input, as `edgec.data` takes it.
        samples: at most so many are run; None for all.
        shapes: whole shapes by input name.
        dims: sizes by symbolic dimension; a batch that is given none is 1.
        trusted: run ONNX's native code in this process, without the helper that catches crashes.
    """

    normalize: Sequence[str] = ()
    samples: int | None = None
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    dims: Mapping[str, int] = field(default_factory=dict)
    trusted: bool = False


def debug_quant(
    float_model: ModelSource,
    quantized_model: ModelSource,
    data: Sequence[str] | Mapping[str, Array],
    options: DebugOptions | None = None,
    on_event: OnEvent = lambda event: None,
) -> DebugReport:
    """Compare `quantized_model`, whose nodes stand between QuantizeLinear and DequantizeLinear,
    with the `float_model` that it was made from.

    `data` are sources as `edgec.quantize.reader` takes them, or arrays of samples by input name.

    Raises:
        ModelError: a model cannot be read or run, or the two have no tensors in common.
        DataError: the data does not fit the inputs.
    """
    options = options or DebugOptions()
    notes: list[str] = []
    quantized = load(
        quantized_model,
        shapes=options.shapes,
        dims=options.dims,
        trusted=options.trusted,
        notes=notes,
    )
    plain, pairs = _matched(float_model, quantized, options)
    inputs = [Tensor(t.name, np.dtype(t.dtype).name, tuple(t.shape)) for t in quantized.gs.inputs]
    limits = index_limits(quantized.to_onnx())
    samples = CalibrationData(
        inputs, data, options.normalize, options.samples, limits, notes.append
    )
    measures = [Measure(pair.channel_axis, pair.grid) for pair in pairs]
    with SideBySide(plain, quantized, pairs) as run:
        for done, sample in enumerate(samples, 1):
            values = run(sample)
            for pair, measure in zip(pairs, measures, strict=True):
                measure.add(values[pair.name])
            on_event({"event": "stage", "stage": f"sample {done}", "state": "start"})
        weights = _weights(quantized, pairs, sample)
    moved = sum(ratio < _OTHER_DB for ratio in weights.values())
    if moved:
        notes.append(
            f"the weights of {moved} layers are not the float model's: if sizes of channels were "
            "moved between layers (--smooth, --equalize), what these read differs by that, too"
        )
    tensors = [
        _report(pair, measure, weights.get(pair.name), quantized)
        for pair, measure in zip(pairs, measures, strict=True)
    ]
    layers = {pair.node for pair in pairs}
    left = sum(1 for node in _layers(quantized) if node not in layers)
    return DebugReport(_name(float_model), _name(quantized_model), done, tensors, left, notes)


def _matched(
    source: ModelSource, quantized: Graph, options: DebugOptions
) -> tuple[Graph, list[Pair]]:
    """The float graph and the pairs: as the model is, or as it is optimised before it is quantized,
    by which more of its tensors are in the quantized one."""
    plain = load(source, symbolic=True, assume_batch=False, trusted=options.trusted)
    names = {t.name for t in plain.gs.inputs}
    for tensor in quantized.gs.inputs:
        if tensor.name not in names:
            raise ModelError(
                f"the float model has no input '{tensor.name}'",
                where=f"input '{tensor.name}' of the quantized model",
                hint="give the float model that it was made from",
            )
    shapes = {t.name: t.shape for t in quantized.gs.inputs}
    plain = load(source, shapes=shapes, trusted=options.trusted)
    optimised = plain.copy()
    optimize(optimised, Pipeline(disable=_FUSES_PRODUCTS).chosen())
    found = [(graph, match(graph, quantized)) for graph in (plain, optimised)]
    best, pairs = max(
        found, key=lambda each: (len(each[1]), sum(p.weight is not None for p in each[1]))
    )
    if not any(pair.node for pair in pairs):
        hint = "give the float model that it was made from"
        if any(node.op.startswith(_QOPERATORS) for node in quantized.nodes()):
            hint = "turn its operators into QDQ: edgec optimize --passes convert-qoperator-to-qdq"
        raise ModelError("no tensor of the quantized model is in the float one", hint=hint)
    return best, pairs


def _weights(quantized: Graph, pairs: Sequence[Pair], sample: Sample) -> dict[str, float]:
    """The SQNR of the layers' weights, by name of the pair."""
    tensors = {pair.name: pair.weight for pair in pairs if pair.weight is not None}
    if not tensors:
        return {}
    with Program(quantized, {tensor.name for _, tensor in tensors.values()}) as program:
        values = program(sample)
    found = {}
    for name, (wanted, tensor) in tensors.items():
        errors = Errors()
        rows = (a.astype(np.float64).reshape(-1, 1) for a in (wanted, values[tensor.name]))
        errors.add(*rows)
        found[name] = errors.sqnr_db
    return found


def _layers(graph: Graph) -> Iterator[Node]:
    """The nodes that make floats, but for those that quantize, dequantize or are constants."""
    for node in graph.gs.nodes:
        made = any(t.dtype is not None and is_float(t.dtype) for t in node.outputs)
        if made and node.op != "DequantizeLinear":
            yield node


def _report(
    pair: Pair, measure: Measure, weight_db: float | None, quantized: Graph
) -> TensorReport:
    local = measure.local.channels_db()
    worst = measure.local.worst(WORST_CHANNELS) if len(local) > 1 else []
    values = max(measure.values, 1)
    histogram = None
    if measure.grid is not None:
        wanted, given = (tuple(map(int, row)) for row in measure.histogram)
        histogram = wanted, given
    return TensorReport(
        name=pair.name,
        op=pair.op,
        node="" if pair.node is None else str(pair.node.name),
        is_output=quantized.is_output(pair.made),
        grid="" if measure.grid is None else str(measure.grid),
        sqnr_db=measure.accumulated.sqnr_db,
        local_db=measure.local.sqnr_db,
        weight_db=weight_db,
        largest_error=measure.largest_error,
        float_range=measure.float_range,
        quantized_range=measure.quantized_range,
        below=measure.below / values,
        above=measure.above / values,
        worst_channels=tuple(Channel(i, local[i]) for i in worst),
        channels_db=tuple(local),
        histogram=histogram,
    )


def _name(source: ModelSource) -> str:
    return "a model" if isinstance(source, onnx.ModelProto) else str(source)
