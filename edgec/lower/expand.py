"""Operators that ONNX itself defines by other operators: their body in place of the node."""

from __future__ import annotations

from collections.abc import Mapping

import onnx
import onnx.inliner
import onnx_graphsurgeon as gs

from edgec.lower.context import Shape, operator
from edgec.lower.fold import onnx_type
from edgec.onnx_io import export_node, import_graph

TypedShape = tuple[str, Shape]


def expand(node: gs.Node, inputs: Mapping[str, TypedShape], opset: int) -> list[gs.Node] | None:
    """The nodes of `node`'s body, inner names made unique; None where the standard has none.

    `inputs` gives dtype and shape of the node's inputs by tensor name. Operators outside ONNX's own
    domain are taken in their newest version.
    """
    domain = "" if operator(node) == node.op else node.domain
    try:
        schema = (
            onnx.defs.get_schema(node.op, domain)
            if domain
            else onnx.defs.get_schema(node.op, opset, domain)
        )
    except onnx.defs.SchemaError:
        return None
    if not (schema.has_function or schema.has_context_dependent_function):
        return None
    proto = export_node(node, opset, frozenset())
    proto.attribute.extend(_defaults(schema, set(node.attrs)))
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            [proto],
            "expand",
            [
                onnx.helper.make_tensor_value_info(name, onnx_type(dtype), shape)
                for name, (dtype, shape) in inputs.items()
            ],
            [onnx.ValueInfoProto(name=t.name) for t in node.outputs if t.name],
        ),
        opset_imports=[
            onnx.helper.make_opsetid("", opset),
            *([onnx.helper.make_opsetid(domain, schema.since_version)] if domain else []),
        ],
    )
    if schema.has_context_dependent_function:
        model.functions.append(_body(schema, proto, inputs))
        model = onnx.inliner.inline_local_functions(model, convert_version=True)
    else:
        model = onnx.inliner.inline_selected_functions(
            model, [(domain, node.op)], inline_schema_functions=True
        )
    return _imported(model, node, opset)


def _defaults(schema: onnx.defs.OpSchema, given: set[str]) -> list[onnx.AttributeProto]:
    """The values of attributes that are not given; ONNX's inliner leaves some of them out."""
    absent = onnx.AttributeProto.UNDEFINED
    return [
        attribute.default_value
        for name, attribute in schema.attributes.items()
        if name not in given and attribute.default_value.type != absent
    ]


def _body(
    schema: onnx.defs.OpSchema, proto: onnx.NodeProto, inputs: Mapping[str, TypedShape]
) -> onnx.FunctionProto:
    """The function the standard builds for this node's attributes and input types."""
    types = [
        onnx.helper.make_tensor_type_proto(onnx_type(inputs[name][0]), inputs[name][1])
        if name
        else onnx.TypeProto()
        for name in proto.input
    ]
    function = onnx.FunctionProto()
    function.ParseFromString(
        schema.get_context_dependent_function(
            proto.SerializeToString(), [t.SerializeToString() for t in types]
        )
    )
    return function


def _imported(model: onnx.ModelProto, node: gs.Node, opset: int) -> list[gs.Node] | None:
    if [n.op_type for n in model.graph.node] == [node.op]:
        return None
    outer = {t.name for t in [*node.inputs, *node.outputs]}
    prefix = next(t.name for t in node.outputs if t.name)
    body = import_graph(model.graph, opset)
    for tensor in body.tensors().values():
        if tensor.name and tensor.name not in outer:
            tensor.name = f"{prefix}/{tensor.name}"
    return list(body.nodes)
