"""Proof that a compiled module computes what its model does, and the data to repeat it on a
board."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import onnx

from edgec.arrays import Array
from edgec.cache import Cache
from edgec.compare import Moved
from edgec.data import Sample, index_limits, open_data
from edgec.emit.artifact import Variant
from edgec.emit.cuda_nvrtc import has_gpu_part
from edgec.emit.glue import Tolerance
from edgec.emit.golden import golden_inputs, pack_golden, tolerances
from edgec.emit.linkable import link_runner
from edgec.emit.toolchain import Toolchain
from edgec.errors import TargetError, VerifyError
from edgec.gpus import local_gpus
from edgec.program import Extent, Tensor
from edgec.runtime.load import load
from edgec.standard import Standard
from edgec.targets import Target, emulator, runs_here
from edgec.verify import verify

GOLDEN_SEED = 1

EMULATION_SECONDS = 900.0
"""A run under an emulator that takes longer is taken for a hang."""

Proof = Literal["none", "host-twin", "emulated", "device"]

LEVELS: tuple[Proof, ...] = ("none", "host-twin", "emulated", "device")
"""How far a proof went, from nothing to a run on the device's own kind of processor."""


@dataclass(frozen=True)
class Golden:
    """One sample and what ONNX Runtime, optimisations off, makes of it; by name of outputs that
    rounding moves far (`edgec.standard`), how far that may be, and the same where a GPU multiplies
    in TF32."""

    inputs: Sequence[Tensor]
    outputs: Sequence[Tensor]
    sample: Sample
    expected: Sample
    moved: Mapping[str, float] = field(default_factory=dict)
    moved_by_tf32: Mapping[str, float] = field(default_factory=dict)

    def tolerances(self, *, tf32: bool = False) -> list[Tolerance]:
        """What each output may differ by."""
        moved = self.moved_by_tf32 if tf32 else self.moved
        return tolerances(self.outputs, self.expected, moved)

    def pack(self, extents: Sequence[Extent]) -> bytes:
        """As a member of the artifact; `extents` are those that a run decides."""
        return pack_golden(self.inputs, self.outputs, self.sample, self.expected, extents)


def start_golden(
    model: onnx.ModelProto | str | os.PathLike[str],
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    states: Sequence[tuple[str, str]],
    *,
    tf32: bool = False,
) -> Future[Golden]:
    """Begin to compute golden data, beside whatever the caller does next.

    `inputs` and `outputs` are the whole signature; `states`, (output, input) names, are zero and
    left out of the golden data. With `tf32` they say what TF32 may do, too.
    """
    pool = ThreadPoolExecutor(1)
    future = pool.submit(_golden, model, inputs, outputs, states, tf32)
    pool.shutdown(wait=False)
    return future


def _golden(
    model: onnx.ModelProto | str | os.PathLike[str],
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    states: Sequence[tuple[str, str]],
    tf32: bool,
) -> Golden:
    with Standard(model) as oracle:
        limits = index_limits(oracle.model)
        drawn = next(iter(open_data(inputs, ["random"], seed=GOLDEN_SEED, limits=limits)))
        sample = golden_inputs(drawn, inputs)
        remembered = {name for _, name in states}
        for name in remembered:
            sample[name] = np.zeros_like(sample[name])
        expected, _ = oracle.run(sample)
        moved = _moved(oracle, sample, expected)
    moved_by_tf32 = moved
    if tf32:
        with Standard(model, tf32=True) as oracle:
            moved_by_tf32 = _moved(oracle, sample, expected)
    produced = {name for name, _ in states}
    return Golden(
        [tensor for tensor in inputs if tensor.name not in remembered],
        [tensor for tensor in outputs if tensor.name not in produced],
        sample,
        expected,
        moved,
        moved_by_tf32,
    )


def _moved(oracle: Standard, sample: Sample, expected: Sample) -> dict[str, float]:
    return {
        name: max((_distance(expected[name], each) for each in results), default=0.0)
        for name, results in oracle.moved(sample).items()
    }


def _distance(expected: Array, moved: Moved) -> float:
    differences = np.abs(expected.astype(np.float64) - moved.result)
    return moved.ratio * float(np.max(differences, initial=0.0, where=np.isfinite(differences)))


def means_of_proof(target: Target) -> Proof:
    """How far a module for `target` can be proved on this machine, its part for a GPU included."""
    means = means_on_processor(target)
    if has_gpu_part(target) and not any(gpu.runs(target) for gpu in local_gpus()):
        return weaker(means, "host-twin")
    return means


def weaker(one: Proof, other: Proof) -> Proof:
    """That of two proofs which says less."""
    return min(one, other, key=LEVELS.index)


def means_on_processor(target: Target) -> Proof:
    """How far what runs on the processor of `target` can be proved on this machine."""
    if runs_here(target):
        return "device"
    return "emulated" if emulator(target) else "host-twin"


def twin_of(identifier: str) -> str:
    """The id of the host's twin of a variant."""
    return f"{identifier}.twin"


def prove(
    draft: Path,
    variant: Variant,
    model: onnx.ModelProto | str | os.PathLike[str],
    cache: Cache,
    evidence: Path,
) -> tuple[Proof, list[str]]:
    """Run `variant` of the artifact `draft`, or what stands for it, and compare with `model`.

    Returns how far the proof went, and warnings. A module that runs here is compared with ONNX
    Runtime on random data and zeros; a foreign one reproduces its golden data under QEMU; failing
    that, its twin for this host is compared. A mismatch leaves its data in the folder `evidence`.

    Raises:
        VerifyError: the outputs differ.
    """
    means = means_on_processor(variant.target)
    if means == "emulated":
        _emulate(draft, variant, cache)
        return means, []
    identifier = variant.id if means == "device" else twin_of(variant.id)
    program = variant.plan.program
    with load(draft, variant=identifier) as module:
        report = verify(
            module,
            model,
            specs=program.inputs,
            states=[(state.input, state.output_name) for state in program.states],
            evidence=evidence,
        )
    return means, report.warnings


def _emulate(draft: Path, variant: Variant, cache: Cache) -> None:
    """Run the golden data in a static program under QEMU."""
    toolchain = Toolchain.of(variant.target, cache.path)
    qemu = emulator(variant.target)
    with tempfile.TemporaryDirectory(prefix="edgec-") as folder:
        runner = Path(folder) / "edgec-run"
        runner.write_bytes(link_runner(variant.linkable, toolchain))
        runner.chmod(0o700)
        done = subprocess.run(
            [str(qemu), "-cpu", variant.target.qemu_cpu, str(runner), str(draft), "--selftest"],
            capture_output=True,
            text=True,
            timeout=EMULATION_SECONDS,
        )
    if "unable to find CPU model" in done.stderr:
        raise TargetError(
            f"{Path(str(qemu)).name} emulates no '{variant.target.qemu_cpu}'",
            where=f"target '{variant.target.name}'",
            hint=f"`{variant.target.qemu} -cpu help` lists those of `qemu_cpu`",
        )
    if done.returncode:
        raise VerifyError(
            f"the golden data are not reproduced: {(done.stderr or done.stdout).strip()}",
            where=f"variant '{variant.id}' under {Path(str(qemu)).name}",
        )
