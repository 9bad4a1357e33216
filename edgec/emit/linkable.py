"""Everything that linking needs of a compiled model, and the three things linked from it."""

from __future__ import annotations

from dataclasses import dataclass

from edgec.emit.glue import symbol_of
from edgec.emit.toolchain import RUNNER_SOURCES, RUNTIME, Toolchain, c_name

_EMBED = r"""
__asm__(
    ".section .rodata,\"a\",%progbits\n"
    ".balign 64\n"
    ".globl edgec_embedded_weights\n"
    ".hidden edgec_embedded_weights\n"
    ".type edgec_embedded_weights, %object\n"
    "edgec_embedded_weights:\n"
    ".incbin \"weights.bin\"\n"
    ".size edgec_embedded_weights, . - edgec_embedded_weights\n"
    ".previous\n");
"""


@dataclass(frozen=True)
class Linkable:
    """A model between compilation and linking.

    `name` is the model's own; `objects` are its kernels, `program_c` the tables that
    `edgec/runtime/program.h` describes, `weights` the bytes they refer to. `golden_sha256` is the
    hash of the golden data in the artifact, "" when there are none.
    """

    name: str
    objects: tuple[bytes, ...]
    program_c: str
    weights: bytes
    golden_sha256: str = ""

    @property
    def gpu(self) -> bool:
        """Whether it has a part for GPUs."""
        return '#include "cuda.h"' in self.program_c

    @property
    def c_name(self) -> str:
        """The name in file names."""
        return c_name(self.name)

    @property
    def symbol(self) -> str:
        """The one symbol that libraries export."""
        return symbol_of(self.name)


def link_library(model: Linkable, toolchain: Toolchain) -> bytes:
    """The shared library of an artifact, which is given its weights when it is run."""
    objects = [
        toolchain.compile(model.program_c),
        *model.objects,
        *toolchain.runtime(gpu=model.gpu),
    ]
    soname = f"lib{model.c_name}.so"
    return toolchain.shared_library(objects, exports=[model.symbol], soname=soname)


def link_standalone(model: Linkable, toolchain: Toolchain) -> tuple[bytes, bytes]:
    """A shared and a static library that carry the weights inside."""
    defines = {"EDGEC_EMBED_WEIGHTS": "1"} if model.weights else {}
    objects = [toolchain.compile(model.program_c, defines=defines), *model.objects]
    if model.weights:
        objects.append(toolchain.compile(_EMBED, files={"weights.bin": model.weights}))
    objects += toolchain.runtime(gpu=model.gpu)
    soname = f"lib{model.c_name}.so"
    return (
        toolchain.shared_library(objects, exports=[model.symbol], soname=soname),
        toolchain.static_library(objects, exports=[model.symbol]),
    )


def link_runner(model: Linkable, toolchain: Toolchain) -> bytes:
    """The static executable `edgec-run` for this model.

    Zig links it for musl; another compiler must be able to link statically.
    """
    static = toolchain.for_static_programs()
    defines = {
        "EDGEC_ENTRY": model.symbol,
        "EDGEC_GOLDEN_SHA256": f'"{model.golden_sha256}"',
    }
    runner = [static.compile(RUNTIME / name, defines=defines) for name in RUNNER_SOURCES]
    program = static.compile(model.program_c)
    return static.executable([*runner, program, *model.objects, *static.runtime(gpu=model.gpu)])
