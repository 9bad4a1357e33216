"""Sums of products in TIR: convolutions, products of matrices, whatever is of that form.

    C[z, p, q] = sum over k of A[z, p, k] * B[z, q, k];  out[z, p, q] = tail(C[z, p, q], ...)

Rows p are the axes that only A has, columns q those that only B has, batches z those of both. A
factor may be zero beyond a border, and stored in a narrower type than it is added up in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tvm
import tvm_ffi
from tvm import s_tir, tirx
from tvm.ir.expr import TensorLoad
from tvm.sym import Analyzer

from edgec.lower.dot import DOT4, QUAD

BYTES = 4
"""Of an int32."""

Axes = tuple[tirx.IterVar, ...]


@dataclass(frozen=True)
class Factor:
    """One of the two factors: where its elements are, and when they are not zero. Of products of
    four bytes an element is the `bytes_` that begin there, as one int32."""

    load: TensorLoad
    guard: Any | None = None
    bytes_: int = 0

    @property
    def dtype(self) -> str:
        """The type that is loaded."""
        return "int32" if self.bytes_ else str(self.load.source.dtype)

    def place(self) -> Any:
        """The index of an element in the flat buffer."""
        place = flat(self.load.indices, self.load.source)
        return Analyzer().simplify(tirx.floordiv(place, self.bytes_)) if self.bytes_ else place


@dataclass(frozen=True)
class Contraction:
    """The parts of such a stage; `tail` is the block that takes the sums, None where they are
    stored as they are."""

    block: s_tir.SBlock
    left: Factor
    right: Factor
    batches: Axes
    rows: Axes
    columns: Axes
    terms: Axes
    tail: s_tir.SBlock | None

    @property
    def sums(self) -> tirx.Buffer:
        """The buffer that the sums would be written to."""
        return self.block.writes[0].source


def flat(indices: Sequence[Any], buffer: tirx.Buffer) -> Any:
    """The index of an element in the flat buffer."""
    index: Any = tirx.IntImm("int64", 0)
    for at, extent in zip(indices, buffer.shape, strict=True):
        index = index * int(extent) + at
    return index


def size(axes: Axes) -> int:
    """Iterations over `axes`."""
    return math.prod(int(axis.dom.extent) for axis in axes)


def block_of(statement: tirx.Stmt) -> s_tir.SBlock | None:
    """The one block that loops of a statement run over, where each axis is a loop."""
    loops = []
    while isinstance(statement, tirx.For):
        loops.append(statement.loop_var)
        statement = statement.body
    if not isinstance(statement, s_tir.SBlockRealize):
        return None
    values = list(statement.iter_values)
    plain = len(values) == len(loops) and all(
        any(value.same_as(loop) for loop in loops) for value in values
    )
    return statement.block if plain else None


def contraction(statement: tirx.Stmt) -> Contraction | None:
    """The contraction that `statement` is, without a tail; None where it is none."""
    block = block_of(statement)
    if block is None or block.init is None or not isinstance(block.body, tirx.BufferStore):
        return None
    store = block.body
    value = store.value
    if not isinstance(value, tirx.Add) or not isinstance(value.a, TensorLoad):
        return None
    if not value.a.source.same_as(store.buffer):
        return None
    left, right = _factors(value.b)
    if left is None or right is None:
        return None
    spatial = [axis for axis in block.iter_vars if int(axis.iter_type) == 0]
    terms = tuple(axis for axis in block.iter_vars if int(axis.iter_type) == 2)
    if len(spatial) + len(terms) != len(block.iter_vars):
        return None
    if not all(i.same_as(a.var) for i, a in zip(store.indices, spatial, strict=True)):
        return None
    uses = [(_uses(left, axis), _uses(right, axis)) for axis in spatial]
    pairs = list(zip(spatial, uses, strict=True))
    rows = tuple(axis for axis, (a, b) in pairs if a and not b)
    columns = tuple(axis for axis, (a, b) in pairs if b and not a)
    batches = tuple(axis for axis, (a, b) in pairs if a == b)
    return Contraction(block, left, right, batches, rows, columns, terms, None)


def takes(sums: Contraction, statement: tirx.Stmt) -> s_tir.SBlock | None:
    """The block of `statement`, where it takes each sum at its own place and nothing else of them:
    a tail."""
    block = block_of(statement)
    if block is None or not isinstance(block.body, tirx.BufferStore) or block.init is not None:
        return None
    spatial = [axis for axis in sums.block.iter_vars if int(axis.iter_type) == 0]
    mine = list(block.iter_vars)
    if [int(a.dom.extent) for a in mine] != [int(a.dom.extent) for a in spatial]:
        return None
    if any(int(axis.iter_type) != 0 for axis in mine):
        return None
    fits, found = True, False

    def visit(load: TensorLoad) -> None:
        nonlocal fits, found
        if load.source.same_as(sums.sums):
            found = True
            fits &= all(i.same_as(a.var) for i, a in zip(load.indices, mine, strict=True))

    tvm_ffi.structural_walk(block.body.value, ((TensorLoad, visit),), order="pre")
    return block if fits and found else None


def width(factor: Factor, along: Axes, most: int) -> int:
    """How many elements in a row, for consecutive values of the fused axes `along`, lie together,
    are guarded together, and begin at a multiple of their number: at most `most`, at least 1."""
    analyzer = Analyzer()
    place = factor.place()
    run = 1
    for axis in reversed(along):
        if int(axis.dom.extent) == 1:
            continue
        guarded = factor.guard is not None and _has(factor.guard, axis)
        if guarded or _step(place, axis, analyzer) != run:
            break
        run *= int(axis.dom.extent)
    inner = _inner(along, run)
    rest = substitute(place, lambda var: tirx.IntImm("int64", 0) if _is(var, inner) else None)
    while most > 1:
        bound = analyzer.modular_set(analyzer.simplify(rest))
        if run % most == 0 and int(bound.coeff) % most == 0 and int(bound.base) % most == 0:
            return most
        most //= 2
    return 1


def steps_by_one(factor: Factor, along: Axes) -> bool:
    """Whether the next value of the innermost of `along` is the next element in memory."""
    long = [axis for axis in along if int(axis.dom.extent) > 1]
    return bool(long) and _step(factor.place(), long[-1], Analyzer()) == 1


def substitute(expr: Any, value: Callable[[Any], Any | None]) -> Any:
    """`expr` with the variables replaced that `value` gives something for."""

    def replaced(variable: Any) -> Any:
        found = value(variable)
        return variable if found is None else found

    return tvm_ffi.structural_map(expr, (tvm.ir.Var, replaced))


def _inner(along: Axes, run: int) -> list[tirx.IterVar]:
    chosen: list[tirx.IterVar] = []
    for axis in reversed(along):
        if run <= 1:
            break
        chosen.append(axis)
        run //= int(axis.dom.extent)
    return chosen


def _is(variable: Any, axes: Sequence[tirx.IterVar]) -> bool:
    return any(variable.same_as(axis.var) for axis in axes)


def _step(place: Any, axis: tirx.IterVar, analyzer: Analyzer) -> int | None:
    """By how much `place` grows with `axis`; None where that differs."""
    moved = substitute(place, lambda var: axis.var + 1 if var.same_as(axis.var) else None)
    grown = analyzer.simplify(moved - place)
    return int(grown.value) if isinstance(grown, tirx.IntImm) else None


def _factors(term: Any) -> tuple[Factor | None, Factor | None]:
    """What is multiplied in one term of a sum, if it is a product."""
    if isinstance(term, tirx.Mul):
        return _factor(term.a), _factor(term.b)
    if isinstance(term, tvm.ir.Call) and getattr(term.op, "name", "") == DOT4:
        return _quad(term.args[0]), _factor(term.args[1])
    return None, None


def _quad(expr: Any) -> Factor | None:
    """Four bytes that lie together from a multiple of four on, as one element."""
    if not isinstance(expr, tvm.ir.Call) or getattr(expr.op, "name", "") != QUAD:
        return None
    first, *others = expr.args
    if not all(isinstance(each, TensorLoad) for each in expr.args):
        return None
    analyzer = Analyzer()
    start = flat(first.indices, first.source)
    for distance, other in enumerate(others, 1):
        gap = analyzer.simplify(flat(other.indices, other.source) - start)
        if not other.source.same_as(first.source) or not isinstance(gap, tirx.IntImm):
            return None
        if int(gap.value) != distance:
            return None
    bound = analyzer.modular_set(analyzer.simplify(start))
    aligned = int(bound.coeff) % BYTES == 0 and int(bound.base) % BYTES == 0
    return Factor(first, None, BYTES) if aligned else None


_EXACT = ("float16", "float32", "int8", "uint8")
"""Stored types whose elements are converted to a float or to int32 without a loss."""


def _factor(expr: Any) -> Factor | None:
    """What is multiplied, where it is a load, converted or guarded by zero or neither."""
    final = str(expr.ty)
    expr = _converted(expr)
    guard = None
    if isinstance(expr, tvm.ir.Call) and getattr(expr.op, "name", "").endswith(".if_then_else"):
        guard, expr, zero = expr.args
        if not isinstance(zero, tirx.FloatImm | tirx.IntImm) or float(zero.value) != 0.0:
            return None
    expr = _converted(expr)
    if not isinstance(expr, TensorLoad):
        return None
    stored = str(expr.source.dtype)
    lossless = stored in _EXACT and (not stored.startswith("float") or final.startswith("float"))
    return Factor(expr, guard) if stored == final or lossless else None


def _converted(expr: Any) -> Any:
    """What `expr` converts, through floats and int32 only."""
    while isinstance(expr, tirx.Cast) and str(expr.ty) in ("float16", "float32", "int32"):
        expr = expr.value
    return expr


def _uses(factor: Factor, axis: tirx.IterVar) -> bool:
    indices = any(_has(index, axis) for index in factor.load.indices)
    return indices or (factor.guard is not None and _has(factor.guard, axis))


def _has(expr: Any, axis: tirx.IterVar) -> bool:
    found = False

    def visit(variable: Any) -> None:
        nonlocal found
        found |= bool(variable.same_as(axis.var))

    tvm_ffi.structural_walk(expr, ((tvm.ir.Var, visit),), order="pre")
    return found
