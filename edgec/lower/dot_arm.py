"""The operators of `edgec.lower.dot` on Arm: SDOT where the processor has it, else 8-bit products.

Without SDOT, products of two pairs of bytes are added in 16 bits, where two of them always fit, and
then to the sums in 32 bits: SMULL, SMLAL and SADALP for sixteen products.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tvm import tirx

from edgec.lower import dot_vectors as plain
from edgec.lower.dot_vectors import (
    Product,
    by_width,
    joined,
    lanes_of,
    neighbours,
    number,
    part,
    places,
    typed,
)

_WORDS, _BYTES = 4, 8
"""32-bit lanes of a register, and bytes of half of one."""

_FIRST_THEN_LAST = [0, 2, 4, 6, 1, 3, 5, 7]
"""Of four pairs of 16-bit halves."""


@dataclass(frozen=True)
class Arm:
    """How an architecture's intrinsics are called in LLVM."""

    multiply: str
    add_pairs: str
    adds_to: bool
    """Whether `add_pairs` takes what it adds to."""


ARM = {
    "aarch64": Arm("llvm.aarch64.neon.smull", "llvm.aarch64.neon.saddlp", adds_to=False),
    "armv7l": Arm("llvm.arm.neon.vmulls", "llvm.arm.neon.vpadals", adds_to=True),
}


def products(arch: str, flags: set[str]) -> Mapping[str, Product]:
    """By the name of the operator, those for a processor of `arch` with these features."""
    neon = ARM[arch]
    made = {
        "edgec.pairs": by_width({_WORDS: _pairs(neon)}, plain.pairs),
        "edgec.multiply": by_width({_WORDS: _multiply(neon)}, plain.multiply),
    }
    if "asimddp" in flags:
        made["edgec.signed_dot4"] = by_width({_WORDS: _signed_dot4}, plain.signed_dot4)
        made["edgec.dot4"] = by_width({_WORDS: _dot4}, plain.dot4)
    return made


def _signed_dot4(total: Any, a: Any, w: Any) -> Any:
    # LLVM takes the last operand from a lane.
    operands = (tirx.reinterpret("int8x16", each) for each in (w, a))
    name = "llvm.aarch64.neon.sdot.v4i32.v16i8"
    return tirx.call_llvm_pure_intrin("int32x4", name, total, *operands)


def _dot4(total: Any, a: Any, w: Any) -> Any:
    """a * w = (a - 128) * w - (-128) * w, whose second term the columns of a tile share."""
    less = _signed_dot4(number(0, total), number(-0x7F7F7F80, a), w)
    return _signed_dot4(total - less, a ^ number(-0x7F7F7F80, a), w)


def _pairs(neon: Arm) -> Product:
    def halves(a: Any, w: Any) -> Any:
        return tirx.call_llvm_pure_intrin("int16x8", f"{neon.multiply}.v8i16", a, w)

    def product(total: Any, a: Any, v: Any, w: Any) -> Any:
        spread = tirx.reinterpret("int16x8", a)
        factors = tirx.reinterpret("int8x16", tirx.Shuffle([spread], places(_FIRST_THEN_LAST)))
        weights = tirx.reinterpret("int8x16", _together(v, w))
        low, high = (
            halves(part(factors, first, _BYTES), part(weights, first, _BYTES))
            for first in (0, _BYTES)
        )
        return _add_pairs(neon, total, low + high)

    return product


def _together(v: Any, w: Any) -> Any:
    """Two vectors as one, which is one load where they lie side by side."""
    start = neighbours([v, w], 1, lanes_of(v))
    if start is None:
        return joined([v, w])
    ramp = tirx.Ramp(start, tirx.const(1, start.ty.dtype), 2 * lanes_of(v))
    return tirx.BufferLoad(v.source, [ramp])


def _add_pairs(neon: Arm, total: Any, halves: Any) -> Any:
    name = f"{neon.add_pairs}.v4i32.v8i16"
    if neon.adds_to:
        return tirx.call_llvm_pure_intrin("int32x4", name, total, halves)
    return total + tirx.call_llvm_pure_intrin("int32x4", name, halves)


def _multiply(neon: Arm) -> Product:
    def product(total: Any, x: Any, w: Any) -> Any:
        return total + tirx.call_llvm_pure_intrin("int32x4", f"{neon.multiply}.v4i32", x, w)

    return product


_MAGIC = 0x4B400000
"""12582912 as a float32: added to a number, it has its nearest integer in the sum's lowest bits."""


def to_int32(x: Any, arch: str) -> Any:
    """float32 to int32, ties to even."""
    lanes = lanes_of(x)
    if arch == "armv7l":
        sums = plain.fenced(x) + plain.spread(tirx.const(float(0xC00000), "float32"), lanes)
        whole = tirx.reinterpret(typed("int32", lanes), sums)
        return whole - number(_MAGIC, whole)
    width = _WORDS if lanes % _WORDS == 0 else 1
    of = f"v{width}" if width > 1 else ""
    name = f"llvm.aarch64.neon.fcvtns.{of}i32.{of}f32"
    return joined(
        [
            tirx.call_llvm_pure_intrin(typed("int32", width), name, part(x, first, width))
            for first in range(0, lanes, width)
        ]
    )
