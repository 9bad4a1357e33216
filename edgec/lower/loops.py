"""Kernels that must run in order: explicit loops over buffers, beyond TE's equations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from tvm import te, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T


class Buffer:
    """A buffer read and written as `buffer[index]`, with one index per axis."""

    def __init__(self, buffer: Any) -> None:
        self._buffer = buffer
        self.shape = tuple(int(n) for n in buffer.shape)
        self.dtype = str(buffer.dtype)

    def __getitem__(self, index: Any) -> Any:
        return tirx.BufferLoad(self._buffer, _indices(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        T.buffer_store(self._buffer, value, _indices(index))


def _indices(index: Any) -> list[Any]:
    return list(index) if isinstance(index, list | tuple) else [index]


class Loops:
    """What the body of an ordered kernel builds with."""

    @contextmanager
    def over(self, shape: Sequence[int]) -> Iterator[tuple[Any, ...]]:
        """A nest of loops over every index of `shape`."""
        with ExitStack() as stack:
            yield tuple(stack.enter_context(T.serial(0, int(n))) for n in shape)

    def while_(self, condition: Any) -> Any:
        """The statements that follow run again and again as long as `condition` holds."""
        return T.While(condition)

    def local(self, dtype: str) -> Buffer:
        """One variable, read and written as element 0."""
        return Buffer(T.alloc_buffer((1,), dtype, scope="local"))

    def array(self, shape: Sequence[int], dtype: str) -> Buffer:
        """Working memory of the kernel."""
        return Buffer(T.alloc_buffer(tuple(shape), dtype))

    @contextmanager
    def when(self, condition: Any) -> Iterator[None]:
        """The statements that follow run where `condition` holds."""
        with T.If(condition), T.Then():
            yield


def extern(
    body: Callable[..., None],
    inputs: list[te.Tensor],
    outputs: list[tuple[tuple[int, ...], str]],
) -> Any:
    """A TE operation whose kernel is `body(loops, *inputs, *outputs)` over `Buffer`s.

    It is the only stage of its kernel: its block is the root, and is named as schedules expect.
    """

    def generate(ins: Any, outs: Any) -> Any:
        with IRBuilder() as builder:
            with T.serial(0, 1):
                body(Loops(), *(Buffer(b) for b in [*ins, *outs]))
            return builder.get()

    return te.extern(
        [shape for shape, _ in outputs],
        inputs,
        generate,
        dtype=[dtype for _, dtype in outputs],
        in_buffers=[tirx.decl_buffer(t.shape, t.dtype, f"in{k}") for k, t in enumerate(inputs)],
        out_buffers=[
            tirx.decl_buffer(shape, dtype, f"out{k}") for k, (shape, dtype) in enumerate(outputs)
        ],
        name="root",
    )
