"""What the machine can do at most: measured once, and of a sensible size."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from edgec import peaks as peaks_module
from edgec import targets
from edgec.cache import Cache
from edgec.emit.toolchain import Toolchain
from edgec.errors import DeviceError, TargetError
from edgec.peaks import SOURCE, Peaks, measure


def here() -> targets.Target:
    try:
        return targets.host()
    except TargetError as error:
        pytest.skip(error.what)


def test_measured_once_and_kept(
    session_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "zig").symlink_to(session_cache / "zig")
    monkeypatch.setattr(peaks_module, "MOST_BYTES", 1 << 22)
    found = measure(here(), 2, Cache(tmp_path))
    assert found.threads == 2
    assert found.fma_per_s > 1e6
    footprints = [footprint for footprint, _ in found.bandwidth]
    assert footprints == [1 << power for power in range(15, 23)]
    assert all(rate > 1e6 for _, rate in found.bandwidth)
    assert measure(here(), 2, Cache(tmp_path)) == found
    monkeypatch.setattr(peaks_module, "LIMIT_S", 0.001)
    assert measure(here(), 2, Cache(tmp_path)) == found
    with pytest.raises(DeviceError, match="cannot be measured"):
        measure(here(), 1, Cache(tmp_path))


def test_wider_registers_multiply_faster(session_cache: Path) -> None:
    """By more than noise, the best of three: the code really uses them."""
    able = [t for t in ("x86-64-v2", "x86-64-v3") if targets.runs_here(targets.resolve(t))]
    if len(able) < 2:
        pytest.skip("needs AVX2")
    narrow, wide = (
        max(
            measure(targets.resolve(name), 1, Cache(session_cache, reuse=False)).fma_per_s
            for _ in range(3)
        )
        for name in able
    )
    assert wide > 1.5 * narrow


def test_bandwidth_between_footprints_and_beyond() -> None:
    found = Peaks("P", 1, 1.0, ((100, 64.0), (400, 16.0), (1600, 32.0)))
    assert found.bytes_per_s(1) == found.bytes_per_s(100) == pytest.approx(64.0)
    assert found.bytes_per_s(200) == pytest.approx((64.0 * 32.0) ** 0.5)
    assert found.bytes_per_s(400) == pytest.approx(32.0)  # what is nearer is no slower
    assert found.bytes_per_s(1e9) == pytest.approx(32.0)


def test_one_source_serves_every_target(session_cache: Path, tmp_path: Path) -> None:
    target = targets.resolve("aarch64")
    toolchain = Toolchain("aarch64-linux-musl", session_cache)
    code = toolchain.compile(
        SOURCE,
        includes=(),
        defines={"VECTOR_BYTES": str(target.vector_bits // 8)},
        options=[f"-mcpu={target.mcpu}"],
    )
    program = tmp_path / "peaks"
    program.write_bytes(toolchain.executable([code]))
    program.chmod(0o700)
    emulator = [] if targets.runs_here(target) else [shutil.which("qemu-aarch64")]
    if None in emulator:
        pytest.skip("needs qemu-aarch64")
    command = [*filter(None, emulator), str(program), "2", str(1 << 16)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["fma", "data", "data"]
