"""What machines say of themselves, as Linux prints it on them, and the target that is found."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from command import Edgec

from edgec import probefiles, targets
from edgec.probe import Machine, as_board, fitting, machine, name_of

CPU = probefiles.CPU

V8 = "fp asimd evtstrm crc32 cpuid"
V82 = f"{V8} aes pmull sha1 sha2 atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"
V9 = f"{V82} sve sve2 i8mm bf16"
V7 = "half thumb fastmult vfp edsp neon vfpv3 tls vfpd32"


def arm(
    parts: list[int], features: str, *, implementer: int = 0x41, **more: str
) -> dict[str, bytes]:
    """The answers of an Arm machine with these cores."""
    cpuinfo = "".join(
        f"processor\t: {i}\nBogoMIPS\t: 108.00\nFeatures\t: {features}\n"
        f"CPU implementer\t: {implementer:#x}\nCPU architecture: 8\nCPU variant\t: 0x0\n"
        f"CPU part\t: {part:#x}\nCPU revision\t: 3\n\n"
        for i, part in enumerate(parts)
    )
    texts = {
        "/proc/cpuinfo": cpuinfo,
        "/proc/meminfo": "MemTotal:        3884544 kB\nMemFree: 1 kB\n",
        "!machine": "aarch64\n",
        "!libc": "glibc 2.36\n",
        "!bits": "64\n",
    }
    return {key: text.encode() for key, text in (texts | more).items()}


def cache(cpu: int, index: int, level: int, kind: str, size: str, shared: str) -> dict[str, bytes]:
    facts = {"level": str(level), "type": kind, "size": size, "shared_cpu_list": shared}
    return {f"{CPU}/cpu{cpu}/cache/index{index}/{k}": v.encode() for k, v in facts.items()}


MODEL = "/proc/device-tree/model"
PI4 = arm([0xD08] * 4, V8, **{MODEL: "Raspberry Pi 4 Model B Rev 1.4\0"}) | {
    **cache(0, 0, 1, "Data", "32K", "0"),
    **cache(0, 1, 1, "Instruction", "48K", "0"),
    **cache(0, 2, 2, "Unified", "1024K", "0-3"),
}
ORIN = arm(
    [0xD42] * 6,
    V82,
    **{
        MODEL: "NVIDIA Jetson Orin Nano Developer Kit\0",
        "!libc": "glibc 2.35",
        "/etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081\n",
    },
)
BIG_LITTLE = arm([0xD05] * 4 + [0xD0B] * 2, V82) | {
    **{f"{CPU}/cpu{i}/cpu_capacity": (b"381" if i < 4 else b"1024") for i in range(6)},
    **cache(0, 0, 1, "Data", "32K", "0"),
    **cache(4, 0, 1, "Data", "64K", "4"),
    **cache(4, 2, 2, "Unified", "512K", "4"),
    **cache(4, 3, 3, "Unified", "3M", "0-5"),
}
XAVIER = arm([0x004] * 8, V8 + " atomics fphp asimdhp asimdrdm", implementer=0x4E) | {
    MODEL: b"Jetson-AGX\0",
    "!libc": b"glibc 2.31",
}


@pytest.mark.parametrize(
    ("answers", "target"),
    [
        (PI4, "rpi4"),
        (arm([0xD03] * 4, V8, **{MODEL: "Raspberry Pi Zero 2 W Rev 1.0\0"}), "rpi-zero2"),
        (arm([0xD03] * 4, V8, **{MODEL: "Raspberry Pi 3 Model B Plus Rev 1.3\0"}), "rpi3"),
        (arm([0xD0B] * 4, V82, **{MODEL: "Raspberry Pi 5 Model B Rev 1.0\0"}), "rpi5"),
        (ORIN, "jetson-orin-nano"),
        (ORIN | {"!libc": b"glibc 2.31"}, "aarch64+dotprod+fullfp16"),
        (XAVIER, "jetson-xavier"),
        (arm([0xD42] * 12, V82, **{MODEL: "NVIDIA Jetson AGX Orin\0"}), "jetson-agx-orin"),
        (
            arm([0xD83] * 14, V9, **{"!libc": "glibc 2.39", MODEL: "Jetson AGX Thor\0"}),
            "jetson-thor",
        ),
        (arm([0xD0B] * 4, V82), "rpi5"),
        (BIG_LITTLE, "aarch64+dotprod+fullfp16"),
        (arm([0xD07] * 4, V8, **{"!libc": "musl libc (aarch64)\nVersion 1.2.4"}), "aarch64"),
        (arm([0xC09] * 2, V7, **{"!machine": "armv7l", "!bits": "32"}), "armv7"),
        (arm([0xC07] * 4, f"{V7} vfpv4", **{"!machine": "armv7l", "!bits": "32"}), "armv7+vfp4"),
        (arm([0xD08] * 4, f"{V7} vfpv4", **{"!bits": "32"}), "armv7+vfp4"),
        (arm([0xB76], "swp half thumb vfp", **{"!machine": "armv6l", "!bits": "32"}), None),
    ],
)
def test_the_target_that_fits(answers: dict[str, bytes], target: str | None) -> None:
    found = fitting(machine(answers))
    assert (found.name if found else None) == target


def test_a_raspberry_pi() -> None:
    assert machine(PI4) == Machine(
        model="Raspberry Pi 4 Model B Rev 1.4",
        arch="aarch64",
        system="",
        libc="glibc 2.36",
        cores={"cortex-a72": 4},
        features=("asimd", "cpuid", "crc32", "evtstrm", "fp"),
        l1_bytes=32 << 10,
        l2_bytes=256 << 10,
        l3_bytes=0,
        memory_mib=3793,
        gpu="",
        gpu_arch="",
        driver="",
        jetpack="",
    )


def test_fast_cores_come_first() -> None:
    found = machine(BIG_LITTLE)
    assert list(found.cores.items()) == [("cortex-a76", 2), ("cortex-a55", 4)]
    assert (found.l1_bytes, found.l2_bytes, found.l3_bytes) == (64 << 10, 512 << 10, 3 << 20)


def test_only_features_of_all_cores_count() -> None:
    little, big = arm([0xD05], V8), arm([0xD0B], V82)
    both = {**little, "/proc/cpuinfo": little["/proc/cpuinfo"] + big["/proc/cpuinfo"]}
    assert "asimddp" not in machine(both).features


def test_jetson_and_gpus() -> None:
    assert machine(ORIN).jetpack == "6"
    gpu = {"!gpu": b"NVIDIA H100 80GB HBM3, 9.0, 570.86.15\n"}
    found = machine(ORIN | gpu)
    assert (found.gpu, found.gpu_arch, found.driver) == (
        "NVIDIA H100 80GB HBM3",
        "sm_90",
        "570.86.15",
    )
    assert machine(ORIN | {"!gpu": b"No devices were found\n"}).gpu_arch == ""


@pytest.mark.parametrize("answers", [PI4, ORIN, BIG_LITTLE, XAVIER])
def test_what_is_written_is_a_target(answers: dict[str, bytes], tmp_path: Path) -> None:
    found = machine(answers)
    fits = fitting(found)
    assert fits is not None
    path = tmp_path / "found.toml"
    path.write_text(as_board(name_of(found), found, fits))
    board = targets.resolve(str(path))
    assert dict(board.cores) == found.cores
    assert board.mcpu == next(iter(found.cores))
    assert board.ram_mib == (found.memory_mib,)
    for key in ("l1_bytes", "l2_bytes", "l3_bytes"):
        assert getattr(board, key) == getattr(found, key) or not getattr(found, key)


def test_machines_that_say_nothing() -> None:
    nothing = machine({})
    assert nothing.cores == {}
    assert fitting(nothing) is None
    assert name_of(nothing) == "machine"


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="needs Linux")
def test_this_machine(edgec: Edgec, digits: Path, tmp_path: Path) -> None:
    path = tmp_path / "here.toml"
    found = edgec("targets", "probe", "--json", "-o", path).result
    assert found["arch"] == targets.machine()
    assert sum(found["cores"].values()) >= len(os.sched_getaffinity(0))
    assert targets.runs_here(targets.resolve(str(path)))
    assert set(found["features"]) == targets.host_cpu_flags()
    done = edgec("compile", digits, "--target", path, "-o", tmp_path / "x.edgec", "--json")
    assert done.result["variants"][0]["verified"] == "device"


def test_only_probe_asks_a_machine(edgec: Edgec) -> None:
    assert edgec("targets", "--ssh", "pi@board").code == 2
    assert edgec("targets", "probe", "--ssh", "a", "--rpc", "b").code == 2
    assert edgec("targets", "probe", "--rpc", "nowhere").code == 2
