"""Writing a model at another opset than the internal one.

onnx's converter knows how to go back for few operators. Most versions of an operator differ in the
types they allow or in what they can say beyond the older one, so a node that says nothing new is
simply kept: it is hidden from the converter in a domain of its own, which leaves foreign domains
alone. Whether the types are allowed is seen when the result is checked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx
from onnx import AttributeProto, NodeProto, TensorProto, helper, numpy_helper

from edgec import sandbox
from edgec.errors import ModelError
from edgec.limits import graphs
from edgec.skeleton import large_constant, split

_HIDDEN = "edgec.unchanged"
_OLDEST = 7

# The meaning changed in this version, and nothing in the schema shows it.
_NEW_MEANING = {"GridSample": 20, "GroupNormalization": 21, "Mod": 28, "Resize": 11}
# Before opset 13 these took all axes from `axis` on as one: the same only for the last axis.
_OVER_ONE_AXIS = ("Hardmax", "LogSoftmax", "Softmax")
# Inputs that were attributes before this version.
_ONCE_ATTRIBUTES = {
    "Clip": (11, ("min", "max")),
    "Dropout": (12, ("ratio",)),
    "Pad": (11, ("pads", "value")),
    "Slice": (10, ("starts", "ends", "axes")),
    "Split": (13, ("split",)),
    "TopK": (10, ("k",)),
}
_NEW_VALUES = {b"half_pixel_symmetric": 19, b"wrap": 19}
_RENAMED_INPUTS = ("BatchNormalization",)


def convert(model: onnx.ModelProto, source: int, target: int, *, trusted: bool) -> None:
    """Take `model`, in place, from opset `source` of the default domain to `target`.

    Raises ModelError, which names the operator, when one does not exist there or cannot say the
    same.
    """
    skeleton, weights = split(model, source)
    del skeleton.graph.value_info[:]
    skeleton.graph.value_info.extend(model.graph.value_info)
    skeleton.opset_import.append(helper.make_opsetid(_HIDDEN, 1))
    _check_known(skeleton.graph, target)
    _hide(skeleton.graph, source, target)
    try:
        data = sandbox.call("convert_to", skeleton.SerializeToString(), target, trusted=trusted)
    except ModelError as error:
        left = sorted({n.op_type for n in skeleton.graph.node if _is_standard(n)})
        where = f"one of {', '.join(left)}, going from opset {source} to {target}"
        raise ModelError(error.what, where=where, hint=error.hint) from error
    converted = onnx.ModelProto.FromString(data)
    for node in converted.graph.node:
        if node.domain == _HIDDEN:
            node.domain = ""
    imports = [o for o in converted.opset_import if o.domain != _HIDDEN]
    converted.ClearField("opset_import")
    converted.opset_import.extend(imports)
    sandbox.call("validate", converted.SerializeToString(), trusted=trusted)
    _carry_metadata(model.graph, converted.graph)
    large = [node for node in model.graph.node if large_constant(node) is not None]
    kept = [tensor for tensor in model.graph.initializer if tensor.name in weights]
    for field, values in (
        ("node", (*large, *converted.graph.node)),
        ("initializer", (*kept, *converted.graph.initializer)),
        ("value_info", tuple(converted.graph.value_info)),
    ):
        model.graph.ClearField(field)
        getattr(model.graph, field).extend(values)
    for entry in model.opset_import:
        if entry.domain == "":
            entry.version = target
    imports = list(model.opset_import)
    model.ir_version = max(helper.find_min_ir_version_for(imports, ignore_unknown=True), 4)


def _carry_metadata(source: onnx.GraphProto, target: onnx.GraphProto) -> None:
    metadata = {
        node.output[0]: node.metadata_props
        for graph in graphs(source)
        for node in graph.node
        if node.output
    }
    for graph in graphs(target):
        for node in graph.node:
            if node.output and not node.metadata_props:
                node.metadata_props.extend(metadata.get(node.output[0], ()))


def _check_known(graph: onnx.GraphProto, target: int) -> None:
    for node in (node for inner in graphs(graph) for node in inner.node if _is_standard(node)):
        if not onnx.defs.has(node.op_type):
            continue
        try:
            onnx.defs.get_schema(node.op_type, target)
        except onnx.defs.SchemaError as error:
            raise ModelError(
                f"opset {target} has no {node.op_type}",
                where=f"node '{node.name}'" if node.name else "",
                hint="leave out the pass that made it, or take a newer opset",
            ) from error


def _is_standard(node: NodeProto) -> bool:
    return node.domain in ("", "ai.onnx")


def _hide(graph: onnx.GraphProto, source: int, target: int) -> None:
    constants = {tensor.name: tensor for tensor in graph.initializer}
    ranks = {
        info.name: len(info.type.tensor_type.shape.dim)
        for inner in graphs(graph)
        for info in (*inner.input, *inner.output, *inner.value_info)
        if info.type.tensor_type.HasField("shape")
    }
    for node in graph.node:
        older = _as_older(node, source, target, constants, ranks)
        if older is not None:
            node.CopyFrom(older)
            node.domain = _HIDDEN


def _as_older(
    node: NodeProto,
    source: int,
    target: int,
    constants: Mapping[str, TensorProto],
    ranks: Mapping[str, int],
) -> NodeProto | None:
    """`node` as opset `target` writes it, or None when that is not known to mean the same."""
    if not _is_standard(node) or target < _OLDEST:
        return None
    if min(source, target) < _NEW_MEANING.get(node.op_type, 0) <= max(source, target):
        return None
    try:
        new = onnx.defs.get_schema(node.op_type, source)
        old = onnx.defs.get_schema(node.op_type, target)
    except onnx.defs.SchemaError:
        return None
    older = NodeProto()
    older.CopyFrom(node)
    version, names = _ONCE_ATTRIBUTES.get(node.op_type, (0, ()))
    if target < version and not _inputs_to_attributes(older, names, constants, old):
        return None
    if target < 13 and node.op_type in _OVER_ONE_AXIS:
        _set_last_axis(older, ranks)
    kept = [a for a in older.attribute if a.name in old.attributes or not _is_default(a, new)]
    del older.attribute[:]
    older.attribute.extend(kept)
    if _attributes_fit(older, old, new, target) and _inputs_fit(older, old, new):
        for inner in _inner_graphs(older):
            known = {**constants, **{t.name: t for t in inner.initializer}}
            for item in inner.node:
                written = _as_older(item, source, target, known, ranks)
                if written is None:
                    return None
                item.CopyFrom(written)
        return older
    return None


def _set_last_axis(node: NodeProto, ranks: Mapping[str, int]) -> None:
    """Name the last axis; any other one raises, since onnx's converter gets it wrong."""
    rank = ranks.get(node.input[0], 0)
    axis = next((a.i for a in node.attribute if a.name == "axis"), -1)
    if axis not in (-1, rank - 1) or not rank:
        raise ModelError(
            f"opset 12 has no {node.op_type} over another axis than the last",
            where=f"node '{node.name}'",
        )
    del node.attribute[:]
    node.attribute.append(helper.make_attribute("axis", rank - 1))


