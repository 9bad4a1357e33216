"""What is linked for other machines: class, machine, libc, and compilers of the user's own."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from command import Edgec
from elffile import EM_AARCH64, EM_ARM, EM_X86_64, HARD_FLOAT, read
from test_targets import emulator

from edgec import targets
from edgec.cache import Cache
from edgec.emit.artifact import linkable
from edgec.emit.export import export
from edgec.emit.toolchain import Toolchain
from edgec.errors import TargetError
from edgec.runtime.load import read_manifest, read_member

REPO = Path(__file__).parents[2]

FLOORS = {
    "armv7": (32, EM_ARM, (2, 17)),
    "rpi4": (64, EM_AARCH64, (2, 17)),
    "jetson-xavier": (64, EM_AARCH64, (2, 31)),
    "jetson-orin-nano": (64, EM_AARCH64, (2, 35)),
    "x86-64-v3": (64, EM_X86_64, (2, 17)),
}


@pytest.mark.parametrize("name", FLOORS)
def test_a_library_is_for_its_machine_and_needs_no_newer_libc(everywhere: Path, name: str) -> None:
    bits, machine, floor = FLOORS[name]
    [variant] = [v for v in read_manifest(everywhere)["variants"] if v["id"] == name]
    library = read(read_member(everywhere, variant["library"]))
    assert (library.bits, library.machine) == (bits, machine)
    assert variant["requires"]["libc"] == f"glibc {floor[0]}.{floor[1]}"
    assert (2, 0) < library.glibc <= floor
    of_libc = {"libc.so.6", "libdl.so.2", "libm.so.6", "libpthread.so.0"}
    assert not [each for each in library.needed if each not in of_libc and each[:3] != "ld-"]
    if floor >= (2, 34):
        assert library.glibc >= (2, 34), "threads moved to libc, under a new version, with 2.34"
    if machine == EM_ARM:
        assert library.flags & HARD_FLOAT


def test_static_programs_need_no_libc(edgec: Edgec, everywhere: Path, tmp_path: Path) -> None:
    for name in ("armv7", "jetson-orin-nano"):
        assert edgec("export", everywhere, tmp_path, "--variant", name, "--runner").code == 0
        program = read((tmp_path / "bin" / "digits_cnn-run").read_bytes())
        assert (program.bits, program.machine) == FLOORS[name][:2]
        assert (program.needed, program.glibc, program.interpreter) == ((), (), "")


@pytest.mark.parametrize("cpu", ["cortex-a8", "cortex-a9", "cortex-a15"])
def test_armv7_classifies_digits(everywhere: Path, tmp_path: Path, cpu: str) -> None:
    """A C program with the static library inside, on processors with and without VFPv4."""
    qemu, (model, target) = emulator("arm"), linkable(everywhere, "armv7")
    toolchain = Toolchain.of(target, Cache.default().path).for_static_programs()
    export(model, tmp_path, toolchain)
    main = toolchain.compile(REPO / "tests" / "classify.c", includes=[tmp_path / "include"])
    library = (tmp_path / "lib" / "libdigits_cnn.a").read_bytes()
    (tmp_path / "classify").write_bytes(toolchain.executable([main, library]))
    (tmp_path / "classify").chmod(0o700)
    images = np.load(REPO / "models" / "digits_test.npz")["image"][:40]
    labels = np.load(REPO / "models" / "digits_labels.npy")[:40]
    done = subprocess.run(
        [qemu, "-cpu", cpu, tmp_path / "classify"], input=images.tobytes(), capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert [int(line) for line in done.stdout.split()] == labels.tolist()


def test_musl_is_a_libc_of_the_user_s_choice(edgec: Edgec, digits: Path, tmp_path: Path) -> None:
    board, path = tmp_path / "router.toml", tmp_path / "x.edgec"
    board.write_text('[router]\nlevel = "aarch64"\nlibc = "musl"\n')
    assert edgec("compile", digits, "--target", board, "-o", path).code == 0
    [variant] = read_manifest(path)["variants"]
    library = read(read_member(path, variant["library"]))
    assert (variant["requires"]["libc"], library.glibc) == ("musl", ())
    assert library.machine == EM_AARCH64


def test_a_cross_compiler_of_the_user_s(edgec: Edgec, digits: Path, tmp_path: Path) -> None:
    gcc = shutil.which("aarch64-linux-gnu-gcc")
    if gcc is None:
        pytest.skip("needs aarch64-linux-gnu-gcc (apt-get install gcc-aarch64-linux-gnu)")
    path = tmp_path / "x.edgec"
    done = edgec("compile", digits, "--target", "rpi4", "--cc", gcc, "-o", path)
    assert done.code == 0, done.err
    [variant] = read_manifest(path)["variants"]
    assert variant["linker"].startswith("aarch64-linux-gnu-gcc")
    assert variant["verified"] == "emulated"
    library = read_member(path, variant["library"])
    assert b"GCC" in library
    assert read(library).machine == EM_AARCH64


def stand_in_for_an_ndk(folder: Path) -> Path:
    """Compilers where an NDK has them, which link for musl: the NDK itself is 600 MB."""
    binaries = folder / "toolchains" / "llvm" / "prebuilt" / "linux-x86_64" / "bin"
    binaries.mkdir(parents=True)
    for triple, zig in (
        ("aarch64-linux-android24", "aarch64-linux-musl"),
        ("aarch64-linux-android35", "aarch64-linux-musl"),
        ("armv7a-linux-androideabi24", "arm-linux-musleabihf"),
    ):
        compiler = binaries / f"{triple}-clang"
        compiler.write_text(
            f'#!/bin/sh\n[ "$1" = --version ] && exec echo clang of an NDK\n'
            f'for word; do [ "$word" != -lpthread ] || exit 9; done\n'
            f"export ZIG_GLOBAL_CACHE_DIR={Cache.default().folder('zig')}\n"
            f'exec {sys.executable} -m ziglang cc -target {zig} "$@"\n'
        )
        compiler.chmod(0o700)
    return folder


def test_android(edgec: Edgec, digits: Path, tmp_path: Path) -> None:
    """The NDK's compiler links; what it links is for Android only, in pages of 16 KiB."""
    ndk, path = stand_in_for_an_ndk(tmp_path / "ndk"), tmp_path / "x.edgec"
    for target, machine in (("rpi4", EM_AARCH64), ("armv7", EM_ARM)):
        done = edgec("compile", digits, "--target", target, "--ndk", ndk, "-o", path)
        assert done.code == 0, done.err
        [variant] = read_manifest(path)["variants"]
        assert variant["requires"]["libc"] == "bionic 24"
        assert variant["linker"].endswith("clang clang of an NDK")
        assert read(read_member(path, variant["library"])).machine == machine
        if shutil.which(targets.resolve(target).qemu):
            assert variant["verified"] == "emulated"
    out = tmp_path / "out"
    assert edgec("export", path, out, "--ndk", ndk).code == 0
    done = edgec("export", path, out)
    assert done.code == 4
    assert "--ndk" in done.err
    done = edgec("doctor", "--target", "rpi4", "--ndk", tmp_path)
    assert done.code == 4
    assert "aarch64-linux-android24-clang" in done.out


