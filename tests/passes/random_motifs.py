"""Groups of nodes that passes look for; what random operators make of them is up to chance."""

from __future__ import annotations

import numpy as np
from random_builder import Builder, Value


def _scalar(b: Builder, value: float) -> str:
    return b.constant(np.float32(value))


def _then(b: Builder, op: str, *inputs: Value | str, swap: bool = False) -> Value:
    """A node of the first input's type, the last one's result."""
    names = [i.name if isinstance(i, Value) else i for i in inputs]
    first = next(i for i in inputs if isinstance(i, Value))
    b.add(op, names[::-1] if swap else names, ("float32", first.shape))
    return b.values[-1]


def silu(b: Builder) -> None:
    x = b.pick()
    _then(b, "Mul", x, _then(b, "Sigmoid", x), swap=bool(b.integer(0, 1)))


def mish(b: Builder) -> None:
    x = b.pick()
    _then(b, "Mul", x, _then(b, "Tanh", _then(b, "Softplus", x)))


def gelu(b: Builder) -> None:
    x = b.pick()
    inner = _then(b, "Erf", _then(b, "Div", x, _scalar(b, 2**0.5)))
    half = _then(b, "Mul", x, _then(b, "Add", inner, _scalar(b, 1.0)))
    _then(b, "Mul", half, _scalar(b, 0.5))


def hard_swish(b: Builder) -> None:
    x = b.pick()
    moved = _then(b, "Add", x, _scalar(b, b.one_of(3.0, 3.0, 2.0)))
    gate = _then(b, "Clip", moved, _scalar(b, 0.0), _scalar(b, 6.0))
    _then(b, "Div", _then(b, "Mul", x, gate), _scalar(b, 6.0))


def relu_clip(b: Builder) -> None:
    low, high = b.one_of((-1.0, 1.0), (0.0, 0.5), (0.25, 2.0))
    _then(b, "Clip", _then(b, "Relu", b.pick()), _scalar(b, low), _scalar(b, high))


def _reduced(b: Builder, op: str, x: Value) -> Value:
    """`x` reduced along its last axis."""
    shape = [*x.shape[:-1], 1]
    if b.opset >= 18 or op == "ReduceSum":
        b.add(op, [x.name, b.constant(np.array([-1], np.int64))], ("float32", shape))
    else:
        b.add(op, [x.name], ("float32", shape), axes=[-1])
    return b.values[-1]


def layer_norm(b: Builder) -> None:
    """With its mean taken off, or without: the root of the mean square."""
    x = b.pick(rank=2)
    if x is None:
        return
    centred = _then(b, "Sub", x, _reduced(b, "ReduceMean", x)) if b.integer(0, 1) else x
    square = _then(b, "Pow", centred, _scalar(b, 2.0))
    spread = _then(b, "Sqrt", _then(b, "Add", _reduced(b, "ReduceMean", square), _scalar(b, 0.5)))
    normal = _then(b, "Div", centred, spread)
    scaled = _then(b, "Mul", normal, b.floats(x.shape[-1:]))
    if b.integer(0, 1):
        _then(b, "Add", scaled, b.floats(x.shape[-1:]))


def softmax(b: Builder) -> None:
    x = b.pick(rank=2)
    if x is None:
        return
    raised = _then(b, "Exp", _then(b, "Sub", x, _reduced(b, "ReduceMax", x)))
    _then(b, "Div", raised, _reduced(b, "ReduceSum", raised))


def scales(b: Builder) -> None:
    """Two in a row of the same kind."""
    x = b.pick()
    ops = b.one_of(("Mul", "Div"), ("Mul", "Mul"), ("Add", "Sub"), ("Sub", "Add"), ("Mul", "Add"))
    for op in ops:
        x = _then(b, op, x, _scalar(b, b.one_of(0.5, 2.0, -1.5, 0.25)))


def linear(b: Builder) -> None:
    """A MatMul with a bias, and a scale behind it."""
    x = b.pick(rank=2)
    if x is None:
        return
    columns = b.integer(2, 4)
    weight = b.floats((x.shape[-1], columns))
    b.add("MatMul", [x.name, weight], ("float32", [*x.shape[:-1], columns]))
    made = b.values[-1]
    for op in b.one_of(("Add",), ("Mul",), ("Add", "Mul"), ("Add", "Relu")):
        made = _then(b, op, made, *([b.floats((columns,))] if op != "Relu" else []))


def convolution(b: Builder) -> None:
    """Padded, scaled or normalised, as exporters leave it."""
    images = [v for v in b.values if v.dtype == "float32" and len(v.shape) == 4]
    if not images:
        return
    x = b.one_of(*images)
    channels, size = b.integer(2, 3), x.shape[2:]
    source = x.name
    around = b.integer(0, 1)
    if around:
        pads = b.constant(np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64))
        b.add("Pad", [source, pads], ("float32", [*x.shape[:2], size[0] + 2, size[1] + 2]))
        source = b.values[-1].name
    inputs = [source, b.floats((channels, x.shape[1], 3, 3))]
    inputs += [b.floats((channels,))] * b.integer(0, 1)
    shape = (x.shape[0], channels, *size)
    b.add("Conv", inputs, ("float32", shape), pads=[1 - around] * 4)
    made = b.values[-1]
    if b.integer(0, 1):
        given = [b.floats((channels,)) for _ in range(3)]
        variance = b.constant(np.full(channels, 0.75, np.float32))
        _then(b, "BatchNormalization", made, *given, variance)
    else:
        _then(b, b.one_of("Mul", "Add"), made, b.floats((channels, 1, 1)))


def pool_and_flatten(b: Builder) -> None:
    images = [v for v in b.values if v.dtype == "float32" and len(v.shape) == 4]
    if images:
        x = b.one_of(*images)
        b.add("GlobalAveragePool", [x.name], ("float32", [*x.shape[:2], 1, 1]))
        b.add("Flatten", [b.values[-1].name], ("float32", x.shape[:2]))


def there_and_back(b: Builder) -> None:
    """Transposes around something elementwise."""
    x = b.pick(rank=2)
    if x is None:
        return
    perm = b.permutation(len(x.shape))
    inverse = [perm.index(i) for i in range(len(perm))]
    b.add("Transpose", [x.name], ("float32", [x.shape[p] for p in perm]), perm=perm)
    made = b.values[-1]
    for _ in range(b.integer(0, 2)):
        made = _then(b, b.one_of("Relu", "Tanh", "Neg"), made)
    if b.integer(0, 1):
        made = _then(b, "Mul", made, _scalar(b, 0.5))
    back = [made.shape[p] for p in inverse]
    b.add("Transpose", [made.name], ("float32", back), perm=inverse)


def weights(b: Builder) -> None:
    """A quantized constant."""
    x = b.pick(rank=1)
    if x is not None:
        rng = np.random.default_rng(b.integer(0, 99))
        quantized = b.constant(rng.integers(-8, 8, x.shape[-1:]).astype(np.int8))
        b.add("DequantizeLinear", [quantized, _scalar(b, 0.125)], ("float32", x.shape[-1:]), axis=0)
        _then(b, "Mul", x, b.values[-1])


MOTIFS = (
    *(silu, mish, gelu, hard_swish, relu_clip, layer_norm, softmax, scales, linear, linear),
    *(convolution, convolution, pool_and_flatten, there_and_back, there_and_back, weights),
)
