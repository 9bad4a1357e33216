"""The lowered program: kernels called one after the other over buffers.

This is what lowering hands to planning, and planning to emission. It knows nothing of TVM: a kernel
is a name here, its code lives in `edgec.lower`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import ml_dtypes
import numpy as np

ALIGNMENT = 64
"""Every buffer of a module starts at a multiple of this many bytes, a cache line."""

Where = Literal["input", "output", "weight", "arena", "state"]


def aligned(nbytes: int) -> int:
    """`nbytes` rounded up to a multiple of `ALIGNMENT`."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def dtype_of(name: str) -> np.dtype[np.generic]:
    """numpy's dtype of an ONNX tensor element type's name, such as "float32" or "bfloat16"."""
    return np.dtype(getattr(ml_dtypes, name, name))


def bits_of(name: str) -> int:
    """Bits that an element takes where it is stored: those of 4 and 2 share a byte."""
    narrow = re.search(r"(?:int|float)([24])(?:_|$)", name)
    return int(narrow[1]) if narrow else 8 * dtype_of(name).itemsize


@dataclass(frozen=True)
class Tensor:
    """An input or output of the model: ONNX name, element type, shape.

    Where a run decides an extent of an output, its shape is the largest there can be.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return (math.prod(self.shape) * bits_of(self.dtype) + 7) // 8


@dataclass(frozen=True)
class Buffer:
    """Memory that steps read and write.

    `where` says who provides it: the caller ("input", "output": `index` is the position in the
    model's signature), the weights file ("weight": `index` into `Program.weights`), the arena, or
    the instance, from one run to the next ("state": `index` into `Program.states`). A buffer
    `within` another, given by number, is its bytes from `offset` on; then that one says where.
    """

    name: str
    nbytes: int
    where: Where
    index: int = 0
    within: int | None = None
    offset: int = 0


@dataclass(frozen=True)
class Call:
    """One kernel call: buffer numbers in the order of the kernel's parameters, inputs then outputs.

    `nodes` are the ONNX nodes it computes, `macs` the multiply-accumulates of those that no other
    call computes too, by the definition of their operators, else its own. `in_place` lists (input
    position, output position) pairs that may share memory. `traffic` has the most bytes of each
    buffer that the call touches; none where it is not known.
    """

    kernel: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    nodes: tuple[str, ...] = ()
    in_place: tuple[tuple[int, int], ...] = ()
    macs: int = 0
    traffic: tuple[int, ...] = ()


@dataclass(frozen=True)
class Move:
    """Inside a `Repeat`, `buffer` stands for its bytes from `start` on, and after every run of the
    body for those `stride` bytes further on, or back."""

    buffer: int
    start: int
    stride: int


@dataclass(frozen=True)
class Repeat:
    """`times` runs of `body`. `moves` concern the steps of the body itself, not those of a `Repeat`
    in it."""

    times: int
    body: tuple[Step, ...]
    moves: tuple[Move, ...] = ()


@dataclass(frozen=True)
class Select:
    """Runs `then` where the bool in buffer `condition` is true, else `otherwise`."""

    condition: int
    then: tuple[Step, ...]
    otherwise: tuple[Step, ...]


Step = Call | Repeat | Select


@dataclass(frozen=True)
class State:
    """Recurrent state: what is in buffer `output` at the end of a run is `input` of the next.

    The input, zero at the start, is a buffer of its own that steps only read; `output` lives in the
    arena.
    """

    input: Tensor
    output_name: str
    output: int


@dataclass(frozen=True)
class Extent:
    """An extent that a run decides: int64 [1] in buffer `count`, of output `output` along `axis`.

    The data of such an output are dense at the beginning of its buffer.
    """

    output: str
    axis: int
    count: int


@dataclass
class Program:
    """Everything a module does, in order.

    Kernel names are keys of the kernel table that lowering builds beside it.
    """

    name: str
    inputs: list[Tensor]
    outputs: list[Tensor]
    buffers: list[Buffer] = field(default_factory=list)
    weights: list[np.ndarray] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    extents: list[Extent] = field(default_factory=list)

    def around(self, number: int) -> Iterator[int]:
        """Buffer `number` and those that it lies within, from the inside out."""
        outer: int | None = number
        while outer is not None:
            yield outer
            outer = self.buffers[outer].within

    def whole(self, number: int) -> tuple[int, int]:
        """The buffer within no other that buffer `number` lies in, and where in it, in bytes."""
        *inner, outer = self.around(number)
        return outer, sum(self.buffers[each].offset for each in inner)

    def wholes(self, buffers: Iterable[int]) -> set[int]:
        """The buffers within no other that hold `buffers`."""
        return {self.whole(buffer)[0] for buffer in buffers}

    def arena(self) -> dict[int, int]:
        """Bytes that each arena buffer takes which is within no other."""
        return {
            number: aligned(buffer.nbytes)
            for number, buffer in enumerate(self.buffers)
            if buffer.where == "arena" and buffer.within is None
        }

    def calls(self) -> Iterator[Call]:
        """Every kernel call, those inside repeats and selects included, in order."""
        yield from calls_in(self.steps)


def calls_in(steps: list[Step] | tuple[Step, ...]) -> Iterator[Call]:
    """The kernel calls of `steps`, nested ones included."""
    for step in steps:
        match step:
            case Call():
                yield step
            case Repeat():
                yield from calls_in(step.body)
            case Select():
                yield from calls_in(step.then)
                yield from calls_in(step.otherwise)


def reads(step: Step) -> set[int]:
    """Buffers a step reads."""
    found = {buffer for call in calls_in([step]) for buffer in call.inputs}
    if isinstance(step, Select):
        found.add(step.condition)
    return found


def writes(step: Step) -> set[int]:
    """Buffers a step writes."""
    return {buffer for call in calls_in([step]) for buffer in call.outputs}
