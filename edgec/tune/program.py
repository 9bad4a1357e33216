"""The static program `edgec-measure`, which runs kernels on a board and needs nothing there."""

from __future__ import annotations

from collections.abc import Callable

from edgec.cache import Cache, key_of
from edgec.emit.toolchain import RUNTIME, Toolchain
from edgec.targets import Target

TRIAL_SOURCES = ("trial.c", "candidate.c", "buffers.c", "image.c", "pool.c", "host.c")
"""All of it but how requests come and answers go."""

LIBRARY = "libedgec-measure.so"
FUNCTIONS = ("edgec_measure", "edgec_measured")
"""What TVM calls the functions of the library."""


def measuring_program(target: Target, cache: Cache) -> bytes:
    """The executable for boards like `target`; linked once, then found in `cache`.

    Raises:
        LoweringError, TargetError: it cannot be built.
    """
    toolchain = Toolchain.of(target, cache.path).for_static_programs()
    objects = [toolchain.compile(RUNTIME / name) for name in ("measure.c", *TRIAL_SOURCES)]
    return _found(cache, key_of(toolchain.triple, objects), lambda: toolchain.executable(objects))


def measuring_library(target: Target, cache: Cache) -> bytes:
    """The same as a shared library for TVM's RPC servers."""
    toolchain = Toolchain.of(target, cache.path)
    objects = [toolchain.compile(RUNTIME / name) for name in ("packed.c", *TRIAL_SOURCES)]
    exports = [f"__tvm_ffi_{name}" for name in FUNCTIONS]
    return _found(
        cache,
        key_of(toolchain.triple, objects),
        lambda: toolchain.shared_library(objects, exports=exports, soname=LIBRARY),
    )


def _found(cache: Cache, key: str, link: Callable[[], bytes]) -> bytes:
    found = cache.get("measure", key)
    if found is None:
        found = link()
        cache.put("measure", key, found)
    return found
