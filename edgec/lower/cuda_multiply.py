"""Contractions as CUDA C of our own: the problem's addresses and tail around the tiles of
`edgec/emit/cuda_tiles.h` and `cuda_cores.h`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.ir.expr import TensorLoad

from edgec.emit.cuda_nvrtc import TF32_SINCE
from edgec.lower.cuda_contraction import (
    Axes,
    Contraction,
    Factor,
    flat,
    size,
    steps_by_one,
    width,
)
from edgec.lower.cuda_print import NotPrintable, Printer, c_type
from edgec.program import dtype_of

_FEWEST = 8
"""Rows, columns and terms below which a tile would be mostly empty."""

_MOST_ELEMENTS = 1 << 31
_WIDEST_BYTES = 16
_BLOCKS_WANTED = 48
"""Fewer leave processors of the smallest GPUs idle."""

_TO_FLOAT = {"float16", "float32", "int8", "uint8"}
"""Stored types that are multiplied as floats."""

_TENSOR_CORES = {"float16": 75, "int32": 75, "float32": TF32_SINCE}
"""The capabilities from which tensor cores multiply what is stored so, quads of bytes as int32."""


@dataclass(frozen=True)
class Tiles:
    """Sizes of the tile that a block of threads computes, how many threads, and by what."""

    rows: int
    columns: int
    threads: int
    function: str


_SINGLE = {(128, 128): 1.0, (128, 64): 1.05, (64, 64): 1.15, (64, 32): 1.4, (32, 32): 1.8}
_CORES = {(128, 64): 1.0, (64, 64): 1.1, (64, 32): 1.4, (32, 32): 1.8}
"""Tiles, and what one multiplication costs in them relative to the best: small ones load more."""


def tiles_for(problem: Contraction, arch: int, *, tf32: bool = False) -> Tiles | None:
    """The tiles to compute `problem` by; None where it is not worth any, or of other types. With
    `tf32` tensor cores may round float32 to multiply it."""
    rows, columns, terms = size(problem.rows), size(problem.columns), size(problem.terms)
    if min(rows, columns, terms) < _FEWEST or size(problem.batches) > 65535:
        return None
    stored = {problem.left.dtype, problem.right.dtype}
    floats = stored <= _TO_FLOAT and _sums(problem) in ("float32", *stored - {"int8", "uint8"})
    if not floats and not (problem.left.bytes_ and stored == {_sums(problem)}):
        return None
    cores = len(stored) == 1 and arch >= _TENSOR_CORES.get(problem.left.dtype, sys.maxsize)
    cores &= tf32 or stored != {"float32"}
    costs = _CORES if cores else _SINGLE

    def cost(tile: tuple[int, int]) -> float:
        down, across = -(-rows // tile[0]), -(-columns // tile[1])
        blocks = down * across * size(problem.batches)
        work = blocks * tile[0] * tile[1] * costs[tile]
        return work * max(1.0, _BLOCKS_WANTED / blocks)

    best = min(costs, key=cost)
    name = "edgec_multiply_cores" if cores else "edgec_multiply"
    return Tiles(*best, 128 if cores else 256, name)


def _sums(problem: Contraction) -> str:
    return str(problem.sums.dtype)


def source_of(
    problem: Contraction, tiles: Tiles, name: str, buffers: Sequence[tirx.Buffer], vectors: bool
) -> str:
    """The function `name`, whose parameters are `buffers`; with `vectors` these begin at multiples
    of 16 bytes.

    Raises:
        NotPrintable: a part of it has no C.
    """
    writer = _Text(problem, buffers)
    most = {
        id(factor): _WIDEST_BYTES // dtype_of(factor.dtype).itemsize if vectors else 1
        for factor in (problem.left, problem.right)
    }
    left = _along(problem.left, problem.rows, problem, most[id(problem.left)])
    right = _along(problem.right, problem.columns, problem, most[id(problem.right)])
    fields = [f"  {c_type(str(b.dtype))} *b{i};" for i, b in enumerate(buffers)]
    parameters = ", ".join(
        f"{c_type(str(b.dtype))} *__restrict__ b{i}" for i, b in enumerate(buffers)
    )
    given = ", ".join(f"b{i}" for i in range(len(buffers)))
    return "\n".join(
        [
            f"struct {name}_problem {{",
            *fields,
            f"  using left_type = {c_type(problem.left.dtype)};",
            f"  using right_type = {c_type(problem.right.dtype)};",
            f"  using sum_type = {'int32_t' if problem.left.bytes_ else 'float'};",
            f"  static constexpr int ROWS = {size(problem.rows)};",
            f"  static constexpr int COLUMNS = {size(problem.columns)};",
            f"  static constexpr int TERMS = {size(problem.terms)};",
            f"  static constexpr int BM = {tiles.rows}, BN = {tiles.columns};",
            f"  static constexpr int LEFT_WIDTH = {left[0]}, RIGHT_WIDTH = {right[0]};",
            f"  static constexpr bool LEFT_ALONG_K = {_bool(left[1])};",
            f"  static constexpr bool RIGHT_ALONG_K = {_bool(right[1])};",
            *writer.address("left", "p", problem.left, problem.rows),
            *writer.address("right", "q", problem.right, problem.columns),
            *writer.finish(),
            "};",
            f'extern "C" __global__ void __launch_bounds__({tiles.threads})',
            f" {name}({parameters}) {{",
            f"  const {name}_problem problem{{{given}}};",
            f"  {tiles.function}<{name}_problem>(problem);",
            "}",
        ]
    )


def _along(factor: Factor, outer: Axes, problem: Contraction, most: int) -> tuple[int, bool]:
    """How many elements of a factor can be loaded as one, and whether they follow each other along
    the terms, not the outer axes."""
    by_term = width(factor, problem.terms, most)
    by_outer = width(factor, outer, most)
    if by_term == by_outer:
        return by_term, not steps_by_one(factor, outer)
    return max(by_term, by_outer), by_term > by_outer


def _bool(value: bool) -> str:
    return "true" if value else "false"


class _Text:
    """Members of a problem's class."""

    def __init__(self, problem: Contraction, buffers: Sequence[tirx.Buffer]) -> None:
        self.problem = problem
        self.buffers = list(buffers)
        for buffer in (*buffers, problem.left.load.source, problem.right.load.source):
            if _count(buffer) >= _MOST_ELEMENTS:
                raise NotPrintable("a buffer that 32-bit indices do not reach")

    def address(self, name: str, outer: str, factor: Factor, axes: Axes) -> list[str]:
        """The member function that says where the elements of a factor are."""
        names: dict[Any, str] = {}
        lines = [
            f"  __device__ const {name}_type *{name}(int z, int {outer}, int k) const {{",
            *_decoded(names, self.problem.batches, "z"),
            *_decoded(names, axes, outer),
            *_decoded(names, self.problem.terms, "k"),
        ]
        printer = Printer(names, _no_load)
        if factor.guard is not None:
            lines.append(f"    if (!({printer(factor.guard)})) return nullptr;")
        pointer = f"(const {name}_type *){self._pointer(factor.load.source)}"
        return [*lines, f"    return {pointer} + ({printer(factor.place())});", "  }"]

    def finish(self) -> list[str]:
        """The member function that takes a sum."""
        problem = self.problem
        names: dict[Any, str] = {}
        lines = [
            "  __device__ void finish(int z, int p, int q, sum_type sum) const {",
            *_decoded(names, problem.batches, "z"),
            *_decoded(names, problem.rows, "p"),
            *_decoded(names, problem.columns, "q"),
            f"    const {c_type(str(problem.sums.dtype))} total = sum;",
        ]
        spatial = [axis for axis in problem.block.iter_vars if int(axis.iter_type) == 0]
        block = problem.tail or problem.block
        if problem.tail is not None:
            mine = zip(problem.tail.iter_vars, spatial, strict=True)
            names = {tail.var: names[axis.var] for tail, axis in mine}
        store = block.body
        printer = Printer(names, self._load)
        value = "total" if problem.tail is None else printer(store.value)
        place = printer(flat(store.indices, store.buffer))
        return [*lines, f"    {self._pointer(store.buffer)}[{place}] = {value};", "  }"]

    def _load(self, load: TensorLoad, indices: list[str]) -> str:
        if load.source.same_as(self.problem.sums):
            return "total"
        place = "0"
        for index, extent in zip(indices, load.source.shape, strict=True):
            place = f"({place} * {int(extent)} + {index})" if place != "0" else index
        return f"{self._pointer(load.source)}[{place}]"

    def _pointer(self, buffer: tirx.Buffer) -> str:
        for number, known in enumerate(self.buffers):
            if known.same_as(buffer):
                return f"b{number}"
        raise NotPrintable(f"buffer {buffer.name} is no parameter")


def _decoded(names: dict[Any, str], axes: Axes, fused: str) -> list[str]:
    """Lines that give each axis the value it has where all together have `fused`; the last axis is
    the fastest."""
    lines = []
    below = 1
    for number, axis in reversed(list(enumerate(axes))):
        extent = int(axis.dom.extent)
        names[axis.var] = f"{fused}{number}"
        value = "0" if extent == 1 else f"(int)((uint){fused} / {below}u % {extent}u)"
        lines.append(f"    const int {fused}{number} = {value};")
        below *= extent
    return lines


def _no_load(load: TensorLoad, indices: list[str]) -> str:
    raise NotPrintable("an index that is loaded")


def _count(buffer: tirx.Buffer) -> int:
    count = 1
    for extent in buffer.shape:
        count *= int(extent)
    return count
