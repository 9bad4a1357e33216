"""ONNX to Relax: a table from operator to entry, and the walk that applies it.

An entry gets the conversion's `Context`, its node and the node's inputs as Relax expressions
(None for an absent one) and returns the outputs. It raises `Refused` for what it does not handle;
an attribute it never looks at is refused for it. `to_relax` and `unsupported` take the same walk,
so what is reported and what is lowered cannot drift apart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import onnx_graphsurgeon as gs
import tvm
from tvm import relax

from edgec.errors import LoweringError
from edgec.lower import (
    activation,
    blocked,
    cast,
    conv,
    detection,
    elementwise,
    extent,
    generate,
    index,
    iterate,
    linear,
    matmul,
    normalization,
    order,
    pool,
    quantize,
    recurrent,
    reduce,
    resize,
    sample,
    shape,
)
from edgec.lower.blocked import Blocked
from edgec.lower.context import Context, Refused, Result, Shape, Unsupported, select, tensor_dtype
from edgec.lower.expand import expand
from edgec.lower.extent import FOLLOWERS, UNKNOWN, open_ended
from edgec.lower.fold import evaluate

if TYPE_CHECKING:
    from edgec.graph import Graph

Entry = Callable[[Context, gs.Node, list[relax.Expr | None]], Result]

TABLE: dict[str, Entry] = {
    **elementwise.ENTRIES,
    **extent.ENTRIES,
    **activation.ENTRIES,
    **cast.ENTRIES,
    **conv.ENTRIES,
    **detection.ENTRIES,
    **generate.ENTRIES,
    **index.ENTRIES,
    **linear.ENTRIES,
    **matmul.ENTRIES,
    **normalization.ENTRIES,
    **order.ENTRIES,
    **pool.ENTRIES,
    **quantize.ENTRIES,
    **recurrent.ENTRIES,
    **reduce.ENTRIES,
    **resize.ENTRIES,
    **sample.ENTRIES,
    **shape.ENTRIES,
}

ORIGIN = "edgec.origin"
"""Module attribute: name of a binding's variable -> name of the ONNX node it came from."""

EXTENTS = "edgec.extents"
"""Module attribute: (output, axis) of each extent that a run decides, in order of the counts."""

ITERATIONS = {"Loop": iterate.loop, "Scan": iterate.scan}
"""Operators whose body is walked too."""

NO_ENTRY = {"Unique": UNKNOWN}
"""Why operators that have no entry cannot have one, where there is more to say."""

MAX_EXPANSION = 32
"""How deep function bodies may nest."""


def to_relax(graph: Graph, block: int = 0) -> tvm.IRModule:
    """The graph as one Relax function `main(inputs...) -> Tuple(outputs)`, shapes static.

    With `block`, images between convolutions have their channels in blocks of that many.

    Parameters are named and ordered as the graph's inputs, weights are constants, and the module
    attribute `ORIGIN` maps each binding to its node. Outputs with an extent that a run decides have
    the largest shape there can be; the counts, int64 [1] each, follow the outputs, and `EXTENTS`
    says what they are. Raises LoweringError naming every node that cannot be lowered.
    """
    module, refused = _convert(graph, block)
    if refused:
        nodes = "".join(f"\n  {each.op} '{each.node}': {each.why}" for each in refused)
        raise LoweringError(
            f"{len(refused)} of the model's nodes cannot be lowered:{nodes}",
            hint="these operators or attributes are not supported",
        )
    return module


def unsupported(graph: Graph) -> list[Unsupported]:
    """Every node that `to_relax` would refuse, in the graph's order; no kernel is built."""
    return _convert(graph, 0)[1]


def _convert(graph: Graph, block: int) -> tuple[tvm.IRModule, list[Unsupported]]:
    source = graph.gs
    builder = relax.BlockBuilder()
    ctx = Context(builder, block, open_ended(source))
    walk = Walk(ctx, int(source.opset))
    try:
        params = [_placeholder(t) for t in source.inputs]
    except Refused as error:
        return tvm.IRModule(), [Unsupported("", "input", error.what)]
    for tensor, param in zip(source.inputs, params, strict=True):
        ctx.exprs[tensor.name] = param
    with builder.function("main", params):
        with builder.dataflow():
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


