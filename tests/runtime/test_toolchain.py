"""Compiling and linking: the same bytes everywhere, and errors that say what to do."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import stat
import subprocess
from pathlib import Path

import pytest

from edgec.emit.elf import keep_global
from edgec.emit.linkable import Linkable, link_library
from edgec.emit.toolchain import Toolchain, c_name
from edgec.errors import LoweringError, TargetError

from .samples import needs, toolchain_for

GOOD = "int answer(void) { return 42; }\n"


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_same_input_same_bytes(
    machine: str, alpha: Linkable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toolchain = toolchain_for(f"{machine}-linux-gnu.2.17")
    model = dataclasses.replace(alpha, objects=(toolchain.compile("int k0() {} int k1() {}"),))
    first = link_library(model, toolchain)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("CPATH", "/nowhere")
    monkeypatch.setenv("CFLAGS", "-O0")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    monkeypatch.setenv("PATH", "/nowhere")
    assert link_library(model, toolchain) == first
    assert list(tmp_path.iterdir()) == []


def test_a_compiler_of_the_user_s(toolchain: Toolchain, alpha: Linkable) -> None:
    own = dataclasses.replace(toolchain, cc=needs("gcc"))
    assert own.version().startswith("gcc ")
    assert toolchain.version().startswith("zig 0.")
    assert b"GCC" in link_library(alpha, own)


def test_missing_compilers(
    toolchain: Toolchain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = dataclasses.replace(toolchain, cc=str(tmp_path / "cc"))
    with pytest.raises(TargetError, match="is not an executable file") as caught:
        absent.compile(GOOD)
    assert "--cc" in caught.value.hint
    with pytest.raises(TargetError):
        absent.version()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TargetError, match="ziglang is not installed") as caught:
        toolchain.compile(GOOD)
    assert "pip install" in caught.value.hint


def test_errors_show_what_the_compiler_said(toolchain: Toolchain) -> None:
    with pytest.raises(LoweringError, match="use of undeclared identifier 'x'") as caught:
        toolchain.compile("int answer(void) { return x; }")
    assert caught.value.exit_code == 6
    undefined = toolchain.compile(
        "int absent(void);\n"
        '__attribute__((visibility("default"))) int answer(void) { return absent(); }'
    )
    with pytest.raises(LoweringError, match="undefined symbol: absent"):
        toolchain.shared_library([undefined], exports=["answer"], soname="libanswer.so")


def test_time_limit(toolchain: Toolchain, tmp_path: Path) -> None:
    slow = tmp_path / "cc"
    slow.write_text("#!/bin/sh\nexec sleep 5\n")
    slow.chmod(slow.stat().st_mode | stat.S_IXUSR)
    with pytest.raises(LoweringError, match=r"did not finish within 0\.1 s"):
        dataclasses.replace(toolchain, cc=str(slow), timeout=0.1).compile(GOOD)


def test_unwritable_temporary_folder(toolchain: Toolchain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/dev/null")
    with pytest.raises(LoweringError, match="could not be run"):
        toolchain.compile(GOOD)


def test_static_library_defines_one_symbol(toolchain: Toolchain, tmp_path: Path) -> None:
    objects = [
        toolchain.compile("extern int one(void); int two(void) { return one() + one(); }"),
        toolchain.compile("#include <math.h>\nint one(void) { return (int)cosf(0); }"),
        toolchain.compile("int unused = 3; __attribute__((weak)) int *pointer = &unused;"),
    ]
    (tmp_path / "libtwo.a").write_bytes(toolchain.static_library(objects, exports=["two"]))
    (tmp_path / "main.c").write_text(
        "extern int two(void); int one(void) { return 9; } int unused = 4, *pointer = 0;\n"
        "int main(void) { return two() == 2 && !pointer ? 0 : 1; }\n"
    )
    command = [needs("gcc"), "main.c", "-L.", "-ltwo", "-lm", "-o", "main"]
    subprocess.run(command, cwd=tmp_path, check=True)
    subprocess.run([tmp_path / "main"], check=True)


def test_only_relocatable_files_have_symbols_to_hide() -> None:
    with pytest.raises(LoweringError, match="not a relocatable"):
        keep_global(b"not ELF at all", frozenset())
    with pytest.raises(LoweringError, match="not a relocatable"):
        keep_global(Path(os.path.realpath("/proc/self/exe")).read_bytes(), frozenset())


@pytest.mark.parametrize(
    ("name", "expected"),
    [("digits", "digits"), ("a-b.c/d", "a_b_c_d"), ("3x", "_3x"), ("", "_"), ("é", "_")],
)
def test_c_name(name: str, expected: str) -> None:
    assert c_name(name) == expected
