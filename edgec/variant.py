"""Building one variant: plan, build kernels, link, for one target and one set of shapes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgec.cache import Cache
from edgec.emit.artifact import Variant
from edgec.emit.glue import pack_weights, program_c
from edgec.emit.linkable import Linkable, link_library
from edgec.emit.toolchain import Toolchain
from edgec.plan import Plan
from edgec.proof import Golden
from edgec.targets import Target

if TYPE_CHECKING:
    from edgec.lower.build import Builders
    from edgec.lower.extract import Lowered

OnEvent = Callable[[dict[str, Any]], None]
"""Receives what happens, as it happens: {"event": "stage" | "progress" | "note", ...}."""


@dataclass(frozen=True)
class Workshop:
    """What all variants of one compilation are built with."""

    builders: Builders
    cache: Cache
    cc: str | None
    stage: Callable[[str], AbstractContextManager[None]]
    on_event: OnEvent

    def build(
        self,
        lowered: Lowered,
        plan: Plan,
        target: Target,
        dims: Mapping[str, int],
        golden: Callable[[], Golden],
    ) -> Variant:
        """Compile the kernels for `target` and link the library; `golden` waits for golden data.

        Raises:
            LoweringError: a kernel does not compile, or the library does not link.
            TargetError: the toolchain is missing.
        """
        from edgec.lower.build import symbol_of

        program = plan.program
        used = list(dict.fromkeys(call.kernel for call in program.calls()))
        base = {name: overwrite.kernel for name, overwrite in plan.in_place.items()}
        overwrites = {name: (o.source, o.target) for name, o in plan.in_place.items()}
        functions = {name: lowered.kernels[base.get(name, name)] for name in used}
        with self.stage("kernels"):
            build = self.builders.build(functions, overwrites, target, self.cache, self._progress)
        with self.stage("golden"):
            proof = golden()
        kernels = [build.kernels[name] for name in used]
        weights = pack_weights(program.weights)
        symbols = {
            name: symbol_of(function, overwrites.get(name)) for name, function in functions.items()
        }
        packed = proof.pack(program.extents)
        scratch = max((kernel.scratch_bytes for kernel in kernels), default=0)
        linkable = Linkable(
            name=program.name,
            objects=tuple({symbols[name]: build.kernels[name].object for name in used}.values()),
            program_c=program_c(
                plan,
                symbols,
                scratch,
                weights,
                hashlib.sha256(weights.data).hexdigest() if weights.data else "",
                target.cpu_flags,
                proof.tolerances(),
            ),
            weights=weights.data,
            golden_sha256=hashlib.sha256(packed).hexdigest(),
        )
        toolchain = Toolchain(target.link_triple, self.cache.path, self.cc)
        with self.stage("link"):
            library = link_library(linkable, toolchain)
        return Variant(
            id="-".join([target.name, *(f"{name}{size}" for name, size in dims.items())]),
            target=target,
            dims=dims,
            plan=plan,
            linkable=linkable,
            library=library,
            kernels={name: (symbols[name], len(build.kernels[name].object)) for name in used},
            kernels_from_cache=build.cached,
            scratch_bytes=scratch,
            golden=packed,
            linker=toolchain.version(),
        )

    def _progress(self, done: int, total: int, item: str) -> None:
        self.on_event(
            {"event": "progress", "stage": "kernels", "done": done, "total": total, "item": item}
        )
