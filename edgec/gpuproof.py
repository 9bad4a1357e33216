"""Proof that a module computes on a GPU what its model does: on a GPU of this machine where one
runs the code, else on the twin of a driver (`edgec.emit.cuda_twin`), in a process of its own."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import onnx

from edgec import targets
from edgec.cache import Cache
from edgec.emit.archive import write_archive
from edgec.emit.artifact import Source, Variant, manifest, members
from edgec.emit.cuda_glue import GpuPart, toolkit_of
from edgec.emit.cuda_twin import link_twin
from edgec.emit.linkable import link_library
from edgec.emit.toolchain import Toolchain
from edgec.gpus import local_gpus
from edgec.peers import EngineProcess
from edgec.proof import Proof
from edgec.targets import Target
from edgec.verify import verify

_LIMIT_S = 1800.0
"""For one run on a twin: a large model takes its time there."""


def prove_on_gpu(
    variant: Variant,
    part: GpuPart,
    model: onnx.ModelProto | str | os.PathLike[str],
    cache: Cache,
    evidence: Path,
) -> tuple[Proof, list[str]]:
    """Compare the outputs of `variant` on a GPU with those of `model`, and say how that was done.

    Raises:
        VerifyError: the outputs differ; their data are in the folder `evidence`.
    """
    program = variant.plan.program
    with started(variant, part, cache) as (means, process):
        report = verify(
            process,
            model,
            specs=program.inputs,
            states=[(state.input, state.output_name) for state in program.states],
            evidence=evidence,
            tf32=part.tf32,
        )
    return means, report.warnings


@contextmanager
def started(variant: Variant, part: GpuPart, cache: Cache) -> Iterator[tuple[Proof, EngineProcess]]:
    """A process that has `variant` loaded on a GPU, real or a twin's, and which of them it is."""
    real = means_on_gpu(variant.target) == "device"
    with tempfile.TemporaryDirectory(prefix="edgec-") as name:
        folder = Path(name)
        artifact = folder / "host.edgec"
        host = targets.host()
        toolchain = Toolchain.of(host, cache.path)
        if not real:
            toolkit = toolkit_of(variant.target)
            twin = link_twin(
                list(part.kernels.values()), variant.target.gpu_arch, toolkit, toolchain
            )
            (folder / "libcuda.so.1").write_bytes(twin)
        _write_for_host(artifact, variant, part, toolchain, host)
        environment = {} if real else {"LD_LIBRARY_PATH": name}
        with EngineProcess("edgec", _LIMIT_S, environment) as process:
            process.load(artifact, threads=1, device=1)
            yield ("device" if real else "host-twin"), process


def means_on_gpu(target: Target) -> Proof:
    """How far code for the GPU of `target` can be proved on this machine."""
    return "device" if any(gpu.runs(target) for gpu in local_gpus()) else "host-twin"


def _write_for_host(
    path: Path, variant: Variant, part: GpuPart, toolchain: Toolchain, host: Target
) -> None:
    """An artifact for this machine, whatever the processor of `variant`, for a GPU only."""
    symbols = {symbol for symbol, _ in variant.kernels.values()}
    no_kernels = "\n".join(f"int {symbol}(void) {{ return 1; }}" for symbol in sorted(symbols))
    objects = (part.object(toolchain), toolchain.compile(no_kernels))
    linkable = replace(variant.linkable, program_c=part.program_c, objects=objects)
    library = link_library(linkable, toolchain)
    here = replace(variant, target=host, linkable=linkable, library=library, gpu=None)
    name = variant.linkable.name
    facts = manifest(name, Source("", 0), [here], {here.id: "none"})
    write_archive(path, facts, members(name, [here]))
