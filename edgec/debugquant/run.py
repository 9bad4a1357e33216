"""The values of matched tensors, sample by sample, in three programs that ONNX Runtime runs:

    float       the float model
    quantized   the quantized one; its errors add up from layer to layer
    local       the quantized one, each layer fed what the float model's layers make

Its optimisations are off, so that each operator computes what the standard says.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import onnx_graphsurgeon as gs

from edgec.arrays import Array
from edgec.data import Sample
from edgec.debugquant.match import Pair
from edgec.errors import DataError, ModelError
from edgec.external import save_model
from edgec.graph import Graph
from edgec.peers import EngineError, EngineProcess
from edgec.tensors import Node, Variable

LIMIT_S = 300.0
"""For ONNX Runtime to load a model, and for each run: a foreign model may loop for ever."""


@dataclass(frozen=True)
class Values:
    """A pair's values for one sample: see `edgec.debugquant.run`."""

    float: Array
    quantized: Array
    local: Array


class SideBySide:
    """Both models for the values of `pairs`; a context manager.

    Raises ModelError where ONNX Runtime cannot load one of the models.
    """

    def __init__(self, plain: Graph, quantized: Graph, pairs: Sequence[Pair]) -> None:
        self.pairs = pairs
        self._cut = _cut(quantized, pairs)
        with contextlib.ExitStack() as stack:
            self._float = stack.enter_context(Program(plain, {p.float.name for p in pairs}))
            seen = {p.seen.name for p in pairs}
            self._quantized = stack.enter_context(Program(quantized, seen))
            self._local = stack.enter_context(Program(self._cut.graph, self._cut.observed.values()))
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def __call__(self, sample: Sample) -> dict[str, Values]:
        """The values by name of the pair. Raises DataError where a model cannot run."""
        plain = self._float(sample)
        quantized = self._quantized(sample)
        fed = {
            self._cut.feeds[pair.name]: plain[pair.float.name].astype(pair.made.dtype, copy=False)
            for pair in self.pairs
            if pair.name in self._cut.feeds
        }
        local = self._local(sample | fed)
        return {
            pair.name: Values(
                plain[pair.float.name],
                quantized[pair.seen.name],
                local[self._cut.observed[pair.name]],
            )
            for pair in self.pairs
        }


class Program:
    """ONNX Runtime on `graph`, in a process of its own, for the values of tensors by name.

    A context manager. Raises ModelError where the model cannot be loaded.
    """

    def __init__(self, graph: Graph, names: Iterable[str], threads: int = 0) -> None:
        self.names = frozenset(names)
        self._folder = tempfile.TemporaryDirectory(prefix="edgec-")
        self._engine = EngineProcess("onnxruntime", LIMIT_S)
        try:
            path = Path(self._folder.name) / "model.onnx"
            program = only(graph, self.names)
            self._inputs = {t.name for t in program.gs.inputs}
            save_model(program.to_onnx(), path, external=graph.external_data)
            self._engine.load(path, threads=threads, optimize=False)
        except BaseException as error:
            self.close()
            if isinstance(error, EngineError):
                raise ModelError(f"ONNX Runtime cannot load the model: {error.what}") from error
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __call__(self, sample: Mapping[str, Array]) -> dict[str, Array]:
        """The values by name. Raises DataError where the model cannot run on the sample."""
        given = {name: sample[name] for name in self._inputs}
        try:
            return given | self._engine.run(given)
        except EngineError as error:
            raise DataError(f"ONNX Runtime cannot run the model: {error.what}") from error

    def close(self) -> None:
        """End the process and remove the model."""
        self._engine.close()
        self._folder.cleanup()


def only(graph: Graph, names: Iterable[str]) -> Graph:
    """A copy of `graph` that makes the tensors called `names`, and nothing else."""
    twin = graph.copy()
    wanted = set(names)
    twin.gs.outputs = [
        t for node in twin.gs.nodes for t in node.outputs if t.name and t.name in wanted
    ]
    twin.sweep()
    twin.gs.inputs = [t for t in twin.gs.inputs if twin.uses(t)]
    return twin


@dataclass(frozen=True)
class _Cut:
    """A graph whose layers read inputs instead of each other; names by name of the pair.

    `feeds` are those inputs, where something reads them, `observed` what a layer's readers would
    have got of it.
    """

    graph: Graph
    feeds: dict[str, str]
    observed: dict[str, str]


def _cut(graph: Graph, pairs: Sequence[Pair]) -> _Cut:
    twin = graph.copy()
    tensors = {t.name: t for node in twin.gs.nodes for t in (*node.inputs, *node.outputs)}
    cut = _Cut(twin, {}, {})
    for pair in pairs:
        made = tensors[pair.name]
        readers = twin.consumers(made)
        seen = made
        if pair.seen is not pair.made:
            seen = _again(twin, tensors[pair.seen.name], made)
        cut.observed[pair.name] = seen.name
        if readers and twin.producer(made) is not None:
            feed = Variable(twin.unique_name(f"{made.name}_float"), made.dtype, made.shape)
            for node in readers:
                node.inputs[node.inputs.index(made)] = feed
            twin.gs.inputs.append(feed)
            cut.feeds[pair.name] = feed.name
    return cut


def _again(graph: Graph, seen: gs.Tensor, made: gs.Tensor) -> gs.Tensor:
    """`made` quantized and dequantized by new nodes, as `seen` is."""
    back = _maker(graph, seen)
    result = made
    for node in (_maker(graph, back.inputs[0]), back):
        like = node.outputs[0]
        new = Variable(graph.unique_name(f"{like.name}_local"), like.dtype, like.shape)
        graph.insert(node, node.op, [result, *node.inputs[1:]], node.attrs, outputs=[new])
        result = new
    return result


def _maker(graph: Graph, tensor: gs.Tensor) -> Node:
    node = graph.producer(tensor)
    assert node is not None
    return node
