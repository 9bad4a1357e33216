"""An aarch64 Python with numpy, ncnn and ONNX Runtime that QEMU's user mode runs: Debian's packages
and wheels, unpacked without root rights.

ONNX Runtime reads /proc/cpuinfo and /sys when it is loaded, and crashes over what an x86 says
there. QEMU looks for files below the folder of `-L` first: it finds those of a Raspberry Pi 4.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from edgec.cache import Cache
from edgec.emit.toolchain import Toolchain
from edgec.targets import resolve

REPO = Path(__file__).parents[2]
_SOURCE = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {mirror} bookworm main\n"
_MIRROR = "http://deb.debian.org/debian"
_PACKAGES = ("python3.11", "libstdc++6", "libgomp1")
_WHEELS = ("numpy<2.3", "ncnn", "onnxruntime==1.31.0")
_PLATFORMS = ("manylinux2014", "manylinux_2_17", "manylinux_2_24", "manylinux_2_28")
_PROCESSOR = (
    "processor\t: 0\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd evtstrm crc32 cpuid\n"
    "CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd08\n"
    "CPU revision\t: 3\n\nHardware\t: BCM2835\n"
)
_LISTS = ("core_siblings", "thread_siblings", "core_cpus", "package_cpus", "cluster_cpus")


@dataclass(frozen=True)
class Root:
    """The unpacked system, `pnnx` that makes ncnn's files of ONNX's, QEMU's plugin, and `burst.c`
    for aarch64."""

    folder: Path

    @property
    def plugin(self) -> Path:
        return self.folder / "count.so"

    @property
    def pnnx(self) -> Path:
        return self.folder / "host" / "pnnx" / "pnnx"

    @property
    def burst(self) -> Path:
        return self.folder / "burst.so"

    def python(self, cpu: str) -> list[str]:
        """The command that runs the Python, with the plugin."""
        system, site = self.folder / "system", self.folder / "site"
        words = ["-cpu", cpu, "-L", str(system), "-plugin", f"{self.plugin},late=on"]
        words += ["-E", f"PYTHONPATH={site}", "-E", "PYTHONHASHSEED=0"]
        return ["qemu-aarch64", *words, f"{system}/usr/bin/python3.11"]


def root() -> Root:
    """The root in edgec's cache, made where it is not there: 60 MB are downloaded."""
    made = Root(Cache.default().folder("arm-root"))
    if not (made.folder / "complete").exists():
        _unpack_debian(made.folder)
        _unpack_wheels(made.folder)
        _write_processor(made.folder / "system")
        toolchain = Toolchain.of(resolve("aarch64"), Cache.default().path)
        burst = [toolchain.compile(REPO / "edgec" / "burst.c")]
        exports = ["burst_onnxruntime", "burst_edgec"]
        made.burst.write_bytes(toolchain.shared_library(burst, exports=exports, soname="burst.so"))
        (made.folder / "complete").touch()
    shutil.copy(REPO / "edgec" / "fromc.py", made.folder / "site")
    source = Path(__file__).with_name("count.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", source, "-o", made.plugin], check=True)
    return made


def _unpack_debian(folder: Path) -> None:
    apt, archives = folder / "apt", folder / "apt" / "cache" / "archives"
    for path in (apt / "lists" / "partial", archives / "partial", apt / "etc" / "preferences.d"):
        path.mkdir(parents=True, exist_ok=True)
    (apt / "status").touch()
    mirror = os.environ.get("DEBIAN_MIRROR", _MIRROR)
    (apt / "etc" / "sources.list").write_text(_SOURCE.format(mirror=mirror))
    settings = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "Dir::State": apt,
        "Dir::State::lists": apt / "lists",
        "Dir::State::status": apt / "status",
        "Dir::Cache": apt / "cache",
        "Dir::Etc": apt / "etc",
        "Dir::Etc::sourceparts": "/dev/null",
        "Debug::NoLocking": "1",
    }
    command = ["apt-get", "-q", *(w for k, v in settings.items() for w in ("-o", f"{k}={v}"))]
    subprocess.run([*command, "update"], check=True, stdout=sys.stderr)
    install = ["install", "-y", "--download-only", "--no-install-recommends", *_PACKAGES]
    subprocess.run([*command, *install], check=True, stdout=sys.stderr)
    for package in sorted(archives.glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", package, folder / "system"], check=True)


def _unpack_wheels(folder: Path) -> None:
    download = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:"]
    download += ["--python-version", "3.11", "-d", str(folder / "wheels")]
    foreign = [w for name in _PLATFORMS for w in ("--platform", f"{name}_aarch64")]
    subprocess.run([*download, *foreign, *_WHEELS], check=True)
    subprocess.run([*download, "--platform", "manylinux2014_x86_64", "pnnx"], check=True)
    for wheel in (folder / "wheels").glob("*.whl"):
        place = "host" if "x86_64" in wheel.name else "site"
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder / place)
    (folder / "host" / "pnnx" / "pnnx").chmod(0o755)


def _write_processor(system: Path) -> None:
    cpus = system / "sys" / "devices" / "system" / "cpu"
    topology = cpus / "cpu0" / "topology"
    topology.mkdir(parents=True, exist_ok=True)
    (system / "proc").mkdir(exist_ok=True)
    (system / "proc" / "cpuinfo").write_text(_PROCESSOR)
    for name in ("possible", "present", "online"):
        (cpus / name).write_text("0\n")
    (cpus / "kernel_max").write_text("63\n")
    for name in ("core_id", "physical_package_id", *(f"{name}_list" for name in _LISTS)):
        (topology / name).write_text("0\n")