def _inner_graphs(node: NodeProto) -> Iterable[onnx.GraphProto]:
    return [attribute.g for attribute in node.attribute if attribute.HasField("g")]


def _inputs_to_attributes(
    node: NodeProto,
    names: Iterable[str],
    constants: Mapping[str, TensorProto],
    old: onnx.defs.OpSchema,
) -> bool:
    for position, name in enumerate(names, 1):
        source = node.input[position] if position < len(node.input) else ""
        if not source:
            continue
        if source not in constants or name not in old.attributes:
            return False
        value = numpy_helper.to_array(constants[source])
        is_list = old.attributes[name].type.value in (AttributeProto.INTS, AttributeProto.FLOATS)
        node.attribute.append(
            helper.make_attribute(name, value.tolist() if is_list else value.reshape(()).item())
        )
    if any(node.input[len(tuple(names)) + 1 :]):
        return False
    del node.input[1:]
    return True


def _is_default(attribute: AttributeProto, schema: onnx.defs.OpSchema) -> bool:
    known = schema.attributes.get(attribute.name)
    if known is None or not known.default_value.name:
        return False
    return bool(
        helper.get_attribute_value(attribute) == helper.get_attribute_value(known.default_value)
    )


def _attributes_fit(
    node: NodeProto, old: onnx.defs.OpSchema, new: onnx.defs.OpSchema, target: int
) -> bool:
    given = {attribute.name: attribute for attribute in node.attribute}
    for name, attribute in given.items():
        if name not in old.attributes or old.attributes[name].type.value != attribute.type:
            return False
        if target < 11 and name in ("axis", "axes"):
            numbers = attribute.ints if name == "axes" else (attribute.i,)
            if any(number < 0 for number in numbers):
                return False
        if target < _NEW_VALUES.get(attribute.s, 0):
            raise ModelError(
                f"opset {target} does not know {name} = {attribute.s.decode()!r}",
                where=f"node '{node.name}' ({node.op_type})",
            )
    for name, known in old.attributes.items():
        now = new.attributes.get(name, known)
        same = known.default_value == now.default_value
        if name not in given and (known.required or not same):
            return False
    return True


def _inputs_fit(node: NodeProto, old: onnx.defs.OpSchema, new: onnx.defs.OpSchema) -> bool:
    if not old.min_input <= len(node.input) <= old.max_input:
        return False
    if not old.min_output <= len(node.output) <= old.max_output:
        return False
    single = onnx.defs.OpSchema.FormalParameterOption.Single
    pairs = zip(node.input, old.inputs, new.inputs, strict=False)
    for name, before, after in pairs:
        if before.name != after.name and node.op_type not in _RENAMED_INPUTS:
            return False
        if not name and before.option == single:
            return False
    return True
