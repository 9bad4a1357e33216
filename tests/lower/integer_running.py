"""Runs integer kernels as they go into an artifact: lowered, fused, scheduled and compiled by edgec
for any target of this machine's kind, called through C on one thread."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tvm import relax
from tvm.ir import Constant, save_json

from edgec.lower.context import Context
from edgec.lower.kernels import compile_kernel
from edgec.lower.lowering import fusion
from edgec.targets import Target

LAUNCH = """
#define _ISOC11_SOURCE
#include <stdint.h>
#include <stdlib.h>
typedef struct { void *sync; int32_t tasks; } Group;
typedef int (*Body)(int32_t task, Group *group, void *data);
static int one_after_the_other(Body body, void *data, int tasks) {
    Group group = {0, tasks ? tasks : 2};
    for (int32_t i = 0; i < group.tasks; i++) body(i, &group, data);
    return 0;
}
static void *allocate(int type, int id, uint64_t bytes, int code, int bits) {
    return aligned_alloc(64, (bytes + 63) / 64 * 64);
}
static int release(int type, int id, void *memory) { free(memory); return 0; }
int (*__TVMBackendParallelLaunch)(Body, void *, int) = one_after_the_other;
void *(*__TVMBackendAllocWorkspace)(int, int, uint64_t, int, int) = allocate;
int (*__TVMBackendFreeWorkspace)(int, int, void *) = release;
"""


@dataclass(frozen=True)
class Step:
    """A call of a kernel: what it reads, by name or as constants, and the array it writes."""

    call: Any
    reads: tuple[str | np.ndarray, ...]
    writes: str
    output: np.ndarray

    def __call__(self, arrays: dict[str, np.ndarray]) -> None:
        arrays[self.writes] = self.output
        given = [arrays[each] if isinstance(each, str) else each for each in self.reads]
        self.call(*(ctypes.c_void_p(a.ctypes.data) for a in (*given, self.output)))


@dataclass(frozen=True)
class Compiled:
    """The kernels of an expression, in order."""

    steps: tuple[Step, ...]

    def __call__(self, *inputs: np.ndarray) -> np.ndarray:
        arrays = {f"x{i}": _aligned(array) for i, array in enumerate(inputs)}
        for step in self.steps:
            step(arrays)
        return self.steps[-1].output.copy()


@dataclass(frozen=True)
class Kernel:
    """A kernel's object, what it reads, by name or as constants, and what it writes."""

    symbol: str
    object: bytes
    reads: tuple[str | np.ndarray, ...]
    writes: str
    output: np.ndarray


def kernels(
    build: Callable[..., relax.Expr], inputs: Sequence[np.ndarray], target: Target, prefix: str = ""
) -> list[Kernel]:
    """`build(ctx, *inputs)` for `target`, fused: its kernels in order, their symbols prefixed."""
    builder = relax.BlockBuilder()
    variables = [
        relax.Var(f"x{i}", relax.TensorType(array.shape, array.dtype.name))
        for i, array in enumerate(inputs)
    ]
    with builder.function("main", variables):
        with builder.dataflow():
            ctx = Context(builder, target.channel_block, dots=target.dots)
            result = builder.emit_output(build(ctx, *variables))
        builder.emit_func_output(result)
    fused = fusion(builder.get())[-1]
    made: list[Kernel] = []
    for binding in fused["main"].body.blocks[0].bindings:
        value = binding.value
        if not isinstance(value, relax.Call):
            continue
        symbol, out = f"{prefix}k{len(made)}", value.ty_args[0]
        code = compile_kernel(save_json(fused[value.args[0]]), symbol, target, None, {})
        reads = tuple(
            _aligned(each.value.numpy()) if isinstance(each, Constant) else each.name
            for each in value.args[1].fields
        )
        shape = [int(n) for n in out.shape.values]
        output = _aligned(np.zeros(shape, str(out.dtype)))
        made.append(Kernel(symbol, code.object, reads, binding.var.name, output))
    return made


def compiled(
    build: Callable[..., relax.Expr], inputs: Sequence[np.ndarray], target: Target, folder: Path
) -> Compiled:
    """`build(ctx, *inputs)` for `target`, fused; `folder` is for the library that is loaded."""
    every = kernels(build, inputs, target)
    files = [folder / "launch.c"]
    files[0].write_text(LAUNCH)
    for kernel in every:
        files.append(folder / f"{kernel.symbol}.o")
        files[-1].write_bytes(kernel.object)
    library = folder / "kernels.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", *files, "-o", library, "-lm"], check=True)
    loaded = ctypes.CDLL(str(library))
    return Compiled(
        tuple(
            Step(getattr(loaded, each.symbol), each.reads, each.writes, each.output)
            for each in every
        )
    )


def _aligned(array: np.ndarray) -> np.ndarray:
    """A copy that begins at a cache line."""
    room = np.zeros(array.nbytes + 64, np.uint8)
    start = -room.ctypes.data % 64
    made = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    made[...] = array
    return made
