"""The part of program.c that describes a model to a GPU, and the device code beside it.

See `edgec/runtime/cuda.h` for what the tables mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from edgec.emit.cuda_kernel import CudaKernel
from edgec.emit.cuda_nvrtc import nvrtc, ptx_version
from edgec.emit.toolchain import Toolchain
from edgec.errors import LoweringError
from edgec.plan import Plan
from edgec.program import Call, Move, Program, Repeat, Select, Step, aligned
from edgec.targets import Target

_WIDEST_LOAD = 16
_MOST_POINTERS = 256
"""EDGEC_MAX_POINTERS."""

_IMAGES = r"""
__asm__(
    ".section .rodata,\"a\",%progbits\n"
    ".balign 64\n"
    ".globl edgec_gpu_images\n"
    ".hidden edgec_gpu_images\n"
    ".type edgec_gpu_images, %object\n"
    "edgec_gpu_images:\n"
    ".incbin \"images.bin\"\n"
    ".size edgec_gpu_images, . - edgec_gpu_images\n"
    ".previous\n");
"""


@dataclass(frozen=True)
class GpuPart:
    """What a model has for a GPU: its kernels by name, the text of the tables that name their
    parts, and all device code in one block. `program_c` is all of program.c, for any processor.
    `tf32` says that tensor cores may round float32 to multiply it."""

    kernels: Mapping[str, CudaKernel]
    cuda_c: str
    images: bytes
    program_c: str = ""
    tf32: bool = False

    def object(self, toolchain: Toolchain) -> bytes:
        """The device code as an object to link."""
        return toolchain.compile(_IMAGES, files={"images.bin": self.images})


def gpu_part(plan: Plan, kernels: Mapping[str, CudaKernel], target: Target) -> GpuPart:
    """`kernels`, by the names that the steps of `plan` call them, as tables and device code."""
    used = list(dict.fromkeys(call.kernel for call in plan.program.calls()))
    block = bytearray()
    images: list[str] = []
    launches: list[str] = []
    pointers: list[str] = []
    rows: list[str] = []
    known: dict[bytes, int] = {}

    def placed(data: bytes) -> tuple[int, int]:
        at = len(block)
        block.extend(data + bytes(aligned(len(data) + 1) - len(data)))
        return at, len(data)

    for name in used:
        kernel = kernels[name]
        if kernel.cubin and kernel.cubin not in known:
            known[kernel.cubin] = len(images)
            cubin, ptx = placed(kernel.cubin), placed(kernel.ptx) if kernel.ptx else (0, 0)
            images.append(f"{cubin[0]}, {cubin[1]}, {ptx[0]}, {ptx[1]}")
        rows.append(f"{len(launches)}, {len(kernel.launches)}")
        for launch in kernel.launches:
            if len(launch.arguments) > _MOST_POINTERS:
                raise LoweringError(
                    f"a launch with {len(launch.arguments)} pointers, more than a GPU takes",
                    where=f"kernel {name}",
                )
            grid, threads = (", ".join(map(str, size)) for size in (launch.grid, launch.block))
            launches.append(
                f'"{launch.function}", {known[kernel.cubin]}, {{{grid}}}, {{{threads}}}, '
                f"{len(pointers)}, {len(launch.arguments)}"
            )
            for pointer in launch.arguments:
                argument = -1 if pointer.param is None else pointer.param
                pointers.append(f"{argument}, {pointer.offset}")
    scratch = max((kernel.scratch_bytes for kernel in kernels.values()), default=0)
    tables = {
        "gpu_images": ("edgec_image", images),
        "gpu_launches": ("edgec_launch", launches),
        "gpu_pointers": ("edgec_pointer", pointers),
        "gpu_kernels": ("edgec_gpu_kernel", rows),
    }
    text = [
        "extern const unsigned char edgec_gpu_images[] EDGEC_HIDDEN;",
        *(_table(kind, name, entries) for name, (kind, entries) in tables.items() if entries),
        "static const edgec_cuda cuda = {\n"
        f'  .arch = "{target.gpu_arch}", .toolkit = {toolkit_of(target)},\n'
        f"  .conditional = {int(_conditional(plan.program.steps))}, "
        f".scratch_bytes = {scratch}, .images_data = edgec_gpu_images,\n"
        + "".join(
            f"  .{name.removeprefix('gpu_')} = {name},\n"
            for name, (_, entries) in tables.items()
            if entries
        )
        + f"  .image_count = {len(images)}, .launch_count = {len(launches)},\n"
        "};",
    ]
    return GpuPart(kernels, "\n".join(text), bytes(block) or b"\0")


def gpu_facts(part: GpuPart, target: Target) -> dict[str, object]:
    """What the manifest says of it: the GPU and driver, and what each function takes of the GPU."""
    functions = {
        facts.name: {
            "registers": facts.registers,
            "shared_bytes": facts.shared_bytes,
            "frame_bytes": facts.frame_bytes,
        }
        for kernel in part.kernels.values()
        if kernel.cubin
        for facts in kernel.facts()
    }
    ptx = [ptx_version(kernel.ptx) for kernel in part.kernels.values() if kernel.ptx]
    return {
        "arch": target.gpu_arch,
        "driver": target.cuda,
        "toolkit": toolkit_of(target),
        "tf32": part.tf32,
        "ptx": ".".join(map(str, max(ptx))) if ptx else None,
        "image_bytes": len(part.images),
        "scratch_bytes": max((k.scratch_bytes for k in part.kernels.values()), default=0),
        "launches": {
            name: [launch.function for launch in kernel.launches]
            for name, kernel in part.kernels.items()
        },
        "functions": functions,
    }


def toolkit_of(target: Target) -> int:
    """The version of the compiler for the GPU of `target`, 12060 for 12.6."""
    major, minor = nvrtc(target.cuda, target.cuda_path).version
    return major * 1000 + minor * 10


def unaligned(program: Program, steps: Sequence[Step], moves: Sequence[Move] = ()) -> Iterator[str]:
    """The kernels of `steps` that are called with a buffer that does not begin at a multiple of 16
    bytes: it lies within another, or a repetition moves it."""
    for step in steps:
        match step:
            case Call():
                for number in (*step.inputs, *step.outputs):
                    around = set(program.around(number))
                    passed = [move for move in moves if move.buffer in around]
                    places = [program.whole(number)[1], *(m.start for m in passed)]
                    if any(
                        place % _WIDEST_LOAD for place in (*places, *(m.stride for m in passed))
                    ):
                        yield step.kernel
            case Repeat():
                yield from unaligned(program, step.body, step.moves)
            case Select():
                yield from unaligned(program, (*step.then, *step.otherwise), moves)


def _conditional(steps: Sequence[Step]) -> bool:
    """Whether a step chooses by what was computed."""
    return any(
        isinstance(step, Select) or (isinstance(step, Repeat) and _conditional(step.body))
        for step in steps
    )


def _table(kind: str, name: str, rows: Sequence[str]) -> str:
    body = "".join(f"  {{{row}}},\n" for row in rows)
    return f"static const {kind} {name}[] = {{\n{body}}};"
