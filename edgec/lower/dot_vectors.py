"""Vectors of TIR as `edgec.lower.dot` cuts, joins and packs them, and its products done plainly."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import tvm
from tvm import tirx
from tvm.sym import Analyzer

Product = Callable[..., Any]
"""Of a vector of int32 and operands of an operator, as many lanes each: the vector plus what the
operator is of these."""


def lanes_of(value: Any) -> int:
    return int(str(value.ty.dtype).partition("x")[2] or 1)


def typed(kind: str, lanes: int) -> str:
    return kind if lanes == 1 else f"{kind}x{lanes}"


def kind_of(value: Any) -> str:
    return str(value.ty.dtype).partition("x")[0]


def number(value: int, like: Any) -> Any:
    """An integer of the kind of `like`, in as many lanes."""
    return spread(tirx.const(value, kind_of(like)), lanes_of(like))


def places(order: Iterable[int]) -> list[Any]:
    return [tirx.const(place, "int32") for place in order]


def spread(value: Any, lanes: int) -> Any:
    return value if lanes_of(value) == lanes else tirx.Broadcast(value, lanes)


def part(value: Any, first: int, count: int) -> Any:
    """Lanes of a vector, from `first` on."""
    if isinstance(value, tirx.Broadcast):
        return tirx.Broadcast(value.value, count)
    if lanes_of(value) == count:
        return value
    return tirx.Shuffle([value], places(range(first, first + count)))


def joined(parts: list[Any]) -> Any:
    """Vectors one after the other."""
    lanes = sum(map(lanes_of, parts))
    return parts[0] if len(parts) == 1 else tirx.Shuffle(parts, places(range(lanes)))


def fenced(x: Any) -> Any:
    """Floats that LLVM takes for no part of a larger sum."""
    lanes = lanes_of(x)
    of = f"v{lanes}f32" if lanes > 1 else "f32"
    return tirx.call_llvm_pure_intrin(typed("float32", lanes), f"llvm.arithmetic.fence.{of}", x)


def by_width(products: Mapping[int, Product], plain: Product) -> Product:
    """The product for vectors of these many lanes; wider ones are cut, others computed plainly."""

    def product(total: Any, *operands: Any) -> Any:
        lanes = max(map(lanes_of, (total, *operands)))
        values = [spread(each, lanes) for each in (total, *operands)]
        fitting = [width for width in products if lanes % width == 0]
        if not fitting:
            return plain(*values)
        width = max(fitting)
        return joined(
            [
                products[width](*(part(each, first, width) for each in values))
                for first in range(0, lanes, width)
            ]
        )

    return product


def bytes_of(value: Any, count: int, *, signed: bool) -> list[Any]:
    """The lowest `count` bytes of integers as int32, the lowest first."""
    wide = value if kind_of(value) == "int32" else value.astype(typed("int32", lanes_of(value)))
    if not signed:
        return [(wide >> number(8 * k, wide)) & number(0xFF, wide) for k in range(count)]
    return [(wide << number(24 - 8 * k, wide)) >> number(24, wide) for k in range(count)]


def dot4(total: Any, a: Any, w: Any) -> Any:
    return _sum(total, bytes_of(a, 4, signed=False), bytes_of(w, 4, signed=True))


def signed_dot4(total: Any, a: Any, w: Any) -> Any:
    return _sum(total, bytes_of(a, 4, signed=True), bytes_of(w, 4, signed=True))


def pairs(total: Any, a: Any, v: Any, w: Any) -> Any:
    weights = (each for two in (v, w) for each in bytes_of(two, 2, signed=True))
    return _sum(total, bytes_of(a, 4, signed=True), list(weights))


def dot2(total: Any, a: Any, w: Any) -> Any:
    for of_a, of_w in zip(_words_of(a), _words_of(w), strict=True):
        total = total + of_a * of_w
    return total


def _words_of(value: Any) -> tuple[Any, Any]:
    """The two int16 of an int32, the lowest first."""
    sixteen = number(16, value)
    return (value << sixteen) >> sixteen, value >> sixteen


def multiply(total: Any, x: Any, w: Any) -> Any:
    wide = typed("int32", lanes_of(x))
    return total + x.astype(wide) * w.astype(wide)


def _sum(total: Any, factors: list[Any], weights: list[Any]) -> Any:
    for factor, weight in zip(factors, weights, strict=True):
        total = total + factor * weight
    return total


def packed(parts: list[Any]) -> Any:
    """Four bytes as an int32, the first lowest: one load of neighbours, else put together."""
    lanes, start = lanes_of(parts[0]), neighbours(parts, len(parts))
    kind = typed("int32", lanes)
    if start is not None:
        ramp = tirx.Ramp(start, tirx.const(1, start.ty.dtype), len(parts) * lanes)
        return tirx.reinterpret(kind, tirx.BufferLoad(parts[0].source, [ramp]))
    if lanes == 1:
        words = [tirx.reinterpret("uint8", part).astype(kind) for part in parts]
        whole: Any = words[0]
        for place, word in enumerate(words[1:], 1):
            whole = whole | (word << tirx.const(8 * place, kind))
        return whole
    return tirx.reinterpret(kind, _interleaved(parts, lanes))


def neighbours(parts: list[Any], stride: int, apart: int = 1) -> Any:
    """Where the first of `parts` lies, if they are loads from places `apart` one after the other,
    lanes `stride` apart; else None."""
    if not all(isinstance(p, tvm.ir.TensorLoad) and len(p.indices) == 1 for p in parts):
        return None
    starts = []
    for part in parts:
        index = part.indices[0]
        if isinstance(index, tirx.Ramp):
            if not isinstance(index.stride, tirx.IntImm) or index.stride.value != stride:
                return None
            index = index.base
        elif lanes_of(part) > 1:
            return None
        starts.append(index)
    analyzer, source = Analyzer(), parts[0].source
    follow = all(
        part.source.same_as(source) and analyzer.can_prove_equal(start, starts[0] + place * apart)
        for place, (part, start) in enumerate(zip(parts, starts, strict=True))
    )
    return starts[0] if follow else None


_WIDE = 16
_ACROSS = [4 * part + group for group in range(4) for part in range(4)]
"""Words of four lanes each, 4 parts one after the other: brought to the parts of the same lanes."""
_WITHIN = [16 * g + 4 * part + lane for g in range(4) for lane in range(4) for part in range(4)]
"""Of sixteen bytes, four lanes in each of 4 parts: brought to the 4 parts of each lane."""


def _interleaved(parts: list[Any], lanes: int) -> Any:
    if lanes == _WIDE:
        words = tirx.reinterpret(typed("int32", lanes), tirx.Shuffle(parts, places(range(64))))
        across = tirx.Shuffle([words], places(_ACROSS))
        return tirx.Shuffle([tirx.reinterpret("uint8x64", across)], places(_WITHIN))
    order = [k * lanes + lane for lane in range(lanes) for k in range(4)]
    return tirx.Shuffle(parts, places(order))
