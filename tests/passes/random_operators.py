"""Operators that random models are made of, and what they need; each adds a node, if it can."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper
from random_builder import MAX_ELEMENTS, Builder


def elementwise(b: Builder) -> None:
    x = b.pick()
    ops = ("Relu", "Sigmoid", "Tanh", "Erf", "Neg", "Abs", "Identity", "Softplus", "HardSigmoid")
    b.add(
        b.one_of(*ops, *(("HardSwish",) if b.opset >= 14 else ())), [x.name], ("float32", x.shape)
    )


def arithmetic(b: Builder) -> None:
    """Of two tensors, of a tensor and a constant that broadcasts, or of a tensor and itself."""
    x = b.pick()
    op = b.one_of("Add", "Sub", "Mul", "Max", "Min")
    same = [v for v in b.values if v.dtype == "float32" and v.shape == x.shape]
    if b.integer(0, 1):
        other = b.one_of(*same).name
    else:
        kept = [d if b.integer(0, 1) else 1 for d in x.shape]
        other = b.floats(tuple(kept[b.integer(0, len(kept)) :]))
    pair = [x.name, other] if b.integer(0, 2) else [other, x.name]
    b.add(op, pair, ("float32", x.shape))


def divide(b: Builder) -> None:
    x = b.pick()
    b.add("Div", [x.name, b.constant(np.float32(b.one_of(1, 2, -4, 0.5)))], ("float32", x.shape))


def integers(b: Builder) -> None:
    x = b.pick("int64")
    if x is None:
        return
    op = b.one_of("Add", "Mul", "Sub", "Max")
    b.add(op, [x.name, b.constant(np.int64(b.integer(0, 3)))], ("int64", x.shape))


def cast(b: Builder) -> None:
    x = b.pick(b.one_of("int64", "bool")) or b.pick()
    b.add("Cast", [x.name], ("float32", x.shape), to=TensorProto.FLOAT)


def choose(b: Builder) -> None:
    """Where, of a computed or a constant condition."""
    x = b.pick()
    condition = b.pick("bool")
    if condition is None or condition.shape != x.shape:
        name = b.constant(np.full(x.shape, bool(b.integer(0, 1))))
    else:
        name = condition.name
    b.add("Where", [name, x.name, b.floats(())], ("float32", x.shape))


def compare(b: Builder) -> None:
    x = b.pick("int64")
    if x is not None:
        b.add("Less", [x.name, b.constant(np.int64(2))], ("bool", x.shape))


def reshape(b: Builder) -> None:
    x = b.pick()
    size = int(np.prod(x.shape))
    divisors = [d for d in range(1, size + 1) if size % d == 0]
    first = b.one_of(*divisors)
    shape = b.one_of((size,), (first, size // first), (1, first, size // first), x.shape)
    written = list(shape)
    if b.integer(0, 2) == 0:
        written[-1] = -1
    b.add("Reshape", [x.name, b.constant(np.array(written, np.int64))], ("float32", shape))


def transpose(b: Builder) -> None:
    x = b.pick(rank=1)
    if x is not None:
        perm = b.permutation(len(x.shape))
        b.add("Transpose", [x.name], ("float32", [x.shape[p] for p in perm]), perm=perm)


def unsqueeze(b: Builder) -> None:
    x = b.pick()
    if len(x.shape) < 5:
        axis = b.integer(0, len(x.shape))
        shape = [*x.shape[:axis], 1, *x.shape[axis:]]
        b.add("Unsqueeze", [x.name, b.constant(np.array([axis]))], ("float32", shape))


def squeeze(b: Builder) -> None:
    x = b.pick(rank=2)
    if x is not None and 1 in x.shape:
        axis = x.shape.index(1)
        shape = [d for i, d in enumerate(x.shape) if i != axis]
        b.add("Squeeze", [x.name, b.constant(np.array([axis]))], ("float32", shape))


def slices(b: Builder) -> None:
    x = b.pick(rank=1)
    if x is None:
        return
    axis = b.integer(0, len(x.shape) - 1)
    start = b.integer(0, x.shape[axis] - 1)
    end = b.one_of(x.shape[axis], start + 1, 1 << 40)
    step = b.integer(1, 2)
    shape = list(x.shape)
    shape[axis] = len(range(*slice(start, end, step).indices(shape[axis])))
    given = [b.constant(np.array([n], np.int64)) for n in (start, end, axis, step)]
    b.add("Slice", [x.name, *given], ("float32", shape))


def concat(b: Builder) -> None:
    x = b.pick(rank=1)
    if x is None or 2 * np.prod(x.shape) > MAX_ELEMENTS:
        return
    axis = b.integer(0, len(x.shape) - 1)
    same = [v.name for v in b.values if v.dtype == "float32" and v.shape == x.shape]
    shape = [2 * d if i == axis else d for i, d in enumerate(x.shape)]
    axis -= len(shape) * b.integer(0, 1)
    b.add("Concat", [x.name, b.one_of(*same)], ("float32", shape), axis=axis)


def split(b: Builder) -> None:
    x = b.pick(rank=1)
    if x is not None and x.shape[-1] % 2 == 0:
        half = [*x.shape[:-1], x.shape[-1] // 2]
        sizes = b.constant(np.array([half[-1]] * 2, np.int64))
        b.add("Split", [x.name, sizes], ("float32", half), ("float32", half), axis=-1)


def pad(b: Builder) -> None:
    x = b.pick(rank=2)
    if x is not None and 4 * np.prod(x.shape) <= MAX_ELEMENTS:
        pads = [b.integer(0, 1) if i >= len(x.shape) - 2 else 0 for i in range(len(x.shape))]
        shape = [d + 2 * p for d, p in zip(x.shape, pads, strict=True)]
        b.add("Pad", [x.name, b.constant(np.array(pads * 2, np.int64))], ("float32", shape))


def gather(b: Builder) -> None:
    x = b.pick(rank=1)
    if x is not None:
        axis = b.integer(0, len(x.shape) - 1)
        index = np.int64(b.integer(-x.shape[axis], x.shape[axis] - 1))
        shape = [d for i, d in enumerate(x.shape) if i != axis]
        b.add("Gather", [x.name, b.constant(index)], ("float32", shape), axis=axis)


def reduce(b: Builder) -> None:
    """Along one axis; of opset 18 on the axes are an input."""
    x = b.pick(rank=1)
    if x is None:
        return
    axis, keep = b.integer(0, len(x.shape) - 1), b.integer(0, 1)
    shape = [1 if i == axis else d for i, d in enumerate(x.shape) if keep or i != axis]
    op = b.one_of("ReduceMean", "ReduceMax", "ReduceMin")
    if b.opset >= 18:
        axes = b.constant(np.array([axis], np.int64))
        b.add(op, [x.name, axes], ("float32", shape), keepdims=keep)
    else:
        b.add(op, [x.name], ("float32", shape), axes=[axis], keepdims=keep)


def softmax(b: Builder) -> None:
    x = b.pick(rank=1)
    if x is not None:
        axis = b.one_of(-1, 0, len(x.shape) - 1)
        b.add(b.one_of("Softmax", "LogSoftmax"), [x.name], ("float32", x.shape), axis=axis)


def matmul(b: Builder) -> None:
    x = b.pick(rank=2)
    if x is not None:
        columns = b.integer(1, 4)
        weight = b.floats((x.shape[-1], columns))
        b.add("MatMul", [x.name, weight], ("float32", [*x.shape[:-1], columns]))


def convolution(b: Builder) -> None:
    """Of an image, often with a normalisation behind it."""
    images = [v for v in b.values if v.dtype == "float32" and len(v.shape) == 4]
    if not images:
        return
    x = b.one_of(*images)
    channels, kernel = b.integer(1, 3), b.one_of(1, 3)
    inputs = [x.name, b.floats((channels, x.shape[1], kernel, kernel))]
    inputs += [b.floats((channels,))] * b.integer(0, 1)
    shape = (x.shape[0], channels, *x.shape[2:])
    b.add("Conv", inputs, ("float32", shape), pads=[kernel // 2] * 4)
    if b.integer(0, 1):
        given = [b.floats((channels,)) for _ in range(3)]
        variance = b.constant(np.full(channels, 0.75, np.float32))
        made = b.values[-1].name
        b.add("BatchNormalization", [made, *given, variance], ("float32", shape))


def branch(b: Builder) -> None:
    """An If of a constant condition, whose branches read a tensor from outside."""
    x = b.pick()
    sides = {}
    for side in ("then", "else"):
        name = b.name()
        node = helper.make_node(b.one_of("Neg", "Abs", "Tanh"), [x.name], [name])
        output = helper.make_tensor_value_info(name, TensorProto.FLOAT, x.shape)
        sides[f"{side}_branch"] = helper.make_graph([node], side, [], [output])
    condition = b.constant(np.array(bool(b.integer(0, 1))))
    b.add("If", [condition], ("float32", x.shape), **sides)


def shape_of(b: Builder) -> None:
    x = b.pick()
    if x.shape:
        b.add("Shape", [x.name], ("int64", [len(x.shape)]))


OPERATORS = (
    *(elementwise, elementwise, arithmetic, arithmetic, divide, integers, cast, choose, compare),
    *(reshape, transpose, unsqueeze, squeeze, slices, concat, split, pad, gather, reduce, softmax),
    *(matmul, convolution, convolution, branch, shape_of),
)
