"""Products of four bytes at once: the instruction that integer kernels are made of.

    quad(b0, b1, b2, b3)   four bytes that follow each other, as one int32, the first lowest
    dot4(a, w)             a0 * w0 + a1 * w1 + a2 * w2 + a3 * w3 in int32: a's bytes without a sign,
                           w's with one
    to_nearest(x)          float32 to int32, ties to even

They are operators of TIR that vectorise like any other. `expand_dots` turns them into what the
target has: VPDPBUSD where there is VNNI, multiply-adds of 16-bit pairs elsewhere on x86, plain
arithmetic on other machines. All are exact: VPMADDUBSW, which saturates, is not used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import tvm
import tvm_ffi
from tvm import sym, tirx
from tvm.tirx.op import register_intrin_lowering

from edgec.targets import Target

QUAD, DOT4, TO_NEAREST = "edgec.quad", "edgec.dot4", "edgec.to_nearest"
_PURE = 1
"""`tirx.CallEffectKind`: neither reads nor writes anything."""

for _name, _inputs in ((QUAD, 4), (DOT4, 2), (TO_NEAREST, 1)):
    if _name not in tvm.ir._ffi_api.ListOpNames():
        tvm.ir._ffi_api.RegisterOp(_name, "")
        tvm.ir._ffi_api.OpSetNumInputs(tvm.ir.Op.get(_name), _inputs)
        tvm.ir.register_op_attr(_name, "TCallEffectKind", _PURE)
        tvm.ir.register_op_attr(_name, "TVectorizable", True)
        tvm.ir.register_op_attr(_name, "TScriptPrinterName", _name)


def quad(*bytes_: Any) -> Any:
    """Four elements of a uint8 or int8 tensor, one after the other in memory, as one int32."""
    return tirx.call_intrin("int32", QUAD, *bytes_)


def dot4(a: Any, w: Any) -> Any:
    """The int32 sum of four products of the bytes of `a`, uint8, and of `w`, int8."""
    return tirx.call_intrin("int32", DOT4, a, w)


def to_nearest(x: Any) -> Any:
    """A float32 within int32's range to the nearest integer, ties to even."""
    return tirx.call_intrin("int32", TO_NEAREST, x)


def expand_dots(function: tirx.PrimFunc, target: Target) -> tirx.PrimFunc:
    """`function`, its loops vectorised, with these operators as what `target` computes them by."""
    product = _product_for(target)

    def expand(call: tvm.ir.Call) -> Any:
        name = call.op.name if isinstance(call.op, tvm.ir.Op) else ""
        if name == QUAD:
            return _packed(list(call.args))
        if name == TO_NEAREST:
            return _rounded(call.args[0])
        if name == DOT4:
            return product(tirx.const(0, "int32"), *call.args)
        return call

    def accumulate(sum_: tirx.Add) -> Any:
        for total, term in ((sum_.a, sum_.b), (sum_.b, sum_.a)):
            if isinstance(term, tvm.ir.Call) and term.op == _DOT4_OP:
                return product(total, *term.args)
        return sum_

    summed = tvm_ffi.structural_map(function, (tirx.Add, accumulate))
    return tvm_ffi.structural_map(summed, (tvm.ir.Call, expand))


_DOT4_OP = tvm.ir.Op.get(DOT4)

Product = Callable[[Any, Any, Any], Any]
"""The sum of an int32, and of the products of four bytes of each of two more; equal lanes."""


def _lanes(value: Any) -> int:
    return int(str(value.ty.dtype).partition("x")[2] or 1)


def _typed(kind: str, lanes: int) -> str:
    return kind if lanes == 1 else f"{kind}x{lanes}"


_LANES = 16
_ACROSS = [4 * part + group for group in range(4) for part in range(4)]
"""Words of four lanes each, 4 parts one after the other: brought to the parts of the same lanes."""
_WITHIN = [16 * g + 4 * part + lane for g in range(4) for lane in range(4) for part in range(4)]
"""Of sixteen bytes, four lanes in each of 4 parts: brought to the 4 parts of each lane."""


def _places(order: Iterable[int]) -> list[Any]:
    return [tirx.const(place, "int32") for place in order]


def _shuffled(value: Any, order: list[int]) -> Any:
    return tirx.Shuffle([value], _places(order))


def _neighbours(parts: list[Any]) -> Any:
    """Where the first of `parts` lies, if they are loads from places that follow each other, one
    lane of all after the other; else None."""
    if not all(isinstance(p, tvm.ir.TensorLoad) and len(p.indices) == 1 for p in parts):
        return None
    starts = []
    for part in parts:
        index = part.indices[0]
        if isinstance(index, tirx.Ramp):
            if not isinstance(index.stride, tirx.IntImm) or index.stride.value != len(parts):
                return None
            index = index.base
        elif _lanes(part) > 1:
            return None
        starts.append(index)
    analyzer, source = sym.Analyzer(), parts[0].source
    follow = all(
        part.source.same_as(source) and analyzer.can_prove_equal(start, starts[0] + place)
        for place, (part, start) in enumerate(zip(parts, starts, strict=True))
    )
    return starts[0] if follow else None


