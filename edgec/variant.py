"""Building one variant: plan, build kernels, link, for one target and one set of shapes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edgec.cache import Cache
from edgec.emit.artifact import Variant
from edgec.emit.cuda_glue import GpuPart, gpu_part, unaligned
from edgec.emit.cuda_kernel import unpack
from edgec.emit.cuda_nvrtc import has_gpu_part, has_tf32
from edgec.emit.glue import pack_weights, program_c
from edgec.emit.linkable import Linkable, link_library
from edgec.emit.toolchain import Toolchain
from edgec.options import Options
from edgec.plan import Plan
from edgec.proof import Golden
from edgec.targets import Target
from edgec.tune.lookup import Choice, Chooser
from edgec.tune.record import features_key

if TYPE_CHECKING:
    from tvm.tirx import PrimFunc

    from edgec.lower.build import Builders
    from edgec.lower.extract import Lowered

OnEvent = Callable[[dict[str, Any]], None]
"""Receives what happens, as it happens: {"event": "stage" | "progress" | "note", ...}."""


@dataclass(frozen=True)
class Workshop:
    """What all variants of one compilation are built with; without a chooser, by the rules' own
    schedules."""

    builders: Builders
    cache: Cache
    options: Options
    stage: Callable[[str], AbstractContextManager[None]]
    on_event: OnEvent
    chooser: Chooser | None

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
        from edgec.lower.build import kernel_key, symbol_of

        program = plan.program
        used = list(dict.fromkeys(call.kernel for call in program.calls()))
        base = {name: overwrite.kernel for name, overwrite in plan.in_place.items()}
        overwrites = {name: (o.source, o.target) for name, o in plan.in_place.items()}
        functions = {name: lowered.kernels[base.get(name, name)] for name in used}
        keys = {name: kernel_key(function) for name, function in functions.items()}
        choices = self._choices(list(keys.values()), target)
        tuned = {name: choices[key] for name, key in keys.items() if key in choices}
        decisions = {name: choice.record.decisions for name, choice in tuned.items()}
        with self.stage("kernels"):
            build = self.builders.build(
                functions, overwrites, target, self.cache, self._progress, decisions
            )
        for name, why in build.refused.items():
            del tuned[name]
            text = f"the record of kernel {name} does not compile: {why.splitlines()[0]:.200}"
            self.on_event({"event": "warning", "text": text})
        with self.stage("golden"):
            proof = golden()
        kernels = [build.kernels[name] for name in used]
        weights = pack_weights(program.weights)
        symbols = {
            name: symbol_of(function, overwrites.get(name)) for name, function in functions.items()
        }
        packed = proof.pack(program.extents)
        scratch = max((kernel.scratch_bytes for kernel in kernels), default=0)
        toolchain = Toolchain.of(target, self.cache.path, self.options.cc, self.options.ndk)
        gpu = self._for_gpu(functions, overwrites, target, plan)

        def described(cpu_flags: Sequence[str]) -> str:
            return program_c(
                plan,
                symbols,
                scratch,
                weights,
                hashlib.sha256(weights.data).hexdigest() if weights.data else "",
                cpu_flags,
                proof.tolerances(),
                gpu.cuda_c if gpu else "",
                proof.tolerances(tf32=True) if gpu and gpu.tf32 else (),
            )

        objects = {symbols[name]: build.kernels[name].object for name in used}.values()
        linkable = Linkable(
            name=program.name,
            objects=(*objects, *([gpu.object(toolchain)] if gpu else [])),
            program_c=described(target.cpu_flags),
            weights=weights.data,
            golden_sha256=hashlib.sha256(packed).hexdigest(),
        )
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
            tuned=tuned,
            gpu=replace(gpu, program_c=described(())) if gpu else None,
        )

    def _for_gpu(
        self,
        functions: dict[str, PrimFunc],
        overwrites: Mapping[str, tuple[int, int]],
        target: Target,
        plan: Plan,
    ) -> GpuPart | None:
        """The same kernels for the target's GPU, where it has one that edgec compiles for."""
        if not has_gpu_part(target):
            return None
        scalar = set(unaligned(plan.program, plan.program.steps))
        tf32 = self.options.tf32 and has_tf32(target)
        decisions = {
            name: ({"loads": "scalar"} if name in scalar else {})
            | ({"floats": "tf32"} if tf32 else {})
            for name in functions
        }
        with self.stage("gpu kernels"):
            build = self.builders.build(
                functions, overwrites, target, self.cache, self._progress, decisions, gpu=True
            )
        kernels = {name: unpack(kernel.object) for name, kernel in build.kernels.items()}
        return replace(gpu_part(plan, kernels, target), tf32=tf32)

    def _choices(self, kernels: list[str], target: Target) -> dict[str, Choice]:
        """What records say of kernels, by their keys."""
        from edgec.targets.cpu.knobs import SPACE_VERSION

        if self.chooser is None:
            return {}
        return self.chooser.choose(kernels, SPACE_VERSION, features_key(target))

    def _progress(self, done: int, total: int, item: str) -> None:
        self.on_event(
            {"event": "progress", "stage": "kernels", "done": done, "total": total, "item": item}
        )