def test_android_s_api_levels(tmp_path: Path) -> None:
    ndk = stand_in_for_an_ndk(tmp_path)
    board = tmp_path / "phone.toml"
    board.write_text('[phone]\nlevel = "aarch64"\nlibc = "bionic 35"\n')
    phone = targets.resolve(str(board))
    assert targets.for_android(phone) == phone
    linker = Toolchain.of(phone, tmp_path, ndk=str(ndk))
    assert str(linker.cc).endswith("aarch64-linux-android35-clang")
    board.write_text('[phone]\nlevel = "aarch64"\nlibc = "bionic 36"\n')
    with pytest.raises(TargetError, match="android36-clang") as caught:
        Toolchain.of(targets.resolve(str(board)), tmp_path, ndk=str(ndk))
    assert caught.value.hint == "it has API levels 24 to 35"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('mcpu = "cortex-a79"', "no processor 'cortex-a79'"),
        ('features = ["+dotprodd"]', "no feature 'dotprodd'"),
    ],
)
def test_llvm_would_pass_over_what_it_does_not_know(
    edgec: Edgec, digits: Path, tmp_path: Path, line: str, says: str
) -> None:
    board = tmp_path / "board.toml"
    board.write_text(f'[board]\nlevel = "aarch64"\n{line}\n')
    done = edgec("compile", digits, "--target", board, "-o", tmp_path / "x.edgec")
    assert done.code == 4
    assert says in done.err
    done = edgec("doctor", "--target", board)
    assert done.code == 4
    assert says in done.out


def test_an_artifact_for_many_machines_shares_what_it_can(everywhere: Path) -> None:
    """Weights depend on how images are blocked and on nothing else."""
    with zipfile.ZipFile(everywhere) as archive:
        weights = [name for name in archive.namelist() if name.startswith("weights/")]
    kinds = [v["target"]["channel_block"] for v in read_manifest(everywhere)["variants"]]
    blocks = set(kinds)
    assert len(kinds) > 2 * len(blocks)
    assert len(weights) == len(blocks)
