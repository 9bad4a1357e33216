"""What ONNX's converter and shape inference drop: declarations, metadata, doc strings."""

from __future__ import annotations

import onnx
import onnx_graphsurgeon as gs

from edgec.limits import graphs
from edgec.tensors import Variable, metadata_of, set_type, subgraphs


def restore(surgeon: gs.Graph, model: onnx.ModelProto, skeleton: onnx.ModelProto) -> None:
    """Put back into `surgeon` what the prepared `skeleton` of `model` lost."""
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
