"""Times of units, measured on this machine: of the model compiled in floats and in integers, each
profiled step by step.

A unit's time is that of the kernels whose first node that computes is one of its own: passes derive
the names of nodes from those that they replace.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import TensorProto, helper, numpy_helper

from edgec.arrays import Array
from edgec.cache import Cache, key_of, tool_digest
from edgec.compiler import compile_model, emit_forms
from edgec.external import all_tensors
from edgec.graph import Graph
from edgec.options import Options
from edgec.peaks import processor_name
from edgec.profile import profile
from edgec.profilereport import Profile
from edgec.quantize.gate import MARGIN, MEASURED, Pair, Times, Verdict, judge
from edgec.quantize.maker import Maker
from edgec.quantize.plan import structure
from edgec.quantize.units import Unit
from edgec.quantize.work import elements
from edgec.report import duration

ROUNDS = 3
"""Models that are compared take turns so often; what counts of each step is the least."""
RUNS, LEAST_RUNS, MOST_S = 25, 3, 0.5
"""In each turn a model is run so often, or so long."""
CONVERTED = 1 << 16
"""Elements of the tensor that conversions are timed with."""

_CONVERSIONS = frozenset(("QuantizeLinear", "DequantizeLinear"))
_NAME = re.compile(r"n(\d+)(?:_|$)")
_PLACES = ("raw_data", "float_data", "int32_data", "double_data", "uint64_data")


@dataclass(frozen=True)
class Timed:
    """Seconds of a run of a model, and those of its kernels by the name of their first node."""

    whole: float
    nodes: Mapping[str, float]


def gate_by_measuring(maker: Maker, target: str, cache: Cache) -> Verdict:
    """The units of `maker` that are faster in floats on this machine, with code for `target`.

    A choice that is no faster as a whole is taken back. Raises what compiling raises.
    """
    graph = maker.graph.copy()
    for place, node in enumerate(graph.nodes()):
        node.name = f"n{place}"
    plain = graph.to_source_opset()
    units = structure(maker.graph, maker.profile, maker.exclude).units
    sample = next(iter(maker.samples))

    def timed(*models: onnx.ModelProto) -> list[Timed]:
        return seconds(models, sample, target, cache)

    quantized = maker.write(maker.plan(), graph)
    floats, integers = timed(plain, quantized)
    pairs = _pairs(maker.graph, units, floats.nodes, integers.nodes)
    times = Times(pairs, _conversion(target, cache), MEASURED, duration)
    verdict = judge(maker.graph, units, times)
    best = integers.whole
    if verdict.floats:
        mixed = maker.write(maker.plan(verdict.floats), graph)
        before, after = (each.whole for each in timed(quantized, mixed))
        if after >= before:
            verdict = Verdict(frozenset(), {}, times)
        best = min(before, after)
    if MARGIN * floats.whole < best:
        why = f"{MEASURED}: the whole model takes {duration(floats.whole)} in floats, "
        why += f"{duration(best)} with integers"
        return Verdict(frozenset(u.name for u in units), {u.name: why for u in units}, times)
    return verdict


def seconds(
    models: Sequence[onnx.ModelProto], sample: Mapping[str, Array], target: str, cache: Cache
) -> list[Timed]:
    """What one thread takes for `models`, which take turns; from `cache` where models of the same
    structure were timed before. Raises what compiling raises."""
    shapes = sorted((name, array.shape) for name, array in sample.items())
    key = key_of(tool_digest(), target, processor_name(), shapes, *map(_structure, models))
    stored = cache.get("times", key)
    if stored is not None:
        return [Timed(*each) for each in json.loads(stored)]
    profiles: list[list[Profile]] = [[] for _ in models]
    options = Options(targets=(target,), name="timed")
    with tempfile.TemporaryDirectory(prefix="edgec-") as folder:
        artifacts = [Path(folder) / f"{index}.edgec" for index in range(len(models))]
        for model, artifact in zip(models, artifacts, strict=True):
            compile_model(model, artifact, options, cache=cache)
        for _ in range(ROUNDS):
            for artifact, found in zip(artifacts, profiles, strict=True):
                runs = int(MOST_S / found[0].run_s / 4) if found else LEAST_RUNS
                runs = min(max(runs, LEAST_RUNS), RUNS)
                found.append(profile(artifact, sample, threads=1, runs=runs))
        operators = [_operators(model, options, Path(folder)) for model in models]
    timed = [_least(*each) for each in zip(profiles, operators, strict=True)]
    cache.put("times", key, json.dumps([[each.whole, each.nodes] for each in timed]).encode())
    return timed


def _operators(model: onnx.ModelProto, options: Options, folder: Path) -> dict[str, str]:
    """The operators of the nodes that steps name."""
    [path] = emit_forms(model, ["onnx"], folder / "optimized.onnx", options)
    return {node.name: node.op_type for node in onnx.load(path).graph.node}


def _least(profiles: Sequence[Profile], operators: Mapping[str, str]) -> Timed:
    nodes: dict[str, float] = defaultdict(float)
    for steps in zip(*(each.steps for each in profiles), strict=True):
        computed = [n for n in steps[0].nodes if operators.get(n) not in _CONVERSIONS]
        alone = operators.get(steps[0].nodes[0]) in _CONVERSIONS if steps[0].nodes else True
        if computed and (steps[0].macs or not alone):
            nodes[computed[0]] += min(step.seconds for step in steps)
    return Timed(min(each.run_s for each in profiles), nodes)


def _pairs(
    graph: Graph, units: Sequence[Unit], floats: Mapping[str, float], integers: Mapping[str, float]
) -> dict[str, Pair]:
    """The times of units by those of nodes; none for a product that has no kernel of its own."""
    places = {node: place for place, node in enumerate(graph.nodes())}
    sides = []
    for nodes in (floats, integers):
        found: dict[int, float] = defaultdict(float)
        for name, seconds in nodes.items():
            if match := _NAME.match(name):
                found[int(match[1])] += seconds
        sides.append(found)
    pairs = {}
    for unit in units:
        own = [places[node] for node in unit.nodes]
        if unit.kind != "product" or all(not side.keys().isdisjoint(own) for side in sides):
            pairs[unit.name] = Pair(*(sum(side.get(n, 0.0) for n in own) for side in sides))
    return pairs


def _conversion(target: str, cache: Cache) -> Callable[[gs.Tensor], float]:
    """Seconds to quantize a tensor, or to make floats of one again: their mean."""
    shape = (1, CONVERTED)
    parts = [numpy_helper.from_array(np.float32(0.1), "scale")]
    parts += [numpy_helper.from_array(np.uint8(128), "zero")]
    graph = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], "q"),
            helper.make_node("DequantizeLinear", ["p", "scale", "zero"], ["y"], "y"),
        ],
        "conversions",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, shape),
            helper.make_tensor_value_info("p", TensorProto.UINT8, shape),
        ],
        [
            helper.make_tensor_value_info("q", TensorProto.UINT8, shape),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, shape),
        ],
        parts,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    sample: dict[str, Array] = {"x": np.zeros(shape, np.float32), "p": np.zeros(shape, np.uint8)}
    [timed] = seconds([model], sample, target, cache)
    return lambda tensor: timed.whole / 2 / CONVERTED * elements(tensor)


def _structure(model: onnx.ModelProto) -> bytes:
    """`model` without the numbers that it computes with; those of shapes and axes are int64."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in all_tensors(copy):
        if tensor.data_type != TensorProto.INT64:
            for place in _PLACES:
                tensor.ClearField(place)
    return bytes(copy.SerializeToString(deterministic=True))
