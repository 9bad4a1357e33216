"""Runs integer kernels of Arm targets under QEMU: a static program that reads its arrays from a
file, calls the kernels of each expression one after the other and writes what the last one made."""

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


Expression = tuple[Callable[..., relax.Expr], Sequence[np.ndarray]]
"""What `build(ctx, *inputs)` is, and the inputs."""


def emulated(
    expressions: Sequence[Expression], target: Target, folder: Path, cpus: Sequence[str]
) -> list[list[np.ndarray]]:
    """Each of `expressions` as its kernels for `target` compute it on each of QEMU's `cpus`: one
    program computes all of them, for linking is what takes time."""
    parts, data, last, objects = [], b"", [], []
    for number, (build, inputs) in enumerate(expressions):
        every = kernels(build, inputs, target, f"e{number}")
        part, read = _part(every, inputs)
        parts.append(part)
        data += read
        last.append(every[-1].output)
        objects += [kernel.object for kernel in every]
    declared, bodies = zip(*parts, strict=True)
    main = folder / "main.c"
    main.write_text(LAUNCH + _MAIN % {"declared": "\n".join(declared), "body": "\n".join(bodies)})
    toolchain = Toolchain.of(target, Cache.default().path).for_static_programs()
    program, given = folder / "program", folder / "arrays"
    program.write_bytes(toolchain.executable([toolchain.compile(main), *objects]))
    program.chmod(0o700)
    given.write_bytes(data)
    results: list[list[np.ndarray]] = [[] for _ in last]
    for cpu in cpus:
        made = folder / f"{cpu}.bin"
        command = [target.qemu, "-cpu", cpu, program, given, made]
        subprocess.run(command, check=True, timeout=60)
        rest = made.read_bytes()
        for output, found in zip(last, results, strict=True):
            flat = np.frombuffer(rest[: output.nbytes], output.dtype)
            found.append(flat.reshape(output.shape))
            rest = rest[output.nbytes :]
        assert not rest
    return results


def _part(every: list[Kernel], inputs: Sequence[np.ndarray]) -> tuple[tuple[str, str], bytes]:
    """Declarations and statements of one expression, and the arrays that they read."""
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
    body = "\n".join(f"        {line}" for line in lines)
    return ("\n".join(declared), f"    {{\n{body}\n    }}"), b"".join(data)
