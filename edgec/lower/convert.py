"""ONNX to Relax: a table from operator to entry, and the walk that applies it.

An entry gets the conversion's `Context`, its node and the node's inputs as Relax expressions
(None for an absent one) and returns the outputs, or None to leave the node to the body that the
standard defines it by. It raises `Refused` for what it does not handle;
an attribute it never looks at is refused for it. `to_relax` and `unsupported` take the same walk,
so what is reported and what is lowered cannot drift apart.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING

import numpy as np
import onnx_graphsurgeon as gs
import tvm
from tvm import relax

from edgec.errors import LoweringError
from edgec.lower import (
    activation,
    attention,
    blocked,
    branch,
    cast,
    conv,
    deform,
    detection,
    dynamic,
    elementwise,
    extent,
    features,
    generate,
    index,
    iterate,
    linear,
    matmul,
    normalization,
    optional,
    order,
    packed_nbits,
    pool,
    quantize,
    recurrent,
    reduce,
    resize,
    sample,
    sequence,
    shape,
    signal,
    softmax,
    training,
    trees,
    unique,
)
from edgec.lower.context import (
    Context,
    Refused,
    Result,
    Shape,
    Unsupported,
    held_dtype,
    operator,
)
from edgec.lower.expand import expand
from edgec.lower.extent import FOLLOWERS, open_ended
from edgec.lower.fold import evaluate
from edgec.lower.image import Blocked
from edgec.lower.interrupt import block_ended, uninterrupted
from edgec.lower.narrow import packed, unpacked
from edgec.packing import is_packed, stored_shape
from edgec.tensors import is_static

if TYPE_CHECKING:
    from edgec.graph import Graph

Entry = Callable[[Context, gs.Node, list[relax.Expr | None]], Result | None]

TABLE: dict[str, Entry] = {
    **elementwise.ENTRIES,
    **extent.ENTRIES,
    **activation.ENTRIES,
    **attention.ENTRIES,
    **cast.ENTRIES,
    **conv.ENTRIES,
    **deform.ENTRIES,
    **detection.ENTRIES,
    **dynamic.ENTRIES,
    **features.ENTRIES,
    **generate.ENTRIES,
    **index.ENTRIES,
    **linear.ENTRIES,
    **matmul.ENTRIES,
    **normalization.ENTRIES,
    **optional.ENTRIES,
    **order.ENTRIES,
    **packed_nbits.ENTRIES,
    **pool.ENTRIES,
    **quantize.ENTRIES,
    **recurrent.ENTRIES,
    **reduce.ENTRIES,
    **resize.ENTRIES,
    **sample.ENTRIES,
    **shape.ENTRIES,
    **signal.ENTRIES,
    **softmax.ENTRIES,
    **training.ENTRIES,
    **trees.ENTRIES,
    **unique.ENTRIES,
}

ORIGIN = "edgec.origin"
"""Module attribute: name of a binding's variable -> name of the ONNX node it came from."""

EXTENTS = "edgec.extents"
"""Module attribute: (output, axis) of each extent that a run decides, in order of the counts."""

WITH_BODIES = {"If": branch.branch, "Loop": iterate.loop, "Scan": iterate.scan}
"""Operators whose body is walked too."""

MOST_ELEMENTS = 1 << 31
"""Of a tensor: entries make tables of that size, and no device here holds more."""

MAX_EXPANSION = 32
"""How deep function bodies may nest."""


def to_relax(
    graph: Graph, block: int = 0, winograd: int = 0, dots: str = "unsigned"
) -> tvm.IRModule:
    """The graph as one Relax function `main(inputs...) -> Tuple(outputs)`, shapes static.

    With `block`, images between convolutions have their channels in blocks of that many; with
    `winograd`, 3x3 convolutions of them are computed by tiles of that size. `dots` is how bytes are
    multiplied (`Target.dots`).

    Parameters are named and ordered as the graph's inputs, weights are constants, and the module
    attribute `ORIGIN` maps each binding to its node. Outputs with an extent that a run decides have
    the largest shape there can be; the counts, int64 [1] each, follow the outputs, and `EXTENTS`
    says what they are. Raises LoweringError naming every node that cannot be lowered.
    """
    module, refused = _convert(graph, block, winograd, dots)
    if refused:
        nodes = "".join(f"\n  {each.op} '{each.node}': {each.why}" for each in refused)
        raise LoweringError(
            f"{len(refused)} of the model's nodes cannot be lowered:{nodes}",
            hint="these operators or attributes are not supported",
        )
    return module


def unsupported(graph: Graph) -> list[Unsupported]:
    """Every node that `to_relax` would refuse, in the graph's order; no kernel is built."""
    return _convert(graph, 0, 0, "unsigned")[1]


