"""The C runtime as C programs see it: tests/runtime/c/driver.c, built in several ways."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from edgec.emit.linkable import Linkable
from edgec.emit.toolchain import RUNTIME, RUNTIME_SOURCES, Toolchain

from .samples import MACHINE, C, needs, plain, scale, toolchain_for

DRIVER = ("driver", "driver_threads", "driver_results")
CASES = re.findall(r'\{"(\w+)", \w+\}', (C / "driver.c").read_text())
SANITIZERS = {"thread": "thread", "address": "address,undefined"}
SANITIZED = [case for case in CASES if case not in ("forks", "lazy_threads")]
"""Sanitizers have threads of their own, and locks that do not survive fork()."""
ON_AARCH64 = [case for case in CASES if case not in ("forks", "lazy_threads", "bad_options")]
"""So has QEMU, which also shows the host's /proc/cpuinfo."""


def link_driver(toolchain: Toolchain, folder: Path, static: bool) -> Path:
    """The driver with every model as a static library: two have kernels of the same names."""
    models = [scale(toolchain, "alpha", 2), scale(toolchain, "beta", 3)]
    models += [plain(toolchain, name) for name in ("steps", "faults", "alien", "sift")]
    runtime = toolchain.runtime()
    libraries = [
        toolchain.static_library(
            [toolchain.compile(model.program_c), *model.objects, *runtime], exports=[model.symbol]
        )
        for model in models
    ]
    driver = [
        toolchain.compile(C / f"{name}.c", includes=[RUNTIME, C], defines={"TWO_SCALES": "1"})
        for name in DRIVER
    ]
    path = folder / "driver"
    path.write_bytes(toolchain.executable([*driver, *libraries], static=static))
    path.chmod(0o755)
    return path


def check(command: Sequence[str | Path]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


@pytest.fixture(scope="session")
def driver(toolchain: Toolchain, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return link_driver(toolchain, tmp_path_factory.mktemp("driver"), static=False)


@pytest.mark.parametrize("case", CASES)
def test_case(driver: Path, case: str) -> None:
    check([driver, case])


@pytest.fixture(scope="session")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The driver under gcc's sanitizers, in one program without static libraries."""
    gcc = needs("gcc")
    folder = tmp_path_factory.mktemp("sanitized")
    models = (*DRIVER, "scale", "scale_kernels", "steps", "faults", "alien", "sift")
    sources = [C / f"{name}.c" for name in models]
    sources += [RUNTIME / name for name in RUNTIME_SOURCES]
    defines = ["-DNAME=alpha", "-DFACTOR=2", '-DFEATURES=""', '-DSHA256=""']
    for name, option in SANITIZERS.items():
        options = ["-std=c99", "-O1", "-g", f"-fsanitize={option}", "-fno-sanitize-recover=all"]
        command = [gcc, *options, *defines, f"-I{RUNTIME}", f"-I{C}", *sources]
        check([*command, "-o", folder / name, "-lm", "-lpthread"])
    return {name: folder / name for name in SANITIZERS}


@pytest.mark.parametrize("sanitizer", SANITIZERS)
@pytest.mark.parametrize("case", SANITIZED)
def test_sanitized_case(sanitized: dict[str, Path], sanitizer: str, case: str) -> None:
    check([sanitized[sanitizer], case])


@pytest.fixture(scope="session")
def aarch64_driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    needs("qemu-aarch64")
    toolchain = toolchain_for("aarch64-linux-musl")
    return link_driver(toolchain, tmp_path_factory.mktemp("aarch64"), static=True)


@pytest.mark.parametrize("case", ON_AARCH64)
def test_case_on_aarch64(aarch64_driver: Path, case: str) -> None:
    check([needs("qemu-aarch64"), aarch64_driver, case])


def test_nothing_is_allocated_after_creation(toolchain: Toolchain, tmp_path: Path) -> None:
    model = scale(toolchain, "alpha", 2)
    objects = [toolchain.compile(C / "allocations.c"), toolchain.compile(model.program_c)]
    objects += [*model.objects, *toolchain.runtime()]
    program = tmp_path / "allocations"
    program.write_bytes(toolchain.executable(objects, static=False))
    program.chmod(0o755)
    check([program])


def test_compiles_without_warnings() -> None:
    strict = ["-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror", "-fsyntax-only"]
    defines = ["-DEDGEC_ENTRY=edgec_model_x", '-DEDGEC_GOLDEN_SHA256=""']
    check([needs("gcc"), *strict, *defines, f"-I{RUNTIME}", *sorted(RUNTIME.glob("*.c"))])


def test_header_is_cplusplus() -> None:
    strict = ["-std=c++11", "-Wall", "-Wextra", "-pedantic", "-Werror", "-fsyntax-only"]
    check([needs("g++"), *strict, "-x", "c++", RUNTIME / "edgec.h"])


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_size(machine: str) -> None:
    """Code and data of the runtime, SHA-256 included, stay far below 64 KiB."""
    toolchain = toolchain_for(f"{machine}-linux-gnu.2.17")
    objects = [*toolchain.runtime(), toolchain.compile(RUNTIME / "sha256.c")]
    assert sum(map(loaded_bytes, objects)) < 20 * 1024


def loaded_bytes(elf: bytes) -> int:
    """Bytes of all sections of an ELF64 file that are loaded, unwinding tables excepted."""
    table = int.from_bytes(elf[0x28:0x30], "little")
    count = int.from_bytes(elf[0x3C:0x3E], "little")
    names = int.from_bytes(elf[0x3E:0x40], "little")

    def number(section: int, at: int, size: int) -> int:
        start = table + section * 64 + at
        return int.from_bytes(elf[start : start + size], "little")

    total = 0
    for section in range(count):
        start = number(names, 24, 8) + number(section, 0, 4)
        name = elf[start : elf.index(b"\0", start)]
        if number(section, 8, 8) & 2 and not name.startswith(b".eh_frame"):
            total += number(section, 32, 8)
    return total


def test_library_exports_one_symbol(
    libraries: dict[str, tuple[Linkable, bytes]], tmp_path: Path
) -> None:
    nm = needs("nm")
    for name, (model, library) in libraries.items():
        path = tmp_path / f"{name}.so"
        path.write_bytes(library)
        listed = subprocess.check_output([nm, "-D", "--defined-only", path], text=True)
        assert [line.split()[-1] for line in listed.splitlines()] == [model.symbol]


def test_library_needs_libc_libm_and_pthread_only(
    libraries: dict[str, tuple[Linkable, bytes]], tmp_path: Path
) -> None:
    path = tmp_path / "alpha.so"
    path.write_bytes(libraries["alpha"][1])
    dynamic = subprocess.check_output([needs("readelf"), "-d", path], text=True)
    needed = set(re.findall(r"NEEDED.*\[(.*)\]", dynamic))
    assert {"libc.so.6"} < needed
    assert {name.split(".")[0] for name in needed} <= {
        "libc",
        "libm",
        "libpthread",
        f"ld-linux-{MACHINE.replace('_', '-')}",
    }
