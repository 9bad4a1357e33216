"""Products of four bytes at once: the instruction that integer kernels are made of.

    quad(b0, b1, b2, b3)    four bytes that follow each other, as one int32, the first lowest
    dot4(a, w)              a0 * w0 + a1 * w1 + a2 * w2 + a3 * w3 in int32: a's bytes without a
                            sign, w's with one
    signed_dot4(a, w)       the same, all bytes with a sign
    pairs(a, v, w)          the same, weights in two pairs: a0 * v0 + a1 * v1 + a2 * w0 + a3 * w1
    pair(w0, w1)            two int16 that follow each other, as one int32
    dot2(a, w)              a0 * w0 + a1 * w1 modulo 2^32, of the int16 of a and of w
    multiply(x, w)          x * w in int32, of int16
    to_nearest(x)           float32 to int32, ties to even
    rounded(x)              x, float32, as it is when it is rounded: LLVM would fuse a product with
                            the sum behind it

They are operators of TIR that vectorise like any other. `expand_dots` turns them into what the
target has: VPDPBUSD where there is VNNI, multiply-adds of 16-bit pairs elsewhere on x86, SDOT or
multiply-adds of 8-bit pairs on Arm (`edgec.lower.dot_arm`), plain arithmetic on other machines. All
are exact: VPMADDUBSW, which saturates, is not used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tvm
import tvm_ffi
from tvm import tirx
from tvm.tirx.op import register_intrin_lowering

from edgec.lower import dot_arm, dot_narrow, dot_pack, dot_vectors, dot_x86
from edgec.lower.dot_vectors import (
    Product,
    by_width,
    fenced,
    lanes_of,
    packed,
    spread,
    typed,
)
from edgec.targets import Target

QUAD, PAIR = "edgec.quad", "edgec.pair"
DOT4, SIGNED_DOT4, PAIRS = "edgec.dot4", "edgec.signed_dot4", "edgec.pairs"
DOT2 = "edgec.dot2"
MULTIPLY, TO_NEAREST, ROUNDED = "edgec.multiply", "edgec.to_nearest", "edgec.rounded"
_PURE = 1
"""`tirx.CallEffectKind`: neither reads nor writes anything."""

_INPUTS = {
    QUAD: 4,
    PAIR: 2,
    DOT4: 2,
    SIGNED_DOT4: 2,
    PAIRS: 3,
    DOT2: 2,
    MULTIPLY: 2,
    TO_NEAREST: 1,
    ROUNDED: 1,
}

for _name, _inputs in _INPUTS.items():
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


def signed_dot4(a: Any, w: Any) -> Any:
    """The int32 sum of four products of the bytes of `a` and of `w`, both int8."""
    return tirx.call_intrin("int32", SIGNED_DOT4, a, w)


def pairs(a: Any, v: Any, w: Any) -> Any:
    """The int32 sum of four products of the bytes of `a`, and of `v` and `w`, int16 of two each,
    all int8. Those of `v` and `w` are never -128, so that two products fit into int16."""
    return tirx.call_intrin("int32", PAIRS, a, v, w)


def pair(*words: Any) -> Any:
    """Two elements of an int16 tensor, one after the other in memory, as one int32."""
    return tirx.call_intrin("int32", PAIR, *words)


def dot2(a: Any, w: Any) -> Any:
    """The sum, modulo 2^32, of two products of the int16 of `a` and of `w`, as int32."""
    return tirx.call_intrin("int32", DOT2, a, w)


def multiply(x: Any, w: Any) -> Any:
    """The int32 product of two int16."""
    return tirx.call_intrin("int32", MULTIPLY, x, w)


def to_nearest(x: Any) -> Any:
    """A float32 within 2 ** 22 of 0 to the nearest integer, ties to even."""
    return tirx.call_intrin("int32", TO_NEAREST, x)


def rounded(x: Any) -> Any:
    """A float32 result of its own, no part of a fused multiply-add."""
    return tirx.call_intrin("float32", ROUNDED, x)


def expand_dots(function: tirx.PrimFunc, target: Target) -> tirx.PrimFunc:
    """`function`, its loops vectorised, with these operators as what `target` computes them by."""
    own = _products(target)
    known = {name: own.get(name, by_width({}, plain)) for name, plain in PLAIN.items()}

    def expand(call: tvm.ir.Call) -> Any:
        name = call.op.name if _is_operator(call) else ""
        if name in (QUAD, PAIR):
            return packed(list(call.args))
        if name == TO_NEAREST:
            return _to_int32(call.args[0], target)
        if name == ROUNDED:
            return fenced(call.args[0])
        if name in known:
            return known[name](tirx.const(0, "int32"), *call.args)
        return call

    def accumulate(sum_: tirx.Add) -> Any:
        for total, term in ((sum_.a, sum_.b), (sum_.b, sum_.a)):
            name = term.op.name if isinstance(term, tvm.ir.Call) and _is_operator(term) else ""
            if name in known:
                return known[name](total, *term.args)
        return sum_

    def narrow(cast: tirx.Cast) -> Any:
        narrowed = dot_narrow.narrowed(cast, TO_NEAREST)
        return cast if narrowed is None else narrowed

    if target.arch == "aarch64":
        function = tvm_ffi.structural_map(function, (tirx.Cast, narrow))
    function = dot_pack.pack_bytes(function, target, TO_NEAREST)
    summed = tvm_ffi.structural_map(function, (tirx.Add, accumulate))
    return tvm_ffi.structural_map(summed, (tvm.ir.Call, expand))


def _is_operator(call: tvm.ir.Call) -> bool:
    return isinstance(call.op, tvm.ir.Op)


PLAIN: dict[str, Product] = {
    DOT4: dot_vectors.dot4,
    SIGNED_DOT4: dot_vectors.signed_dot4,
    PAIRS: dot_vectors.pairs,
    DOT2: dot_vectors.dot2,
    MULTIPLY: dot_vectors.multiply,
}
"""Sums of products by plain arithmetic."""


def _products(target: Target) -> Mapping[str, Product]:
    """Those that `target` has instructions for."""
    flags = set(target.cpu_flags)
    if target.arch in dot_arm.ARM:
        return dot_arm.products(target.arch, flags)
    return {DOT4: dot_x86.product(flags), DOT2: dot_x86.words(flags)}


def _to_int32(x: Any, target: Target) -> Any:
    return dot_arm.to_int32(x, target.arch) if target.arch in dot_arm.ARM else _rounded(x)


def _rounded(x: Any) -> Any:
    lanes = lanes_of(x)
    of = f"v{lanes}" if lanes > 1 else ""
    return tirx.call_llvm_pure_intrin(typed("int32", lanes), f"llvm.lrint.{of}i32.{of}f32", x)


def _by_default(lowering: Callable[..., Any]) -> Callable[[Any], Any]:
    return lambda call: lowering(*call.args)


def _alone(product: Product) -> Callable[..., Any]:
    """The product added to nothing."""

    def lowering(*operands: Any) -> Any:
        return product(spread(tirx.const(0, "int32"), lanes_of(operands[0])), *operands)

    return lowering


for _name, _lowering in (
    (QUAD, lambda *parts: packed(list(parts))),
    (PAIR, lambda *parts: packed(list(parts))),
    (TO_NEAREST, _rounded),
    (ROUNDED, fenced),
    *((name, _alone(product)) for name, product in PLAIN.items()),
):
    register_intrin_lowering(_name, "default", f=_by_default(_lowering), level=1)
"""What TVM's own way to code makes of them."""
