"""Runs integer kernels of Arm targets under QEMU: a static program that reads its arrays from a
file, calls the kernels one after the other and writes what the last one made."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from tvm import relax

from edgec.cache import Cache
from edgec.emit.toolchain import Toolchain
from edgec.targets import Target

from .integer_running import LAUNCH, Kernel, kernels

_MAIN = """
#include <stdio.h>
%(declared)s
static void *array(FILE *from, size_t bytes) {
    void *memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (from && fread(memory, 1, bytes, from) != bytes) exit(1);
    return memory;
}
int main(int count, char **words) {
    FILE *from = fopen(words[1], "rb"), *to = fopen(words[2], "wb");
%(body)s
    return fclose(to);
}
"""


def emulated(
    build: Callable[..., relax.Expr],
    inputs: Sequence[np.ndarray],
    target: Target,
    folder: Path,
    cpus: Sequence[str],
) -> list[np.ndarray]:
    """`build(ctx, *inputs)` as the kernels for `target` compute it on each of QEMU's `cpus`."""
    every = kernels(build, inputs, target)
    source, data = _program(every, inputs)
    toolchain = Toolchain.of(target, Cache.default().path).for_static_programs()
    main = folder / "main.c"
    main.write_text(LAUNCH + source)
    objects = [kernel.object for kernel in every]
    program, given = folder / "program", folder / "arrays"
    program.write_bytes(toolchain.executable([toolchain.compile(main), *objects]))
    program.chmod(0o700)
    given.write_bytes(data)
    results = []
    for cpu in cpus:
        made = folder / f"{cpu}.bin"
        command = [target.qemu, "-cpu", cpu, program, given, made]
        subprocess.run(command, check=True, timeout=60)
        last = every[-1].output
        results.append(np.frombuffer(made.read_bytes(), last.dtype).reshape(last.shape))
    return results


def _program(every: list[Kernel], inputs: Sequence[np.ndarray]) -> tuple[str, bytes]:
    """Its C, and the file that it reads."""
    lines = [f"void *x{i} = array(from, {array.nbytes});" for i, array in enumerate(inputs)]
    data = [np.ascontiguousarray(array).tobytes() for array in inputs]
    names = {f"x{i}": f"x{i}" for i in range(len(inputs))}
    declared = []
    for k, kernel in enumerate(every):
        given = []
        for i, each in enumerate(kernel.reads):
            if isinstance(each, str):
                given.append(names[each])
                continue
            given.append(f"c{k}_{i}")
            lines.append(f"void *{given[-1]} = array(from, {each.nbytes});")
            data.append(each.tobytes())
        names[kernel.writes] = f"y{k}"
        lines.append(f"void *y{k} = array(0, {kernel.output.nbytes});")
        lines.append(f"if ({kernel.symbol}({', '.join([*given, f'y{k}'])})) return 1;")
        declared.append(f"int {kernel.symbol}({', '.join(['void *'] * (len(given) + 1))});")
    lines.append(f"fwrite(y{len(every) - 1}, 1, {every[-1].output.nbytes}, to);")
    body = "\n".join(f"    {line}" for line in lines)
    return _MAIN % {"declared": "\n".join(declared), "body": body}, b"".join(data)