def _convert(
    graph: Graph, block: int, winograd: int, dots: str
) -> tuple[tvm.IRModule, list[Unsupported]]:
    source = graph.gs
    builder = relax.BlockBuilder()
    ctx = Context(builder, block, open_ended(source), winograd, dots)
    walk = Walk(ctx, int(source.opset))
    try:
        params = [_placeholder(t, stored=True) for t in source.inputs]
    except Refused as error:
        return tvm.IRModule(), [Unsupported("", "input", error.what)]
    with builder.function("main", params):
        with block_ended(builder), builder.dataflow():
            for tensor, param in zip(source.inputs, params, strict=True):
                walk.input(tensor, param)
            walk.nodes(source.nodes, None)
            outputs = [walk.output(t) for t in source.outputs]
            extents = [
                (index, *ctx.extents[tensor.name])
                for index, tensor in enumerate(source.outputs)
                if tensor.name in ctx.extents
            ]
            counts = [count for *_, count in extents]
            result = builder.emit_output(relax.Tuple([*outputs, *counts]))
        builder.emit_func_output(result)
    module = builder.finalize().with_attr(ORIGIN, ctx.origin)
    return module.with_attr(EXTENTS, [[i, axis] for i, axis, _ in extents]), walk.refused


def _placeholder(tensor: gs.Variable, stored: bool = False) -> relax.Var:
    """A free variable with the tensor's declared dtype and shape, as it is held or `stored`."""
    if tensor.dtype is None or tensor.shape is None:
        raise Refused(f"tensor {tensor.name!r} has no known type and shape")
    if not all(isinstance(n, int | np.integer) for n in tensor.shape):
        raise Refused(f"tensor {tensor.name!r} has no static shape: {tensor.shape}")
    shape, dtype = tuple(int(n) for n in tensor.shape), held_dtype(tensor.dtype)
    if stored and is_packed(tensor.dtype.name):
        shape, dtype = stored_shape(tensor.dtype.name, shape), "uint8"
    return relax.Var(tensor.name, relax.TensorType(shape, dtype))


