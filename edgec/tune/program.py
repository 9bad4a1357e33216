"""The static program `edgec-measure`, which runs kernels on a board and needs nothing there."""

from __future__ import annotations

from edgec.cache import Cache, key_of
from edgec.emit.toolchain import RUNTIME, Toolchain
from edgec.targets import Target

TRIAL_SOURCES = ("trial.c", "candidate.c", "buffers.c", "image.c", "pool.c", "host.c")
"""All of it but how requests come and answers go."""


def measuring_program(target: Target, cache: Cache) -> bytes:
    """The executable for boards like `target`; linked once, then found in `cache`.

    Raises:
        LoweringError, TargetError: it cannot be built.
    """
    toolchain = Toolchain(f"{target.arch}-linux-musl", cache.path)
    objects = [toolchain.compile(RUNTIME / name) for name in ("measure.c", *TRIAL_SOURCES)]
    key = key_of(toolchain.triple, objects)
    found = cache.get("measure", key)
    if found is None:
        found = toolchain.executable(objects)
        cache.put("measure", key, found)
    return found
