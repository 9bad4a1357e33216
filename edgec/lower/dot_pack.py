"""The end of integer kernels on x86 with AVX-512: bytes of four neighbouring vectors at once.

    uint8(min(max(to_nearest(x), low), high) + zero), four times
        =>  VPACKUSWB(VPACKSSDW(n0, n1) + zero, VPACKSSDW(n2, n3) + zero), words put in order

Each of the four would take as many instructions as all do so. Packing saturates twice; what is
beyond a wider type is beyond bytes as well, so that the result is the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tvm
import tvm_ffi
from tvm import tirx
from tvm.sym import Analyzer

from edgec.lower.dot_ends import RANGES, End, end_in_int32
from edgec.lower.dot_vectors import kind_of, lanes_of, number, places
from edgec.targets import Target

_TOGETHER, _LANES = 4, 16
_NARROW = {"uint8": "llvm.x86.avx512.packuswb.512", "int8": "llvm.x86.avx512.packsswb.512"}
_BOUNDS = {
    "uint8": ("llvm.umax.v64i8", "llvm.umin.v64i8"),
    "int8": ("llvm.smax.v64i8", "llvm.smin.v64i8"),
}
_IN_ORDER = [4 * part + vector for vector in range(4) for part in range(4)]
"""Words of the four vectors, as packing leaves them in the 128-bit parts of a register."""


def pack_bytes(function: tirx.PrimFunc, target: Target, rounding: str) -> tirx.PrimFunc:
    """`function`, its loops unrolled, with stores of vectors of bytes that lie next to each other
    in fours; `rounding` is the operator that makes integers of floats."""
    if "avx512bw" not in target.cpu_flags:
        return function

    def grouped(sequence: tirx.SeqStmt) -> tirx.SeqStmt:
        statements = list(sequence.seq)
        for run in _runs(statements, rounding):
            _pack(statements, run)
        made = [each for each in statements if each is not None]
        return sequence if len(made) == len(statements) else tirx.SeqStmt(made)

    return tvm_ffi.structural_map(function, (tirx.SeqStmt, grouped))


def _runs(statements: list[Any], rounding: str) -> Iterator[dict[int, End]]:
    """Stores of vectors of bytes to one buffer, nothing else between them, by their places."""
    run: dict[int, End] = {}
    for place, statement in enumerate(statements):
        end = _end(statement, rounding)
        if run and (end is None or not _alike(statements[min(run)], statement)):
            yield run
            run = {}
        if end is not None:
            run[place] = end
    yield run


def _end(statement: Any, rounding: str) -> End | None:
    if not isinstance(statement, tirx.BufferStore) or not isinstance(statement.value, tirx.Cast):
        return None
    cast = statement.value
    if kind_of(cast) not in _NARROW or lanes_of(cast) != _LANES or _start(statement) is None:
        return None
    return end_in_int32(cast.value, rounding)


def _alike(first: Any, second: Any) -> bool:
    return bool(first.buffer.same_as(second.buffer)) and kind_of(first.value) == kind_of(
        second.value
    )


def _start(store: Any) -> Any:
    """Where a store begins, in vectors or in bytes; None where what it writes lies apart."""
    [index] = store.indices
    if not isinstance(index, tirx.Ramp):
        return index
    return index.base if isinstance(index.stride, tirx.IntImm) and index.stride.value == 1 else None


def _pack(statements: list[Any], run: dict[int, End]) -> None:
    """Put four stores in the place of the last of them, None in those of the others."""
    if len(run) < _TOGETHER:
        return
    first, analyzer = statements[min(run)], Analyzer()
    apart = _LANES // tvm.DataType(str(first.buffer.dtype)).lanes
    at = {}
    for place in run:
        distance = analyzer.simplify(_start(statements[place]) - _start(first))
        if isinstance(distance, tirx.IntImm):
            at[int(distance.value)] = place
    for distance in sorted(at):
        wanted = [distance + k * apart for k in range(_TOGETHER)]
        if not at.keys() >= set(wanted):
            continue
        four = [at.pop(each) for each in wanted]
        ends = [run[place] for place in four]
        if len({(end.zero, end.low, end.high) for end in ends}) == 1:
            made = _stored(statements[four[0]], apart, _packed(ends, kind_of(first.value)))
            for place in four:
                statements[place] = None
            statements[max(four)] = made


def _stored(first: Any, apart: int, value: Any) -> tirx.BufferStore:
    """`value` where the store `first` and those after it begin, so far `apart`."""
    start = _start(first)
    one = tirx.const(1, start.ty.dtype)
    return tirx.BufferStore(first.buffer, value, [tirx.Ramp(start, one, _TOGETHER * apart)])


def _packed(ends: list[End], kind: str) -> Any:
    """The bytes of four vectors of floats, one after the other."""
    least, most = RANGES[kind]
    zero, low, high = ends[0].zero, max(ends[0].low, least), min(ends[0].high, most)
    whole = [_call("int32x16", "llvm.lrint.v16i32.v16f32", end.value) for end in ends]
    halves = []
    for pair in (whole[:2], whole[2:]):
        words = _call("int16x32", "llvm.x86.avx512.packssdw.512", *pair)
        if zero:
            words = _call("int16x32", "llvm.sadd.sat.v32i16", words, number(zero, words))
        halves.append(words)
    made = _call(f"{kind}x64", _NARROW[kind], *halves)
    for name, bound, limit in zip(_BOUNDS[kind], (low, high), (least, most), strict=True):
        if bound != limit:
            made = _call(f"{kind}x64", name, made, number(bound, made))
    ordered = tirx.Shuffle([tirx.reinterpret("int32x16", made)], places(_IN_ORDER))
    return tirx.reinterpret(f"{kind}x64", ordered)


def _call(kind: str, name: str, *operands: Any) -> Any:
    return tirx.call_llvm_pure_intrin(kind, name, *operands)
