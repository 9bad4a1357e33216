"""A model compiled for a GPU, and the twin of a driver that runs its kernels without one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgec import targets
from edgec.cache import Cache
from edgec.compiler import compile_model
from edgec.emit.cuda_glue import toolkit_of
from edgec.emit.cuda_kernel import CudaKernel, unpack
from edgec.emit.cuda_twin import link_twin
from edgec.emit.toolchain import Toolchain
from edgec.options import Options
from edgec.peers import EngineProcess

ROOT = Path(__file__).resolve().parents[2]
TARGET = "cuda-sm_80"


@dataclass(frozen=True)
class OnTwin:
    """An artifact for a GPU, its manifest's variant and kernels, and the folder of a twin."""

    artifact: Path
    variant: dict[str, Any]
    kernels: dict[str, CudaKernel]
    folder: Path

    @property
    def log(self) -> Path:
        """Where the twin notes the calls of the driver."""
        return self.folder / "calls.log"

    def calls(self) -> list[tuple[str, int]]:
        """Name and first number of each call since the last look."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return [(line.split()[0], int(line.split()[1])) for line in lines]

    @contextmanager
    def started(self, device: int = 0, **settings: str) -> Iterator[EngineProcess]:
        """A process that has the artifact loaded, with the twin's settings, such as ARCH="87"."""
        self.log.unlink(missing_ok=True)
        environment = {f"EDGEC_TWIN_{name}": value for name, value in settings.items()}
        environment |= {"LD_LIBRARY_PATH": str(self.folder), "EDGEC_TWIN_LOG": str(self.log)}
        with EngineProcess("edgec", 120.0, environment) as process:
            process.load(self.artifact, threads=1, device=device)
            yield process


def built(kernels: Any, overwrites: Any, target: targets.Target) -> dict[str, CudaKernel]:
    from edgec.lower.build import Builders

    with Builders(os.cpu_count() or 1) as builders:
        build = builders.build(kernels, overwrites, target, Cache.default(), gpu=True)
    return {name: unpack(kernel.object) for name, kernel in build.kernels.items()}


@pytest.fixture(scope="session")
def on_twin(tmp_path_factory: pytest.TempPathFactory) -> OnTwin:
    """The trained digits model, for a GPU beside this machine's kind of processor."""
    folder = tmp_path_factory.mktemp("twin")
    artifact = folder / "digits.edgec"
    model = ROOT / "models" / "digits_cnn.onnx"
    result = compile_model(model, artifact, Options(targets=(TARGET,)), reuse=False)
    (lowered, plan) = next(iter(result.lowered.values()))
    target = targets.resolve(TARGET)
    used = {call.kernel for call in plan.program.calls()}
    base = {name: plan.in_place[name].kernel if name in plan.in_place else name for name in used}
    overwrites = {n: (o.source, o.target) for n, o in plan.in_place.items() if n in used}
    kernels = built({n: lowered.kernels[base[n]] for n in sorted(used)}, overwrites, target)
    toolchain = Toolchain.of(targets.host(), Cache.default().path)
    twin = link_twin(list(kernels.values()), target.gpu_arch, toolkit_of(target), toolchain)
    (folder / "libcuda.so.1").write_bytes(twin)
    return OnTwin(artifact, result.manifest["variants"][0], kernels, folder)


@pytest.fixture(scope="session")
def image() -> np.ndarray[Any, Any]:
    """One real image, float32 [1,1,8,8]."""
    with np.load(ROOT / "models" / "digits_test.npz") as data:
        first: np.ndarray[Any, Any] = data["image"][:1]
    return first
