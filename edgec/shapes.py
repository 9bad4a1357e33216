"""Types and shapes of the tensors that passes made.

Only the nodes whose outputs lack a type or a number are inferred, as a model of their own, so that
the cost follows the change and not the graph.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx
import onnx_graphsurgeon as gs
from onnx import helper

from edgec import sandbox
from edgec.limits import graphs
from edgec.onnx_io import export_node, value_info
from edgec.tensors import Constant, Node, inner_graphs, inner_nodes, is_static, set_type

_SMALL_ELEMENTS = 128


def infer(
    surgeon: gs.Graph,
    opset: int,
    opsets: Sequence[onnx.OperatorSetIdProto],
    *,
    trusted: bool = False,
) -> None:
    """Set dtype and shape of the tensors of `surgeon` that lack them, where ONNX can tell.

    Raises ModelError when inference finds the graph to contradict itself.
    """
    unknown = [node for node in surgeon.nodes if _unknown(node)]
    if not unknown:
        return
    made: set[gs.Tensor] = set()
    for node in unknown:
        made.update(node.outputs)
        made.update(t for inner in inner_nodes(node) for t in inner.outputs)
        made.update(t for graph in inner_graphs(node) for t in graph.inputs)
    given: dict[gs.Tensor, None] = {}
    for node in unknown:
        for user in (node, *inner_nodes(node)):
            given.update((t, None) for t in user.inputs if t.name and t not in made)
    model = onnx.ModelProto(
        ir_version=helper.find_min_ir_version_for(list(opsets), ignore_unknown=True)
    )
    model.opset_import.extend(opsets)
    model.graph.name = "shapes"
    for tensor in given:
        if isinstance(tensor, Constant) and math.prod(tensor.shape) <= _SMALL_ELEMENTS:
            model.graph.initializer.append(tensor.to_proto())
        else:
            model.graph.input.append(value_info(tensor))
    around = frozenset(given)
    model.graph.node.extend(export_node(node, opset, around) for node in unknown)
    data = sandbox.call("infer", model.SerializeToString(), trusted=trusted)
    reply = onnx.ModelProto.FromString(data)
    types = {info.name: info.type for g in graphs(reply.graph) for info in g.value_info}
    for node in unknown:
        for user in (node, *inner_nodes(node)):
            for tensor in user.outputs:
                if tensor.name in types:
                    set_type(tensor, types[tensor.name])


def _unknown(node: Node) -> bool:
    return any(
        t.name and t.value_type is None and (t.dtype is None or not is_static(t))
        for user in (node, *inner_nodes(node))
        for t in user.outputs
    )
