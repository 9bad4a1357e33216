"""What an operator's lowering sees: the block being built, shapes, dtypes, known values,
attributes.

Every tensor is static: `shape` is a tuple of int, `dtype` a TVM name ("float32", "int64", "bool").
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import onnx_graphsurgeon as gs
from tvm import relax, te, tirx
from tvm.ir import Constant, Op

from edgec.errors import LoweringError
from edgec.lower.loops import extern
from edgec.lower.packed_weight import Stored

Shape = tuple[int, ...]
Result = relax.Expr | list[relax.Expr]


class Refused(LoweringError):
    """One node asks for something edgec does not lower; `what` says which part."""


class Unsupported(NamedTuple):
    """A node that cannot be lowered: its name, its operator type and the reason."""

    node: str
    op: str
    why: str


def numpy_dtype(dtype: str) -> np.dtype[Any]:
    """The numpy dtype of a TVM dtype name, ml_dtypes' for the narrow floats."""
    made: np.dtype[Any] = np.dtype(getattr(ml_dtypes, dtype, dtype))
    return made


def tensor_dtype(dtype: Any) -> str:
    """The TVM dtype name of a numpy dtype; raises Refused for strings and narrow types."""
    name = str(np.dtype(dtype).name)
    if name not in _DTYPES:
        raise Refused(f"elements of type {name} are not lowered")
    return name


