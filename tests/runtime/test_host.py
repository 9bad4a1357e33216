"""How many threads the runtime starts and which CPU features it finds, on all kinds of machines."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from edgec.emit.toolchain import RUNTIME
from edgec.runtime.load import load

from .samples import MACHINE, C, needs

FEATURES_KEY = "Features" if MACHINE == "aarch64" else "flags"
V1 = "9:memory:/box\n4:cpu,cpuacct:/box/inner\n1:name=systemd:/\n"
V2 = "0::/box/inner\n"
BOX, INNER = "sys/fs/cgroup/box", "sys/fs/cgroup/box/inner"
BOX1, INNER1 = "sys/fs/cgroup/cpu/box", "sys/fs/cgroup/cpu/box/inner"
QUOTA, PERIOD = "cpu.cfs_quota_us", "cpu.cfs_period_us"


def capacities(of_cpus: list[int]) -> dict[str, str]:
    return {
        f"sys/devices/system/cpu/cpu{cpu}/cpu_capacity": f"{capacity}\n"
        for cpu, capacity in enumerate(of_cpus)
    }


MACHINES = {
    "bare": ({}, 16),
    "no limit": ({"proc/self/cgroup": V2, f"{INNER}/cpu.max": "max 100000\n"}, 16),
    "four": ({"proc/self/cgroup": V2, f"{INNER}/cpu.max": "400000 100000\n"}, 4),
    "rounded down": ({"proc/self/cgroup": V2, f"{INNER}/cpu.max": "250000 100000\n"}, 2),
    "a share of one": ({"proc/self/cgroup": V2, f"{INNER}/cpu.max": "20000 100000\n"}, 1),
    "more than there are": ({"proc/self/cgroup": V2, f"{INNER}/cpu.max": "6400000 100000\n"}, 16),
    "parent": (
        {
            "proc/self/cgroup": V2,
            f"{INNER}/cpu.max": "800000 100000\n",
            f"{BOX}/cpu.max": "300000 100000\n",
        },
        3,
    ),
    "in a namespace": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "2 1\n"}, 2),
    "v1": ({"proc/self/cgroup": V1, f"{INNER1}/{QUOTA}": "5\n", f"{INNER1}/{PERIOD}": "1\n"}, 5),
    "v1 parent": (
        {
            "proc/self/cgroup": V1,
            f"{INNER1}/{QUOTA}": "-1\n",
            f"{INNER1}/{PERIOD}": "100000\n",
            f"{BOX1}/{QUOTA}": "300000\n",
            f"{BOX1}/{PERIOD}": "100000\n",
        },
        3,
    ),
    "v1 in a container": (
        {
            "proc/self/cgroup": V1,
            f"sys/fs/cgroup/cpu/{QUOTA}": "200000\n",
            f"sys/fs/cgroup/cpu/{PERIOD}": "100000\n",
        },
        2,
    ),
    "big and little": (capacities([381] * 12 + [1024] * 4), 4),
    "big, middle and little": (capacities([250] * 8 + [780] * 6 + [1024] * 2), 8),
    "all alike": (capacities([1024] * 16), 16),
    "capacities of some only": (capacities([0] * 16), 16),
    "big and little in a group": (
        capacities([381] * 12 + [1024] * 4)
        | {"proc/self/cgroup": V2, f"{INNER}/cpu.max": "200000 100000\n"},
        2,
    ),
    "nonsense": ({"proc/self/cgroup": "::\n0:\n:\n\n", "sys/fs/cgroup/cpu.max": "x"}, 16),
}


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("host") / "host"
    command = [needs("gcc"), "-std=c99", "-fsanitize=address,undefined", "-Wall", f"-I{RUNTIME}"]
    subprocess.run([*command, C / "host.c", "-o", path], check=True)
    return path


def ask(host: Path, root: Path, files: dict[str, str], features: str = "") -> str:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return subprocess.check_output([host, root, features], text=True).strip()


@pytest.mark.parametrize(("files", "threads"), MACHINES.values(), ids=MACHINES)
def test_threads(host: Path, tmp_path: Path, files: dict[str, str], threads: int) -> None:
    assert ask(host, tmp_path, files) == str(threads)


def test_affinity_mask(artifact: Path) -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        with load(artifact) as module:
            assert module.threads == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(
    ("line", "features", "missing"),
    [
        ("fpu avx avx2 fma", "avx2 fma", ""),
        ("fpu avx avx2 fma", "avx2 avx512f fma", "avx512f"),
        ("fpu avx512", "avx", "avx"),
        ("avx", "avx512", "avx512"),
        ("avx", "", ""),
        ("x" * 20_000, "avx", ""),
    ],
)
def test_features(host: Path, tmp_path: Path, line: str, features: str, missing: str) -> None:
    """A line too long to be read whole proves nothing, so nothing is called missing."""
    text = f"processor\t: 0\n{FEATURES_KEY}\t\t: {line}\nbugs\t\t: avx512f\n\n"
    assert ask(host, tmp_path, {"proc/cpuinfo": text}, features) == f"16 {missing}".strip()


def test_unknown_features_are_not_missing(host: Path, tmp_path: Path) -> None:
    assert ask(host, tmp_path, {}, "avx2") == "16"
    assert ask(host, tmp_path, {"proc/cpuinfo": "processor: 0\n"}, "avx2") == "16"
