"""Operators that ONNX itself defines by other operators: their body in place of the node."""

from __future__ import annotations

from collections.abc import Mapping

import onnx
import onnx_graphsurgeon as gs

from edgec.lower.context import Shape
from edgec.lower.fold import node_proto, onnx_type

TypedShape = tuple[str, Shape]


def has_body(op: str, opset: int) -> bool:
    """Whether the standard defines `op` by a function body."""
    try:
        schema = onnx.defs.get_schema(op, opset, "")
    except onnx.defs.SchemaError:
        return False
    return bool(schema.has_function or schema.has_context_dependent_function)


def expand(node: gs.Node, inputs: Mapping[str, TypedShape], opset: int) -> list[gs.Node] | None:
    """The nodes of `node`'s body, inner names made unique; None where the body does not apply.

    `inputs` gives dtype and shape of the node's inputs by tensor name.
    """
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            [node_proto(node)],
            "expand",
            [
                onnx.helper.make_tensor_value_info(name, onnx_type(dtype), shape)
                for name, (dtype, shape) in inputs.items()
            ],
            [onnx.ValueInfoProto(name=t.name) for t in node.outputs if t.name],
        ),
        opset_imports=[onnx.helper.make_opsetid("", opset)],
    )
    model = onnx.inliner.inline_selected_functions(
        model, [("", node.op)], inline_schema_functions=True
    )
    if [n.op_type for n in model.graph.node] == [node.op]:
        return None
    outer = {t.name for t in [*node.inputs, *node.outputs]}
    prefix = next(t.name for t in node.outputs if t.name)
    body = gs.import_onnx(model)
    for tensor in body.tensors().values():
        if tensor.name and tensor.name not in outer:
            tensor.name = f"{prefix}/{tensor.name}"
    return list(body.nodes)