def _packed(parts: list[Any]) -> Any:
    """One load of elements that are neighbours, else they are put together."""
    lanes, start = _lanes(parts[0]), _neighbours(parts)
    if start is not None:
        ramp = tirx.Ramp(start, tirx.const(1, start.ty.dtype), 4 * lanes)
        return tirx.reinterpret(_typed("int32", lanes), tirx.BufferLoad(parts[0].source, [ramp]))
    if lanes == 1:
        words = [tirx.reinterpret("uint8", part).astype("int32") for part in parts]
        whole: Any = words[0]
        for place, word in enumerate(words[1:], 1):
            whole = whole | (word << tirx.const(8 * place, "int32"))
        return whole
    if lanes == _LANES:
        joined = tirx.reinterpret(_typed("int32", lanes), tirx.Shuffle(parts, _places(range(64))))
        whole = _shuffled(
            tirx.reinterpret(_typed("uint8", 64), _shuffled(joined, _ACROSS)), _WITHIN
        )
    else:
        order = [part * lanes + lane for lane in range(lanes) for part in range(4)]
        whole = tirx.Shuffle(parts, _places(order))
    return tirx.reinterpret(_typed("int32", lanes), whole)


def _rounded(x: Any) -> Any:
    lanes = _lanes(x)
    of = f"v{lanes}" if lanes > 1 else ""
    return tirx.call_llvm_pure_intrin(_typed("int32", lanes), f"llvm.lrint.{of}i32.{of}f32", x)


def _product_for(target: Target) -> Product:
    flags = set(target.cpu_flags)
    if {"avx512_vnni", "avx512vl"} <= flags:
        return _by_width({16: _vnni("avx512.vpdpbusd.512"), 8: _vnni("avx512.vpdpbusd.256")})
    if "avx_vnni" in flags:
        return _by_width({8: _vnni("avx512.vpdpbusd.256")})
    widths = {}
    if "avx512bw" in flags:
        widths[16] = _pairs("avx512.pmaddw.d.512")
    if "avx2" in flags:
        widths[8] = _pairs("avx2.pmadd.wd")
    if "sse4_2" in flags:
        widths[4] = _pairs("sse2.pmadd.wd")
    return _by_width(widths)


def _by_width(products: dict[int, Product]) -> Product:
    """The product for vectors of these many lanes; wider ones are cut, others computed plainly."""

    def product(total: Any, a: Any, w: Any) -> Any:
        lanes = max(map(_lanes, (total, a, w)))
        total, a, w = (_spread(each, lanes) for each in (total, a, w))
        fitting = [width for width in products if lanes % width == 0]
        if not fitting:
            return _plainly(total, a, w)
        width = max(fitting)
        if width == lanes:
            return products[width](total, a, w)
        parts = [
            products[width](*(_part(each, first, width) for each in (total, a, w)))
            for first in range(0, lanes, width)
        ]
        return tirx.Shuffle(parts, [tirx.const(lane, "int32") for lane in range(lanes)])

    return product


def _spread(value: Any, lanes: int) -> Any:
    return value if _lanes(value) == lanes else tirx.Broadcast(value, lanes)


def _part(value: Any, first: int, count: int) -> Any:
    if isinstance(value, tirx.Broadcast):
        return tirx.Broadcast(value.value, count)
    return tirx.Shuffle([value], [tirx.const(first + lane, "int32") for lane in range(count)])


def _vnni(name: str) -> Product:
    def product(total: Any, a: Any, w: Any) -> Any:
        kind = _typed("int8", 4 * _lanes(a))
        unsigned, signed = (tirx.reinterpret(kind, each) for each in (a, w))
        return tirx.call_llvm_pure_intrin(
            str(total.ty.dtype), f"llvm.x86.{name}", total, unsigned, signed
        )

    return product


def _pairs(name: str) -> Product:
    """By two multiply-adds of pairs of 16-bit numbers, of the even and of the odd bytes."""

    def product(total: Any, a: Any, w: Any) -> Any:
        halves, whole = _typed("int16", 2 * _lanes(a)), str(total.ty.dtype)
        eight = _spread(tirx.const(8, "int16"), 2 * _lanes(a))
        low = _spread(tirx.const(0x00FF00FF, "int32"), _lanes(a))

        def halves_of(value: Any) -> Any:
            return tirx.reinterpret(halves, value)

        even = halves_of(a & low), (halves_of(w) << eight) >> eight
        shifted = _spread(tirx.const(8, "int32"), _lanes(a))
        odd = halves_of((a >> shifted) & low), halves_of(w) >> eight
        for pair in (even, odd):
            total = total + tirx.call_llvm_pure_intrin(whole, f"llvm.x86.{name}", *pair)
        return total

    return product


def _plainly(total: Any, a: Any, w: Any) -> Any:
    lanes = _lanes(a)

    def number(value: int) -> Any:
        return _spread(tirx.const(value, "int32"), lanes)

    for byte in range(4):
        factor = (a >> number(8 * byte)) & number(0xFF)
        weight = (w << number(24 - 8 * byte)) >> number(24)
        total = total + factor * weight
    return total


def _by_default(lowering: Callable[..., Any]) -> Callable[[Any], Any]:
    return lambda call: lowering(*call.args)


for _name, _lowering in (
    (QUAD, lambda *parts: _packed(list(parts))),
    (DOT4, lambda a, w: _plainly(_spread(tirx.const(0, "int32"), _lanes(a)), a, w)),
    (TO_NEAREST, _rounded),
):
    register_intrin_lowering(_name, "default", f=_by_default(_lowering), level=1)
"""What TVM's own way to code makes of them."""
