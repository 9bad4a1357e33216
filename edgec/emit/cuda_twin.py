"""A driver without a GPU, for one model: its CUDA C, compiled for this host, behind the functions
of libcuda.

A library that was compiled for a board's GPU opens it as it would open the real driver. What runs
is the program as it is, on threads that take turns, so whole models are proved on a machine that
has no GPU; what is not proved is what NVRTC made of the same text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from edgec.emit.cuda_kernel import CudaKernel
from edgec.emit.cuda_prelude import PRELUDE
from edgec.emit.toolchain import Toolchain

_HERE = Path(__file__).parent
_AS_CPP = (
    *("-x", "c++", "-std=c++17", "-fno-exceptions", "-fno-rtti"),
    *("-ffp-contract=off", "-fno-strict-aliasing"),
)
_DRIVER = "cuda_twin.c"
_TOGETHER = re.compile(r"\b(?:__sync|__shfl|edgec_multiply)")


def link_twin(
    kernels: Sequence[CudaKernel],
    arch: str,
    toolkit: int,
    toolchain: Toolchain,
    *,
    soname: str = "libcuda.so.1",
) -> bytes:
    """A driver for the host of `toolchain` that can run `kernels`, made for `arch` by a toolkit of
    version `toolkit`, 12060 for 12.6.

    By the driver's own `soname` whatever opens the driver in the same process gets it, NVRTC too.
    """
    sources = list(dict.fromkeys(kernel.source for kernel in kernels if kernel.launches))

    def compiled(source: str) -> bytes:
        return toolchain.compile(
            PRELUDE + source,
            includes=(_HERE,),
            defines={"EDGEC_TWIN": "1"},
            options=_AS_CPP,
        )

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compiled, sources))
    table = _table(kernels, arch, toolkit)
    objects.append(toolchain.compile(table, includes=(_HERE,)))
    objects.append(toolchain.compile(_HERE / _DRIVER, includes=(_HERE,), options=("-std=c11",)))
    return toolchain.shared_library(objects, exports=["cu*"], soname=soname)


def _table(kernels: Sequence[CudaKernel], arch: str, toolkit: int) -> str:
    known = {
        launch.function: (len(launch.arguments), _waits(kernel.source, launch.function))
        for kernel in kernels
        for launch in kernel.launches
    }
    return "\n".join(_lines(known, arch, toolkit))


def _waits(source: str, function: str) -> bool:
    """Whether the threads of `function` wait for one another."""
    texts = source.split('extern "C" __global__')[1:]
    return any(_TOGETHER.search(text) for text in texts if f" {function}(" in text)


def _lines(known: dict[str, tuple[int, bool]], arch: str, toolkit: int) -> Iterator[str]:
    yield '#include "cuda_twin_kernels.h"'
    for name, (count, _) in known.items():
        parameters = ", ".join(["void *"] * count) or "void"
        arguments = ", ".join(f"p[{i}]" for i in range(count))
        yield f"extern void {name}({parameters});"
        yield f"static void call_{name}(void *const *p) {{ (void)p; {name}({arguments}); }}"
    yield "const edgec_twin_kernel edgec_twin_kernels[] = {"
    for name, (count, together) in known.items():
        yield f'  {{"{name}", call_{name}, {count}, {int(together)}}},'
    yield "  {0, 0, 0, 0},\n};"
    yield f"const int edgec_twin_capability = {arch.removeprefix('sm_')};"
    yield f"const int edgec_twin_toolkit = {toolkit};"
