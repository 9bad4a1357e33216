"""Products of four bytes, or of two words (`edgec.lower.dot`), on x86: VPDPBUSD and VPDPWSSD, or
VPMADDWD on 16 bits."""

from __future__ import annotations

from typing import Any

from tvm import tirx

from edgec.lower.dot_vectors import Product, by_width, dot2, dot4, lanes_of, number, typed

_MULTIPLY_ADD = {
    16: ("avx512.pmaddw.d.512", "avx512bw"),
    8: ("avx2.pmadd.wd", "avx2"),
    4: ("sse2.pmadd.wd", "sse4_2"),
}
"""By lanes: VPMADDWD, and the feature that has it so wide."""


def product(flags: set[str]) -> Product:
    """Of bytes without a sign and bytes with one, for a processor with these features."""
    if {"avx512_vnni", "avx512vl"} <= flags:
        wide = {16: _vnni("avx512.vpdpbusd.512"), 8: _vnni("avx512.vpdpbusd.256")}
        return by_width(wide, dot4)
    if "avx_vnni" in flags:
        return by_width({8: _vnni("avx512.vpdpbusd.256")}, dot4)
    names = _MULTIPLY_ADD.items()
    return by_width({n: _pairs(name) for n, (name, flag) in names if flag in flags}, dot4)


def words(flags: set[str]) -> Product:
    """Of two words with a sign."""
    if {"avx512_vnni", "avx512vl"} <= flags:
        return by_width({16: _words("avx512.vpdpwssd.512"), 8: _words("avx512.vpdpwssd.256")}, dot2)
    names = _MULTIPLY_ADD.items()
    return by_width({n: _added(name) for n, (name, flag) in names if flag in flags}, dot2)


def _added(name: str) -> Product:
    def product(total: Any, a: Any, w: Any) -> Any:
        kind, whole = typed("int16", 2 * lanes_of(a)), str(total.ty.dtype)
        first, second = (tirx.reinterpret(kind, each) for each in (a, w))
        return total + tirx.call_llvm_pure_intrin(whole, f"llvm.x86.{name}", first, second)

    return product


def _words(name: str) -> Product:
    def product(total: Any, a: Any, w: Any) -> Any:
        kind, whole = typed("int16", 2 * lanes_of(a)), str(total.ty.dtype)
        first, second = (tirx.reinterpret(kind, each) for each in (a, w))
        return tirx.call_llvm_pure_intrin(whole, f"llvm.x86.{name}", total, first, second)

    return product


def _vnni(name: str) -> Product:
    def product(total: Any, a: Any, w: Any) -> Any:
        kind = typed("int8", 4 * lanes_of(a))
        unsigned, signed = (tirx.reinterpret(kind, each) for each in (a, w))
        return tirx.call_llvm_pure_intrin(
            str(total.ty.dtype), f"llvm.x86.{name}", total, unsigned, signed
        )

    return product


def _pairs(name: str) -> Product:
    """By two multiply-adds of pairs of 16-bit numbers, of the even and of the odd bytes."""

    def product(total: Any, a: Any, w: Any) -> Any:
        halves, whole = typed("int16", 2 * lanes_of(a)), str(total.ty.dtype)

        def halves_of(value: Any) -> Any:
            return tirx.reinterpret(halves, value)

        low, eight = number(0x00FF00FF, a), number(8, halves_of(w))
        even = halves_of(a & low), (halves_of(w) << eight) >> eight
        odd = halves_of((a >> number(8, a)) & low), halves_of(w) >> eight
        for pair in (even, odd):
            total = total + tirx.call_llvm_pure_intrin(whole, f"llvm.x86.{name}", *pair)
        return total

    return product