def _placeholder(tensor: gs.Variable) -> relax.Var:
    """A free variable with the tensor's declared dtype and shape."""
    if tensor.dtype is None or tensor.shape is None:
        raise Refused(f"tensor {tensor.name!r} has no known type and shape")
    if not all(isinstance(n, int | np.integer) for n in tensor.shape):
        raise Refused(f"tensor {tensor.name!r} has no static shape: {tensor.shape}")
    return relax.Var(
        tensor.name,
        relax.TensorType([int(n) for n in tensor.shape], tensor_dtype(tensor.dtype)),
    )


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
                self._node(node, name, depth)
            except Refused as error:
                if origin is not None:
                    raise Refused(f"{node.op} in its body: {error.what}") from error
                self.refused.append(Unsupported(name, node.op, error.what))
                self._stand_in(node)

    def output(self, tensor: gs.Tensor) -> relax.Expr:
        expr = self.expr(tensor)
        return relax.const(0.0) if expr is None else expr

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
        if node.op == "If":
            self._branch(node, name, depth)
        elif node.op in ITERATIONS and not node.domain:
            made = ITERATIONS[node.op](self, node, name, depth)
            for tensor, expr in zip(node.outputs, made, strict=True):
                self._bind(tensor, expr)
        elif node.domain not in (None, "", "ai.onnx"):
            raise Refused(f"operators of domain {node.domain!r} are not lowered")
        elif node.op in TABLE:
            self._entry(node)
        else:
            self._body(node, name, depth)

    def _image(self, node: gs.Node) -> bool:
        """Lower a node on blocked images, where it has such a form and its operands do."""
        entry = blocked.ENTRIES.get(node.op) if self.ctx.block else None
        if entry is None:
            return False
        inputs = [self._form(t) for t in node.inputs]
        if node.op != "Conv" and not any(isinstance(each, Blocked) for each in inputs):
            return False
        image = entry(self.ctx, node, inputs)
        if image is None:
            return False
        self._all_read(node)
        if isinstance(image, Blocked):
            self._check(node.outputs[0], image.shape(self.ctx), self.ctx.dtype(image.expr))
            self.images[node.outputs[0].name] = image
        else:
            self._bind(node.outputs[0], image)
        return True

    def _entry(self, node: gs.Node) -> None:
        ctx = self.ctx
        if self._image(node):
            return
        inputs = [self.expr(t) for t in node.inputs]
        for tensor, expr in zip(node.inputs, inputs, strict=True):
            if tensor.name and expr is None:
                raise Refused(f"its input {tensor.name!r} is not a tensor edgec can make")
        result = TABLE[node.op](ctx, node, inputs)
        self._all_read(node)
        if node.op in FOLLOWERS and node.inputs[0].name in ctx.extents:
            ctx.extents[node.outputs[0].name] = ctx.extents[node.inputs[0].name]
        results = result if isinstance(result, list) else [result]
        for tensor, expr in zip(node.outputs, results, strict=False):
            self._bind(tensor, expr)
        for tensor in node.outputs[len(results) :]:
            if tensor.name:
                raise Refused(f"output {tensor.name!r} is not lowered")

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
        if tensor.dtype is not None and np.dtype(tensor.dtype).name != dtype:
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
            raise Refused(NO_ENTRY.get(node.op, "this operator is not lowered"))
        self.nodes(body, name, depth + 1)
        for tensor in node.outputs:
            expr = self.expr(tensor)
            if expr is not None:
                self._bind(tensor, expr)

    def _branch(self, node: gs.Node, name: str, depth: int) -> None:
        """The branch taken, or both and a choice where that is known at run time only."""
        condition = self.ctx.constant(node, 0)
        if condition is not None:
            branch = node.attrs["then_branch" if condition.item() else "else_branch"]
            for outer, (inner, expr) in zip(
                node.outputs, self._outputs(branch, name, depth), strict=True
            ):
                self.ctx.exprs[outer.name] = expr
                if inner.name in self.ctx.values:
                    self.ctx.values[outer.name] = self.ctx.values[inner.name]
            return
        sides = [self._outputs(node.attrs[f"{k}_branch"], name, depth) for k in ("then", "else")]
        self.ctx.enter(node, name)
        flag = self.ctx.reshape(self.expr(node.inputs[0]), ())
        for outer, (_, yes), (_, no) in zip(node.outputs, *sides, strict=True):
            if self.ctx.shape(yes) != self.ctx.shape(no):
                raise Refused("its branches give different shapes")
            self._bind(outer, self.ctx.map("choose", select, flag, yes, no))

    def _outputs(
        self, branch: gs.Graph, name: str, depth: int
    ) -> list[tuple[gs.Tensor, relax.Expr]]:
        """Convert a branch; its outputs and their expressions."""
        self.nodes(branch.nodes, name, depth + 1)
        made = [(tensor, self.expr(tensor)) for tensor in branch.outputs]
        for tensor, expr in made:
            if expr is None:
                raise Refused(f"its output {tensor.name!r} is not a tensor")
        return made

    def _stand_in(self, node: gs.Node) -> None:
        """Let what follows a refused node be examined as if it had been lowered."""
        for tensor in node.outputs:
            try:
                self.ctx.exprs.setdefault(tensor.name, _placeholder(tensor))
            except Refused:
                continue
