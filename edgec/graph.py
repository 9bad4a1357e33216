"""Loading, checking, shaping and saving models: the door between ONNX files and passes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import TensorProto, helper

from edgec import sandbox
from edgec.dims import bind
from edgec.downgrade import convert
from edgec.errors import ModelError, PassError
from edgec.external import all_tensors, load_external, parse_model, read_model, save_model
from edgec.limits import INTERNAL_OPSET, check_limits
from edgec.onnx_io import export_graph, import_graph
from edgec.shapes import infer
from edgec.skeleton import inferred_outputs, note_defaults, restore, split
from edgec.tensors import (
    Constant,
    Names,
    Node,
    Variable,
    inner_graphs,
    inner_nodes,
    is_static,
    metadata_of,
    subgraphs,
)
from edgec.topology import Places, copy, instantiate, places_of_outputs, sort


def load(
    source: str | os.PathLike[str] | onnx.ModelProto,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    dims: Mapping[str, int] | None = None,
    symbolic: bool = False,
    assume_batch: bool = True,
    trusted: bool = False,
    notes: list[str] | None = None,
) -> Graph:
    """Read, check and normalise a model.

    Local functions are inlined, the default domain is raised to `INTERNAL_OPSET` (a newer model is
    lowered to it, unless it uses what is only newer), initializers are taken out of the inputs,
    symbolic dimensions are bound by `shapes` (whole shapes by input name) and `dims` (sizes by
    symbol), and shapes are inferred. What was decided on the way is appended to `notes`, a line
    each. With `symbolic`, dimensions that nothing gives a size stay so instead of being an error;
    a lone batch dimension is then still taken for 1, unless `assume_batch` is off.
    `source` is never changed; its tensors are shared, not copied.

    ONNX's native code runs in the helper process of `edgec.sandbox`, or here when `trusted`.
    Raises ModelError for what is not a valid model, UsageError for shapes that do not fit it.
    """
    notes = [] if notes is None else notes
    if not trusted:
        sandbox.start()
    model, folder = read_model(source)
    opset = check_limits(model)
    external = any(t.data_location == TensorProto.EXTERNAL for t in all_tensors(model))
    load_external(model, folder)
    skeleton, weights = split(model, opset)
    note_defaults(model, notes)
    bind(
        skeleton.graph,
        weights,
        shapes or {},
        dims or {},
        notes,
        symbolic=symbolic,
        assume_batch=assume_batch,
    )
    prepared = parse_model(
        sandbox.call(
            "prepare",
            skeleton.SerializeToString(),
            opset,
            INTERNAL_OPSET,
            bool(model.functions),
            inferred_outputs(skeleton),
            trusted=trusted,
        )
    )
    reached = next(o.version for o in prepared.opset_import if o.domain in ("", "ai.onnx"))
    surgeon = import_graph(prepared.graph, reached, weights)
    restore(surgeon, model, skeleton)
    body = ("graph", "functions", "opset_import", "training_info")
    header = onnx.ModelProto(**{f.name: v for f, v in model.ListFields() if f.name not in body})
    header.opset_import.extend(o for o in prepared.opset_import if o.domain not in ("", "ai.onnx"))
    graph = Graph(surgeon, header, opset, trusted)
    graph.external_data = external
    return graph


class Graph:
    """A model as passes see it: `gs`, the one IR, and all else that ONNX says of the model.

    `source_opset` and `source_bytes` (of constants) are those of the model that was loaded, and
    `external_data` whether its tensors lay in other files. Passes make no operator that is newer
    than `opset_limit`, the source's opset unless somebody raises it. Where `result_opset` is set,
    `to_source_opset` writes at it instead.
    `gs.nodes` is in topological order except between a pass's insertions and `sweep`. Nodes and
    tensors are those of `edgec.onnx_io`; change the graph through the methods here.
    """

    def __init__(
        self, surgeon: gs.Graph, header: onnx.ModelProto, source_opset: int, trusted: bool = False
    ) -> None:
        self.gs = surgeon
        self.source_opset = source_opset
        self.opset_limit = min(source_opset, int(surgeon.opset))
        self.result_opset: int | None = None
        self.external_data = False
        self.trusted = trusted
        self.source_bytes = self.constant_bytes()
        self._header = header
        self._names: Names | None = None
        self._places: Places | None = None

    @property
    def name(self) -> str:
        return str(self.gs.name)

    @property
    def opset(self) -> int:
        """Version of the default domain that the nodes have: `INTERNAL_OPSET`, or a newer one."""
        return int(self.gs.opset)

    @property
    def metadata(self) -> dict[str, str]:
        """`metadata_props` of the model, a copy."""
        return metadata_of(self._header)

    @property
    def header(self) -> onnx.ModelProto:
        """Producer, version, domain, doc string, metadata: the model without its graph."""
        return self._header

    def nodes(self) -> Iterator[Node]:
        """All nodes, those of subgraphs after the graph that holds them."""
        for graph in subgraphs(self.gs):
            yield from graph.nodes

    # Asking

    def constant_bytes(self) -> int:
        """Bytes of all constants together, as a file holds them."""
        return sum(t.nbytes for t in set(self._tensors()) if isinstance(t, Constant))

    def consumers(self, tensor: gs.Tensor) -> list[Node]:
        """The nodes that read `tensor`, once for each time; also inside subgraphs."""
        return list(tensor.outputs)

    def producer(self, tensor: gs.Tensor) -> Node | None:
        """The node that makes `tensor`; None for inputs and constants."""
        return tensor.inputs[0] if tensor.inputs else None

    def is_output(self, tensor: gs.Tensor) -> bool:
        """Whether `tensor` is an output of the graph or of a subgraph."""
        return tensor in self._output_places()

    def uses(self, tensor: gs.Tensor) -> int:
        """How often `tensor` is read, by nodes or as an output."""
        return len(tensor.outputs) + self.is_output(tensor)

    # Changing

    def unique_name(self, hint: str) -> str:
        """A tensor or node name that is not taken yet, and now is."""
        if self._names is None:
            self._names = Names(n.name for n in self.nodes())
            self._names.update(t.name for t in self._tensors())
        return self._names.unique(hint)

    def constant(self, values: np.ndarray[Any, Any], hint: str) -> Constant:
        """A new constant of `values`."""
        return Constant(self.unique_name(hint), values)

    def insert(
        self,
        beside: Node,
        op: str,
        inputs: Sequence[gs.Tensor],
        attrs: Mapping[str, Any] | None = None,
        *,
        outputs: Sequence[gs.Tensor] | int = 1,
        domain: str = "",
    ) -> Node:
        """A new node in the graph of `beside`, with its doc string and metadata.

        `outputs` are tensors to make (no other node may make them) or how many new ones to make;
        the types of new ones are inferred by the driver when the pass does not set them.
        """
        name = self.unique_name(beside.name or op.lower())
        if isinstance(outputs, int):
            outputs = [Variable(self.unique_name(f"{name}_out")) for _ in range(outputs)]
        node = Node(
            op,
            name,
            attrs,
            inputs,
            outputs,
            domain,
            doc_string=beside.doc_string,
            metadata=beside.metadata,
        )
        node.owner = beside.owner
        assert beside.owner is not None
        beside.owner.nodes.append(node)
        if any(inner_graphs(node)):
            self._places = None
        return node

    def inline(self, node: Node, body: gs.Graph) -> list[gs.Tensor]:
        """Move the nodes of `body`, a subgraph of `node`, beside `node`; what `body` yielded."""
        assert node.owner is not None
        for inner in body.nodes:
            inner.owner = node.owner
        node.owner.nodes.extend(body.nodes)
        places = self._output_places()
        outputs = list(body.outputs)
        for tensor in set(outputs):
            left = [place for place in places.pop(tensor) if place[0] is not body]
            places |= {tensor: left} if left else {}
        body.nodes, body.outputs = [], []
        return outputs

    def instantiate(
        self, beside: Node, body: gs.Graph, inputs: Sequence[gs.Tensor]
    ) -> list[gs.Tensor]:
        """Copies of the nodes of `body` in the graph of `beside`; what they yield for `inputs`."""
        assert beside.owner is not None
        nodes, outputs = instantiate(body, inputs, self.unique_name)
        for node in nodes:
            node.owner = beside.owner
        beside.owner.nodes.extend(nodes)
        self._places = None
        return outputs

    def why_not_replace(self, old: gs.Tensor, new: gs.Tensor) -> str | None:
        """Why `replace(old, new)` is impossible, or None.

        The name of a graph output is part of the model: when `old` is one, `new` takes its name,
        which a graph input, a constant or another output cannot.
        """
        if not self.is_output(old):
            return None
        maker, remade = self.producer(old), self.producer(new)
        if remade is None:
            return "it makes a graph output of an input or constant"
        if self.is_output(new):
            return "both sides are graph outputs"
        if maker is None or maker.owner is not remade.owner:
            return "a subgraph's output would come from outside it"
        return None

    def replace(self, old: gs.Tensor, new: gs.Tensor) -> None:
        """Let every user of `old` use `new`, then remove what made `old` where it is dead.

        The node that makes `new` may go on using `old`. What is unknown of the type of `new` is
        taken from `old`. Raises PassError where `why_not_replace` has a reason.
        """
        why = self.why_not_replace(old, new)
        if why:
            raise PassError(why, where=f"tensor '{old.name}'")
        maker = self.producer(new)
        for node in self.consumers(old):
            if node is not maker:
                node.inputs[node.inputs.index(old)] = new
        if self.is_output(old):
            places = self._output_places()
            places[new] = places.pop(old)
            for graph, index in places[new]:
                graph.outputs[index] = new
            new.info = old.info
            old.name, new.name = self.unique_name(f"{old.name}_was"), old.name
        if isinstance(new, Variable):
            if new.dtype is None and new.value_type is None:
                new.dtype, new.value_type = old.dtype, old.value_type
            if not is_static(new) and (new.shape is None or is_static(old)):
                new.shape = old.shape
        remade = self.producer(old)
        if remade is not None and not any(map(self.uses, remade.outputs)):
            self.remove(remade)

    def remove(self, node: Node) -> list[Node]:
        """Unlink `node`, which nothing may use any more, and the nodes that only it used; all."""
        dead = [node]
        removed: list[Node] = []
        while dead:
            gone = dead.pop()
            if not gone.outputs:
                continue
            removed.append(gone)
            freed: list[gs.Tensor] = []
            for user in (gone, *inner_nodes(gone)):
                freed += user.inputs
                user.inputs.clear()
                user.outputs.clear()
            for tensor in freed:
                maker = self.producer(tensor)
                if maker is not None and not any(map(self.uses, maker.outputs)):
                    dead.append(maker)
        return removed

    def sweep(self) -> None:
        """Remove the nodes that nothing uses, drop what was removed, sort the rest."""
        self._places = None
        for graph in reversed(list(subgraphs(self.gs))):
            for node in reversed(graph.nodes):
                if node.outputs and not any(map(self.uses, node.outputs)):
                    self.remove(node)
            graph.nodes = [node for node in graph.nodes if node.outputs]
        for graph in subgraphs(self.gs):
            sort(graph)

    def restore(self, before: Graph) -> None:
        """Become `before`, a copy made earlier, which must not be used any more."""
        self.gs = before.gs
        self._names = self._places = None

    def _output_places(self) -> Places:
        if self._places is None:
            self._places = places_of_outputs(self.gs)
        return self._places

    def _tensors(self) -> Iterator[gs.Tensor]:
        for graph in subgraphs(self.gs):
            yield from graph.inputs
            yield from graph.outputs
            for node in graph.nodes:
                yield from node.inputs
                yield from node.outputs

    def infer_shapes(self) -> None:
        """Find type and shape of the tensors that lack them, in the helper process.

        Costs nothing when all are known. Raises ModelError when the graph contradicts itself.
        """
        infer(self.gs, self.opset, self._opsets(), trusted=self.trusted)

    # Writing

    def to_onnx(self, opset: int | None = None) -> onnx.ModelProto:
        """The graph as a new model, at `opset` of the default domain (None: its own).

        Raises ModelError when an operator cannot be written at that opset.
        """
        model = onnx.ModelProto()
        model.CopyFrom(self._header)
        del model.opset_import[:]
        model.opset_import.extend(self._opsets())
        model.ir_version = helper.find_min_ir_version_for(self._opsets(), ignore_unknown=True)
        model.graph.CopyFrom(export_graph(self.gs, self.opset))
        if opset is not None and opset != self.opset:
            convert(model, self.opset, opset, trusted=self.trusted)
        return model

    def to_source_opset(self) -> onnx.ModelProto:
        """The graph at the opset it was loaded from, or else the least newer one that can hold it.

        An operator that a pass made may be newer than the source: see `opset_limit`. Raises
        ModelError where there is a `result_opset` and an operator cannot be written at it.
        """
        if self.result_opset is not None:
            return self.to_onnx(self.result_opset)
        ops = {node.op for node in self.nodes() if not node.domain}
        newer = range(self.source_opset + 1, self.opset)
        able = (opset for opset in newer if all(onnx.defs.has(op, opset) for op in ops))
        for opset in (*range(self.source_opset, self.opset)[:1], *able):
            try:
                return self.to_onnx(opset)
            except ModelError:
                continue
        return self.to_onnx()

    def save(self, path: str | os.PathLike[str], opset: int | None = None) -> None:
        """Write the model to `path`, as `edgec.external.save_model` does."""
        save_model(self.to_onnx(opset), Path(path), external=self.external_data)

    def copy(self) -> Graph:
        """An independent copy; the values of constants are shared."""
        twin = Graph(copy(self.gs), self._header, self.source_opset, self.trusted)
        twin.source_bytes = self.source_bytes
        twin.opset_limit = self.opset_limit
        twin.result_opset = self.result_opset
        twin.external_data = self.external_data
        return twin

    def _opsets(self) -> list[onnx.OperatorSetIdProto]:
        found = {o.domain: o.version for o in self._header.opset_import}
        used = {node.domain for node in self.nodes() if node.domain}
        versions = {"": self.opset} | {d: found.get(d, 1) for d in sorted({*used, *found})}
        return [helper.make_opsetid(domain, version) for domain, version in versions.items()]