class Walk:
    """One pass over nodes, bodies of functions and taken branches included."""

    def __init__(self, ctx: Context, opset: int) -> None:
        self.ctx = ctx
        self.opset = opset
        self.refused: list[Unsupported] = []
        self.images: dict[str, Blocked] = {}

    def nodes(self, nodes: list[gs.Node], origin: str | None, depth: int = 0) -> None:
        """Convert `nodes` in order; `origin` names the node whose body they are, if any."""
        for node in nodes:
            name = origin if origin is not None else node.name or node.outputs[0].name
            self.ctx.enter(node, name)
            try:
                with uninterrupted():
                    self._node(node, name, depth)
            except Refused as error:
                if origin is not None:
                    raise Refused(f"{node.op} in its body: {error.what}") from error
                self.refused.append(Unsupported(name, node.op, error.what))
                self._stand_in(node)

    def input(self, tensor: gs.Variable, param: relax.Var) -> None:
        """Make a parameter the tensor; narrow elements are unpacked for its first reader."""
        if is_packed(tensor.dtype.name) and tensor.outputs:
            reader = tensor.outputs[0]
            self.ctx.enter(reader, reader.name or reader.outputs[0].name)
            param = unpacked(self.ctx, param, tensor.dtype.name, tuple(tensor.shape))
        self.ctx.exprs[tensor.name] = param

    def output(self, tensor: gs.Tensor) -> relax.Expr:
        """The result of a tensor, narrow elements packed; a number where it was refused."""
        expr = self.expr(tensor)
        if expr is None:
            return relax.const(0.0)
        if tensor.dtype is not None and is_packed(np.dtype(tensor.dtype).name):
            return packed(self.ctx, expr, np.dtype(tensor.dtype).name)
        return expr

    def inner(self) -> Walk:
        """A walk over a body, which has images of its own."""
        return Walk(self.ctx, self.opset)

    def tensor(self, tensor: gs.Tensor) -> relax.Expr:
        """The tensor as an expression; raises Refused where it is absent, or no tensor."""
        expr = self.expr(tensor)
        if expr is None:
            raise Refused(f"{tensor.name!r} is not a tensor edgec can make")
        return expr

    def expr(self, tensor: gs.Tensor) -> relax.Expr | None:
        """The tensor as an expression, None where there is none."""
        name = tensor.name
        if not name:
            return None
        if isinstance(tensor, gs.Constant) and name not in self.ctx.values:
            self.ctx.values[name] = tensor.values
        if name not in self.ctx.exprs and name in self.ctx.values:
            self.ctx.exprs[name] = self.ctx.const(self.ctx.values[name])
        if name not in self.ctx.exprs and name in self.images:
            self.ctx.exprs[name] = self.images[name].plain(self.ctx)
        return self.ctx.exprs.get(name)

    def _form(self, tensor: gs.Tensor) -> relax.Expr | Blocked | None:
        """The tensor as it is at hand, blocked images first."""
        return self.images.get(tensor.name) or self.expr(tensor)

    def _node(self, node: gs.Node, name: str, depth: int) -> None:
        ctx = self.ctx
        for tensor in node.inputs:
            if isinstance(tensor, gs.Constant):
                ctx.values.setdefault(tensor.name, tensor.values)
        for tensor in node.outputs:
            if is_static(tensor) and prod(tensor.shape) > MOST_ELEMENTS:
                raise Refused(f"it makes {tensor.shape}, too large a tensor")
        shapes = {t.name: ctx.shape(ctx.exprs[t.name]) for t in node.inputs if t.name in ctx.exprs}
        shapes |= {
            t.name: self.images[t.name].shape(ctx) for t in node.inputs if t.name in self.images
        }
        known = evaluate(node, ctx.values, shapes, self.opset)
        if known is not None:
            ctx.values.update(
                {t.name: v for t, v in zip(node.outputs, known, strict=False) if t.name}
            )
            return
        if operator(node) in WITH_BODIES:
            made = WITH_BODIES[node.op](self, node, name, depth)
            for tensor, expr in zip(node.outputs, made, strict=True):
                self._bind(tensor, expr)
        elif operator(node) in sequence.OPERATORS:
            result = sequence.apply(self.ctx, node, [self.expr(t) for t in node.inputs])
            self._all_read(node)
            if result is not None:
                self._bind(node.outputs[0], result)
        elif operator(node) not in TABLE or not self._entry(node):
            self._body(node, name, depth)

    def _image(self, node: gs.Node) -> bool:
        """Lower a node on blocked images, where it has such a form and its operands do."""
        entry = blocked.ENTRIES.get(operator(node)) if self.ctx.block else None
        if entry is None:
            return False
        inputs = [self._form(t) for t in node.inputs]
        reads_plain = node.op in blocked.FROM_PLAIN
        if not reads_plain and not any(isinstance(each, Blocked) for each in inputs):
            return False
        image = entry(self.ctx, node, inputs)
        if image is None:
            return False
        self._all_read(node)
        images = image if isinstance(image, list) else [image]
        for tensor, each in zip(node.outputs, images, strict=False):
            if not isinstance(each, Blocked):
                self._bind(tensor, each)
            elif tensor.name:
                self._check(tensor, each.shape(self.ctx), self.ctx.dtype(each.expr))
                self.images[tensor.name] = each
        return True

    def _entry(self, node: gs.Node) -> bool:
        """Lower a node by its entry; False where that leaves the node to the standard's body."""
        ctx = self.ctx
        if self._image(node):
            return True
        inputs = [self.expr(t) for t in node.inputs]
        for tensor, expr in zip(node.inputs, inputs, strict=True):
            if tensor.name and expr is None:
                raise Refused(f"its input {tensor.name!r} is not a tensor edgec can make")
        result = TABLE[operator(node)](ctx, node, inputs)
        if result is None:
            return False
        self._all_read(node)
        if node.op in FOLLOWERS and node.inputs[0].name in ctx.extents:
            ctx.extents[node.outputs[0].name] = ctx.extents[node.inputs[0].name]
        results = result if isinstance(result, list) else [result]
        for tensor, expr in zip(node.outputs, results, strict=False):
            self._bind(tensor, expr)
        for tensor in node.outputs[len(results) :]:
            if tensor.name:
                raise Refused(f"output {tensor.name!r} is not lowered")
        return True

    def _all_read(self, node: gs.Node) -> None:
        """Refuse a node with an attribute that its entry did not look at."""
        unread = self.ctx.unread(node)
        if unread:
            raise Refused(f"attribute {unread[0]} is not handled")

    def _bind(self, tensor: gs.Variable, expr: relax.Expr) -> None:
        """Name `expr` as the tensor, after checking it against what shape inference said."""
        if not tensor.name:
            return
        self._check(tensor, self.ctx.shape(expr), self.ctx.dtype(expr))
        self.ctx.exprs[tensor.name] = expr

    def _check(self, tensor: gs.Variable, shape: Shape, dtype: str) -> None:
        """Compare what was made with what shape inference said; raises Refused."""
        declared = tensor.shape or ()
        static = tensor.shape is not None and all(isinstance(n, int | np.integer) for n in declared)
        if static and tuple(int(n) for n in declared) != shape:
            raise Refused(f"shape {shape} of {tensor.name!r} is declared as {tuple(declared)}")
        if tensor.dtype is not None and held_dtype(tensor.dtype) != dtype:
            raise Refused(f"{tensor.name!r} of {dtype} is declared {tensor.dtype}")

    def _body(self, node: gs.Node, name: str, depth: int) -> None:
        if depth >= MAX_EXPANSION:
            raise Refused("function bodies nest too deeply")
        types = {}
        for tensor in node.inputs:
            expr = self.expr(tensor)
            if expr is not None:
                types[tensor.name] = (self.ctx.dtype(expr), self.ctx.shape(expr))
        body = expand(node, types, self.opset)
        if body is None:
            where = "" if operator(node) == node.op else f" of domain {node.domain!r}"
            raise Refused(f"this operator{where} is not lowered")
        self.nodes(body, name, depth + 1)
        for tensor in node.outputs:
            expr = self.expr(tensor)
            if expr is not None:
                self._bind(tensor, expr)

    def _stand_in(self, node: gs.Node) -> None:
        """Let what follows a refused node be examined as if it had been lowered."""
        for tensor in node.outputs:
            try:
                self.ctx.exprs.setdefault(tensor.name, _placeholder(tensor))
            except Refused:
                continue
