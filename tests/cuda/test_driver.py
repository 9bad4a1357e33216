"""The runtime against a driver that records what it is asked, and runs kernels on the CPU."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from typing import Any

import numpy as np
import pytest

from edgec.peers import EngineError
from edgec.reference import reference

from .conftest import ROOT, OnTwin

MODEL = ROOT / "models" / "digits_cnn.onnx"
TRANSFERS = ("cuMemcpyHtoDAsync_v2", "cuMemcpyDtoHAsync_v2", "cuMemcpyDtoDAsync_v2")


def expected(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return next(iter(reference(MODEL, {"image": image}).values()))


def test_one_transfer_in_and_one_out(on_twin: OnTwin, image: np.ndarray[Any, Any]) -> None:
    with on_twin.started(device=1) as process:
        created = Counter(name for name, _ in on_twin.calls())
        uploads = created["cuMemcpyHtoD_v2"]
        process.run({"image": image})
        first = on_twin.calls()
        [logits] = process.run({"image": image}).values()
        later = [name for name, _ in on_twin.calls()]
    assert uploads == 1
    assert not set(created) & set(TRANSFERS)
    sizes = [(name, size) for name, size in first if name in TRANSFERS]
    assert sizes == [("cuMemcpyHtoDAsync_v2", 256), ("cuMemcpyDtoHAsync_v2", 64)]
    launches = sum(len(kernel.launches) for kernel in on_twin.kernels.values())
    assert Counter(name for name, _ in first)["cuLaunchKernel"] == launches
    assert later == ["cuGraphLaunch", "cuStreamSynchronize"]
    np.testing.assert_allclose(logits, expected(image), rtol=1e-4, atol=1e-4)


def test_memory_shared_with_the_processor_needs_no_transfer(
    on_twin: OnTwin, image: np.ndarray[Any, Any]
) -> None:
    with on_twin.started(device=1, INTEGRATED="1") as process:
        on_twin.calls()
        [logits] = process.run({"image": image}).values()
        called = {name for name, _ in on_twin.calls()}
    assert not called & set(TRANSFERS)
    np.testing.assert_allclose(logits, expected(image), rtol=1e-4, atol=1e-4)


def test_everything_is_given_back(on_twin: OnTwin) -> None:
    artifact = str(on_twin.artifact)
    script = f"from edgec.runtime.load import load; load({artifact!r}, device=1).close()"
    on_twin.log.unlink(missing_ok=True)
    environment = {
        "LD_LIBRARY_PATH": str(on_twin.folder),
        "EDGEC_TWIN_LOG": str(on_twin.log),
        "PYTHONPATH": str(ROOT),
    }
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)
    called = Counter(name for name, _ in on_twin.calls())
    for taken, given in (
        ("cuMemAlloc_v2", "cuMemFree_v2"),
        ("cuMemHostAlloc", "cuMemFreeHost"),
        ("cuModuleLoadData", "cuModuleUnload"),
        ("cuStreamCreate", "cuStreamDestroy_v2"),
        ("cuDevicePrimaryCtxRetain", "cuDevicePrimaryCtxRelease_v2"),
    ):
        assert called[taken] == called[given] > 0, taken


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"ARCH": "75"}, "compiled for GPUs of sm_80 .* --target cuda-sm_75"),
        ({"FAIL": "cuInit:100"}, "driver does not start"),
        ({"FAIL": "cuMemAlloc_v2:2"}, r"cannot hold model 'digits_cnn': CUDA_ERROR_OUT_OF_MEMORY"),
        ({"FAIL": "cuModuleGetFunction:500"}, "CUDA_ERROR_NOT_FOUND"),
        ({"FAIL": "cuDevicePrimaryCtxRetain:2"}, "cannot be used: CUDA_ERROR_OUT_OF_MEMORY"),
    ],
)
def test_a_gpu_that_will_not_do(on_twin: OnTwin, settings: dict[str, str], said: str) -> None:
    with pytest.raises(EngineError, match=said), on_twin.started(device=1, **settings):
        pass


@pytest.mark.parametrize("settings", [{"ARCH": "75"}, {"FAIL": "cuInit:100"}])
def test_the_cpu_takes_over(
    on_twin: OnTwin, image: np.ndarray[Any, Any], settings: dict[str, str]
) -> None:
    with on_twin.started(device=0, **settings) as process:
        on_twin.calls()
        [logits] = process.run({"image": image}).values()
        assert not on_twin.calls()
    np.testing.assert_allclose(logits, expected(image), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "function", ["cuLaunchKernel", "cuGraphLaunch", "cuStreamSynchronize", "cuStreamEndCapture"]
)
def test_a_run_that_fails_says_why(
    on_twin: OnTwin, image: np.ndarray[Any, Any], function: str
) -> None:
    with (
        on_twin.started(device=1, FAIL=f"{function}:719") as process,
        pytest.raises(EngineError, match=r"the GPU failed: .*\(719\)"),
    ):
        process.run({"image": image})


def test_a_newer_gpu_of_the_same_generation_runs_the_code(
    on_twin: OnTwin, image: np.ndarray[Any, Any]
) -> None:
    with on_twin.started(device=1, ARCH="86") as process:
        [logits] = process.run({"image": image}).values()
    np.testing.assert_allclose(logits, expected(image), rtol=1e-4, atol=1e-4)


def test_a_later_generation_takes_the_ptx(on_twin: OnTwin, image: np.ndarray[Any, Any]) -> None:
    with on_twin.started(device=1, ARCH="90") as process:
        [logits] = process.run({"image": image}).values()
    np.testing.assert_allclose(logits, expected(image), rtol=1e-4, atol=1e-4)