_DTYPES = frozenset(
    ["bool", "float16", "bfloat16", "float32", "float64"]
    + [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
)


_NARROW_FLOATS = ("4_e2m1fn", "8_e8m0fnu", "8_e4m3fn", "8_e4m3fnuz", "8_e5m2", "8_e5m2fnuz")
WIDER = {
    **{"int2": "int8", "int4": "int8", "uint2": "uint8", "uint4": "uint8"},
    **{f"float{kind}": "float32" for kind in _NARROW_FLOATS},
}
"""The types in which those are held that are too narrow to compute with (see `narrow`)."""


OUT_ELEMENTWISE_FUSABLE = 4
"""TVM's `op_pattern` of a kernel that computes what follows element by element in the same loop,
but nothing of what comes before: it reads each of its inputs several times."""


ELEMENTWISE = "edgec.elementwise"
"""Attribute of a kernel that TVM is to fuse as one that works element by element, though it reads
more than an element of one of its inputs."""


def held_dtype(dtype: Any) -> str:
    """The TVM dtype that holds elements of a numpy dtype; raises Refused for strings."""
    name = np.dtype(dtype).name
    return tensor_dtype(WIDER.get(name, dtype))


_PERMUTE = Op.get("relax.permute_dims")


class Context:
    """The state of one conversion. Entries use it to read their node and to emit expressions.

    `block` is the number of channels in a block of an image (see `edgec.lower.blocked`), 0 for
    none; `winograd` the largest tiles by which 3x3 convolutions are computed
    (`edgec.lower.winograd`), 0 for none; `dots` how bytes are multiplied (`Target.dots`).
    `open_ended` names the tensors whose extent a run may decide; `extents` has the axis and the
    count, int64 [1], of those where it does (see `edgec.lower.extent`). `sequences` has the
    elements of each sequence of tensors, `stored` the form of each constant that is narrower in the
    model than its expression in `exprs`.
    """

    def __init__(
        self,
        builder: relax.BlockBuilder,
        block: int = 0,
        open_ended: frozenset[str] = frozenset(),
        winograd: int = 0,
        dots: str = "unsigned",
    ) -> None:
        self.builder = builder
        self.block = block
        self.winograd = winograd
        self.dots = dots
        self.extents: dict[str, tuple[int, relax.Expr]] = {}
        self._open_ended = open_ended
        self.sequences: dict[str, list[relax.Expr]] = {}
        self.values: dict[str, np.ndarray] = {}
        self.exprs: dict[str, relax.Expr] = {}
        self.stored: dict[str, Stored] = {}
        self.origin: dict[str, str] = {}
        self._node = ""
        self._label = ""
        self._read: set[str] = set()

    @property
    def unsigned(self) -> bool:
        """Whether kernels multiply bytes without a sign by weights with one."""
        return self.dots in ("unsigned", "words")

    def enter(self, node: gs.Node, origin: str) -> None:
        """Start `node`: bindings emitted from here on are recorded as `origin`'s."""
        self._node = origin
        self._label = node.outputs[0].name if node.outputs else node.name
        self._read = set()

    def unread(self, node: gs.Node) -> list[str]:
        """Attributes of `node` that its entry never looked at."""
        return sorted(set(node.attrs) - self._read)

    def attr(self, node: gs.Node, name: str, default: Any = None) -> Any:
        """The attribute's value, or `default`; marks the attribute as handled."""
        self._read.add(name)
        value = node.attrs.get(name)
        return default if value is None else value

    def ignore(self, *names: str) -> None:
        """Mark attributes as handled whose value cannot change the result."""
        self._read.update(names)

    def constant(self, node: gs.Node, index: int) -> np.ndarray | None:
        """The value of the node's input `index` where it is known now; None if absent or not."""
        if index >= len(node.inputs) or not node.inputs[index].name:
            return None
        name = node.inputs[index].name
        expr = self.exprs.get(name)
        if name not in self.values and isinstance(expr, Constant):
            value: np.ndarray = expr.value.numpy()
            return value
        return self.values.get(name)

    def required(self, node: gs.Node, index: int, what: str) -> np.ndarray:
        """Like `constant`, for an input the lowering cannot do without; raises Refused."""
        value = self.constant(node, index)
        if value is None:
            raise Refused(f"{what} must be constant")
        return value

    def shape(self, expr: relax.Expr) -> Shape:
        return tuple(int(n) for n in expr.ty.shape)

    def dtype(self, expr: relax.Expr) -> str:
        return str(expr.ty.dtype)

    def output_shape(self, node: gs.Node, index: int = 0) -> Shape:
        """The shape that shape inference gave output `index`; raises Refused without one."""
        shape = node.outputs[index].shape
        if shape is None or not all(isinstance(n, int | np.integer) for n in shape):
            raise Refused("the output's shape depends on values known at run time only")
        return tuple(int(n) for n in shape)

    def open_ended(self, node: gs.Node, index: int = 0) -> bool:
        """Whether a run may decide an extent of the node's output `index`."""
        return node.outputs[index].name in self._open_ended

    def with_extent(
        self, node: gs.Node, expr: relax.Expr, axis: int, count: relax.Expr, index: int = 0
    ) -> relax.Expr:
        """`expr`, the node's output `index`, with `count` as its extent along `axis`."""
        self.extents[node.outputs[index].name] = axis, count
        return expr

    def const(self, value: Any, dtype: str | None = None) -> Constant:
        """A tensor constant of the array's own dtype, or of `dtype`.

        Types narrower than a byte and 8-bit floats are held in the next wider type.
        """
        array = np.asarray(value)
        array = array.astype(WIDER.get(array.dtype.name, array.dtype))
        if dtype is not None:
            array = array.astype(numpy_dtype(dtype))
        tensor_dtype(array.dtype)
        return relax.const(np.ascontiguousarray(array).reshape(array.shape), array.dtype)

    def empty(self, shape: Shape, dtype: str) -> relax.Expr:
        """A tensor of no elements: `shape` has a zero."""
        return self.te(
            "empty", lambda: te.compute(shape, lambda *_: literal(0, dtype), name="empty")
        )

    def full(self, shape: Shape, value: Any, dtype: str) -> relax.Expr:
        """A small tensor of one value, kept as a constant."""
        if prod(shape) == 0:
            return self.empty(shape, dtype)
        return self.const(np.full(shape, value), dtype)

    def emit(self, expr: relax.Expr) -> relax.Var:
        """Bind `expr` to a variable named after the node's first output."""
        try:
            var = self.builder.emit(expr, name_hint=self._label)
        except ValueError as error:
            raise Refused(f"TVM refuses it: {str(error).splitlines()[0][:200]}") from error
        self.origin[var.name] = self._node
        return var

    def te(
        self,
        name: str,
        function: Callable[..., Any],
        *args: relax.Expr,
        attributes: dict[str, Any] | None = None,
    ) -> Any:
        """Emit `function` over TE tensors as one kernel named `name`, with these attributes.

        Returns a variable, or a list of them where the function returns a list.
        """
        call = self.builder.call_te(
            function, *args, primfunc_name_hint=name, primfunc_attrs=attributes
        )
        var = self.emit(call)
        if isinstance(var.ty, relax.TensorType):
            return var
        return [self.emit(relax.TupleGetItem(var, i)) for i in range(len(var.ty.fields))]

    def map(
        self, name: str, function: Callable[..., Any], *args: relax.Expr, to: Shape | None = None
    ) -> relax.Var:
        """Emit `function` of one element each of `args`, broadcast as numpy does (to `to`).

        Arguments of the full shape are read at the output's own index, unit axes included: TVM
        fuses the result into a convolution only when it can see that it is elementwise.
        """
        shape = np.broadcast_shapes(*(self.shape(a) for a in args), *([to] if to else []))

        def compute(*tensors: te.Tensor) -> te.Tensor:
            return te.compute(
                shape,
                lambda *index: function(
                    *(t(*index) if tuple(t.shape) == shape else at(t, index) for t in tensors)
                ),
                name=name,
            )

        return self.te(name, compute, *args)

    def loops(
        self,
        name: str,
        body: Callable[..., None],
        inputs: list[relax.Expr],
        outputs: list[tuple[Shape, str]],
    ) -> Any:
        """Emit `body(loops, *inputs, *outputs)` (see `edgec.lower.loops`) as one kernel."""
        return self.te(name, lambda *args: extern(body, list(args), outputs), *inputs)

    def choose(self, which: relax.Expr, options: list[relax.Expr]) -> relax.Expr:
        """The option that the scalar `which`, a possibly negative integer, picks at run time."""
        count = len(options)

        def picked(index: Any, *values: Any) -> Any:
            result = values[0]
            for k in range(1, count):
                hit = tirx.any(index == k, index == k - count)
                result = tirx.Select(hit, values[k], result)
            return result

        return self.map("choose", picked, which, *options)

    def reshape(self, expr: relax.Expr, shape: Shape) -> relax.Expr:
        """`expr` with another shape, computed at once for a constant, omitted where equal."""
        shape = tuple(int(n) for n in shape)
        if prod(shape) != prod(self.shape(expr)):
            raise Refused(f"cannot reshape {self.shape(expr)} to {shape}")
        if shape == self.shape(expr):
            return expr
        if isinstance(expr, Constant):
            return self.const(expr.value.numpy().reshape(shape))
        if prod(shape) == 0:
            return self.empty(shape, self.dtype(expr))
        return self.emit(relax.op.reshape(expr, shape))

    def transpose(self, expr: relax.Expr, axes: list[int]) -> relax.Expr:
        """`expr` with its axes permuted; a plain reshape where only axes of size 1 move."""
        shape = self.shape(expr)
        if isinstance(expr, Constant):
            return self.const(np.transpose(expr.value.numpy(), axes))
        moved = [a for a in axes if shape[a] != 1]
        if moved == sorted(moved):
            return self.reshape(expr, tuple(shape[a] for a in axes))
        return self.emit(relax.op.permute_dims(expr, axes))

    def before_transpose(self, expr: relax.Expr, axes: tuple[int, ...]) -> relax.Expr | None:
        """What `expr` is with its axes permuted by `axes`; None where it is nothing of the kind."""
        value = self.builder.lookup_binding(expr) if isinstance(expr, relax.Var) else None
        if not isinstance(value, relax.Call) or value.op != _PERMUTE:
            return None
        return value.args[0] if tuple(map(int, value.attrs.axes)) == axes else None

    def broadcast(self, expr: relax.Expr, shape: Shape) -> relax.Expr:
        if self.shape(expr) == shape:
            return expr
        if isinstance(expr, Constant):
            return self.const(np.broadcast_to(expr.value.numpy(), shape))
        return self.map("broadcast", lambda x: x, expr, to=shape)

    def cast(self, expr: relax.Expr, dtype: str) -> relax.Expr:
        """Plain conversion between number types, as C does it."""
        if self.dtype(expr) == dtype:
            return expr
        if isinstance(expr, Constant):
            return self.const(expr.value.numpy(), dtype)
        return self.map("cast", lambda x: x.astype(dtype), expr)


def sum_type(dtype: str) -> str:
    """What values of `dtype` are added up in: half precision in float32, as ONNX Runtime does."""
    return "float32" if dtype in ("float16", "bfloat16") else dtype


def operator(node: gs.Node) -> str:
    """The operator's name, with its domain in front where that is not ONNX's own."""
    return node.op if node.domain in (None, "", "ai.onnx") else f"{node.domain}.{node.op}"


def at(tensor: te.Tensor, index: tuple[Any, ...]) -> Any:
    """The element of `tensor` that broadcasting aligns with output position `index`."""
    shape = tensor.shape
    aligned = index[len(index) - len(shape) :]
    return tensor(*(0 if int(n) == 1 else i for n, i in zip(shape, aligned, strict=True)))


def literal(value: Any, dtype: str) -> Any:
    """A TIR immediate of the given dtype."""
    if dtype == "bool":
        return tirx.const(bool(value), "bool")
    if dtype.startswith(("int", "uint")):
        return tirx.const(int(value), dtype)
    return tirx.const(float(value), dtype)


def is_float(dtype: str) -> bool:
    return dtype.startswith(("float", "bfloat"))


def axis_of(axis: Any, rank: int) -> int:
    """A possibly negative axis as one of range(rank); raises Refused outside it."""
    place = int(axis)
    if not -rank <= place < max(rank, 1):
        raise Refused(f"axis {place} is outside a tensor of rank {rank}")
    return place + rank if place < 0 else place


def select(condition: Any, yes: Any, no: Any) -> Any:
    """Either value, both of which are safe to compute."""
    return tirx.Select(condition, yes, no)
