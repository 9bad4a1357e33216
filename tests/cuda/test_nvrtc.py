"""Machine code by NVRTC, and what our reader finds in it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from command import Edgec

from edgec import targets
from edgec.emit import cuda_nvrtc
from edgec.emit.cuda_cubin import architecture, read_cubin
from edgec.emit.cuda_nvrtc import (
    compile_cuda,
    has_gpu_part,
    nvrtc,
    ptx_of_driver,
    ptx_version,
)
from edgec.errors import EdgecError, LoweringError, TargetError

from .conftest import ROOT

REVERSE = """
extern "C" __global__ void reverse(float *x) {
  __shared__ float row[256];
  row[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  x[threadIdx.x] = row[255 - threadIdx.x];
}
"""
SUMS = """
extern "C" __global__ void sums(float *x) {
  float s[32];
  for (int i = 0; i < 32; i++) s[i] = x[i];
  for (int n = 0; n < 9; n++)
    for (int i = 0; i < 32; i++) s[i] = s[i] * x[i + 32 * n] + s[(i + 7) % 32];
  for (int i = 0; i < 32; i++) x[i] = s[i];
}
"""


def installed(cuda: str) -> bool:
    try:
        nvrtc(cuda)
    except TargetError:
        return False
    return True


@pytest.mark.parametrize(
    ("cuda", "arch"),
    [
        ("11.4", "sm_72"),
        ("11.8", "sm_87"),
        ("12.4", "sm_86"),
        ("12.6", "sm_87"),
        ("13.0", "sm_110"),
    ],
)
def test_ptx_is_never_newer_than_the_driver(cuda: str, arch: str) -> None:
    if not installed(cuda):
        pytest.skip(f"NVRTC for CUDA {cuda} is not installed")
    code = compile_cuda(REVERSE, arch, cuda)
    assert architecture(code.cubin) == int(arch[3:])
    if code.ptx:
        assert ptx_version(code.ptx) <= ptx_of_driver(cuda)
    assert bool(code.ptx) == (cuda in ("11.8", "12.6"))


def test_the_compiler_for_orin_is_that_of_its_driver() -> None:
    assert nvrtc(targets.resolve("jetson").cuda).version == (12, 6)


def test_a_missing_compiler_is_named_with_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cuda_nvrtc, "_candidates", lambda wheel: iter(()))
    with pytest.raises(TargetError) as caught:
        nvrtc.__wrapped__("12.6")
    assert "pip install 'nvidia-cuda-nvrtc-cu12==12.6.85'" in caught.value.hint


def toolkit(folder: Path, cuda: str, places: str = "targets/x86_64-linux/lib") -> str:
    """A folder as a toolkit of CUDA `cuda` has it, around the wheel's library."""
    library = Path(nvrtc(cuda).path)
    where = folder / places
    where.mkdir(parents=True)
    for each in (library, *library.parent.glob("libnvrtc-builtins*")):
        (where / each.name).symlink_to(each)
    return str(folder)


@pytest.mark.parametrize("places", ["lib64", "targets/x86_64-linux/lib", "lib/x86_64-linux-gnu"])
def test_a_toolkit_of_the_users_is_taken(places: str, tmp_path: Path) -> None:
    library = nvrtc("12.6", toolkit(tmp_path, "12.6", places))
    assert library.version == (12, 6)
    assert library.path.startswith(str(tmp_path))
    code = compile_cuda(REVERSE, "sm_87", "12.6", path=str(tmp_path))
    assert architecture(code.cubin) == 87


def test_a_toolkit_that_will_not_do_is_refused(edgec: Edgec, tmp_path: Path) -> None:
    digits = ROOT / "models" / "digits_cnn.onnx"
    command = ("compile", digits, "--target", "jetson", "-o", tmp_path / "x.edgec", "--cuda-path")
    done = edgec(*command, tmp_path)
    assert done.code == 4
    assert "has no libnvrtc.so" in done.err
    assert "/usr/local/cuda" in done.err
    if installed("11.4"):
        done = edgec(*command, toolkit(tmp_path / "cuda", "11.4"))
        assert done.code == 4
        assert "its NVRTC is 11.8: the target's driver loads code of CUDA 12 only" in done.err
    done = edgec("doctor", "--target", "jetson", "--cuda-path", tmp_path / "none")
    assert "has no libnvrtc.so" in done.out


def test_where_a_toolkit_lies_is_no_fact_of_the_artifact(tmp_path: Path) -> None:
    facts = replace(targets.resolve("jetson"), cuda_path=str(tmp_path)).facts()
    assert "cuda_path" not in facts
    assert targets.from_facts(facts) == targets.resolve("jetson")


def test_boards_without_a_compiler_have_no_part_for_their_gpu() -> None:
    with pytest.raises(TargetError, match=r"no compiler of CUDA 10\.2"):
        nvrtc("10.2")
    assert not has_gpu_part(targets.resolve("rpi5"))
    assert has_gpu_part(targets.resolve("jetson"))


@pytest.mark.parametrize(
    ("source", "arch", "kind", "said"),
    [
        ("__device__ int x = ;", "sm_87", LoweringError, "expected an expression"),
        (REVERSE, "sm_20", TargetError, "does not know sm_20"),
    ],
)
def test_what_does_not_compile(source: str, arch: str, kind: type[EdgecError], said: str) -> None:
    with pytest.raises(kind, match=said):
        compile_cuda(source, arch, "12.6")


def test_shared_memory_registers_and_spills_are_read() -> None:
    [reverse] = read_cubin(compile_cuda(REVERSE, "sm_87", "12.6").cubin)
    assert (reverse.name, reverse.shared_bytes, reverse.frame_bytes) == ("reverse", 1024, 0)
    assert 0 < reverse.registers <= 32
    [whole] = read_cubin(compile_cuda(SUMS, "sm_87", "12.6").cubin)
    [spilled] = read_cubin(compile_cuda(SUMS, "sm_87", "12.6", ["--maxrregcount=24"]).cubin)
    assert whole.registers > 32
    assert whole.frame_bytes == 0
    assert spilled.registers <= 24
    assert spilled.frame_bytes > 0


def test_code_of_a_processor_is_no_cubin() -> None:
    with pytest.raises(LoweringError, match="GPU"):
        read_cubin(b"\x7fELF\x02\x01" + bytes(58))
