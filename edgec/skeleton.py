"""A model without its weights: what ONNX's native code needs to see of a foreign file.

Checker, inliner, converter and shape inference read small tensors (axes, shapes) and never weights.
A skeleton holds the small ones; each large initializer has become an input of the same type.
"""

from __future__ import annotations

import onnx
import onnx_graphsurgeon as gs
from onnx import TensorProto, helper

from edgec.errors import ModelError
from edgec.limits import graphs
from edgec.tensors import Variable, check_tensor, metadata_of, set_type, subgraphs

SMALL_BYTES = 1024
STANDARD_DOMAINS = frozenset(("", "ai.onnx", "ai.onnx.ml", "ai.onnx.preview.training"))


def split(model: onnx.ModelProto, opset: int) -> tuple[onnx.ModelProto, dict[str, TensorProto]]:
    """The skeleton of `model` (a new proto) and its large tensors by name, not copied.

    Declared shapes are kept only where inference cannot find them again: at inputs and behind
    operators of other domains. Initializers listed as inputs are no inputs in the skeleton.
    """
    source = model.graph
    skeleton = onnx.ModelProto(ir_version=max(model.ir_version, 8))
    skeleton.opset_import.append(helper.make_opsetid("", opset))
    skeleton.opset_import.extend(o for o in model.opset_import if o.domain not in ("", "ai.onnx"))
    skeleton.functions.extend(model.functions)
    graph = skeleton.graph
    graph.name = source.name or "graph"
    if source.sparse_initializer:
        raise ModelError(
            "sparse initializers are not supported",
            where=f"tensor '{source.sparse_initializer[0].values.name}'",
            hint="store the tensor densely",
        )
    weights: dict[str, TensorProto] = {}
    produced = {t.name for t in source.initializer}
    graph.input.extend(i for i in source.input if i.name not in produced)
    for tensor in source.initializer:
        if tensor.ByteSize() <= SMALL_BYTES:
            graph.initializer.append(tensor)
        else:
            weights[tensor.name] = tensor
    for node in source.node:
        large = large_constant(node)
        if large is None:
            graph.node.append(node)
        else:
            weights[node.output[0]] = large
    for name, tensor in weights.items():
        check_tensor(tensor, name)
        graph.input.append(helper.make_tensor_value_info(name, tensor.data_type, tensor.dims))
    graph.output.extend(source.output)
    graph.value_info.extend(source.value_info)
    for inner in graphs(graph):
        foreign = foreign_outputs(inner, model)
        kept = [info for info in inner.value_info if info.name in foreign]
        del inner.value_info[:]
        inner.value_info.extend(kept)
    return skeleton, weights


def inferred_outputs(model: onnx.ModelProto) -> list[str]:
    """The tensor outputs of `model` whose shape inference is expected to find."""
    foreign = foreign_outputs(model.graph, model)
    return [
        info.name
        for info in model.graph.output
        if info.name not in foreign and info.type.HasField("tensor_type")
    ]


def foreign_outputs(graph: onnx.GraphProto, model: onnx.ModelProto) -> set[str]:
    """Names of the tensors that operators unknown to ONNX make in `graph`."""
    calls = {(f.domain, f.name) for f in model.functions}
    return {
        name
        for node in graph.node
        if node.domain not in STANDARD_DOMAINS and (node.domain, node.op_type) not in calls
        for name in node.output
    }


def large_constant(node: onnx.NodeProto) -> TensorProto | None:
    """The tensor of a Constant node when it is too large for a skeleton."""
    if node.op_type == "Constant" and node.domain in ("", "ai.onnx") and len(node.attribute) == 1:
        tensor = node.attribute[0].t
        if len(node.output) == 1 and tensor.ByteSize() > SMALL_BYTES:
            return tensor
    return None


def restore(surgeon: gs.Graph, model: onnx.ModelProto, skeleton: onnx.ModelProto) -> None:
    """Give back what ONNX's converter and inference drop: declarations and metadata."""
    declared = {i.name: i for i in (*model.graph.input, *model.graph.output)}
    bound = {i.name: i for i in (*skeleton.graph.input, *skeleton.graph.output)}
    for tensor in (*surgeon.inputs, *surgeon.outputs):
        if not isinstance(tensor, Variable):
            continue
        tensor.info = declared.get(tensor.name, tensor.info)
        if tensor.shape is None and tensor.info is not None:
            known = tensor.dtype
            set_type(tensor, bound.get(tensor.name, tensor.info).type)
            tensor.dtype = known if known is not None else tensor.dtype
    surgeon.name = model.graph.name
    surgeon.doc_string = model.graph.doc_string
    surgeon.metadata = metadata_of(model.graph)
    before = {n.output[0]: n for g in graphs(model.graph) for n in g.node if n.output}
    for graph in subgraphs(surgeon):
        for node in graph.nodes:
            source = before.get(node.outputs[0].name) if node.outputs else None
            if source is not None:
                node.name = node.name or source.name
                node.metadata = node.metadata or metadata_of(source)
                node.doc_string = node.doc_string or source.doc_string


def note_defaults(model: onnx.ModelProto, notes: list[str]) -> None:
    """Append to `notes` what of `model` a skeleton leaves out: default values, training."""
    values = {t.name for t in model.graph.initializer}
    listed = [i.name for i in model.graph.input if i.name in values]
    if listed and model.ir_version >= 4:
        shown = ", ".join(listed[:3]) + (", ..." if len(listed) > 3 else "")
        notes.append(f"{len(listed)} inputs with a default value made constants: {shown}")
    if model.training_info:
        notes.append("training information dropped")
