"""Exported libraries, used as their readers will use them."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from edgec.emit.export import export
from edgec.emit.linkable import Linkable
from edgec.emit.toolchain import Toolchain
from edgec.errors import ArtifactError

from .samples import needs

MAIN = r"""
#include <stdio.h>
#include "alpha.h"

int main(void) {
  static float x[1024], y[1024];
  const void *inputs[] = {x};
  void *outputs[] = {y};
  char why[256];
  edgec_instance *alpha;
  edgec_options options = edgec_default_options();
  options.error = why, options.error_size = sizeof why;
  if (edgec_create(edgec_model_alpha(), &options, &alpha)) return puts(why), 1;
  x[5] = 10;
  if (edgec_run(alpha, inputs, outputs, NULL)) return puts(edgec_last_error(alpha)), 1;
  printf("%g\n", y[5]);
  return (int)edgec_destroy(alpha);
}
"""

CMAKE = """
cmake_minimum_required(VERSION 3.13)
project(user C)
find_package(alpha REQUIRED)
add_executable(with_shared main.c)
target_link_libraries(with_shared alpha::alpha)
add_executable(with_static main.c)
target_link_libraries(with_static alpha::static)
"""


@pytest.fixture(scope="session")
def exported(
    alpha: Linkable, toolchain: Toolchain, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    assert all(path.exists() for path in export(alpha, folder, toolchain))
    return folder


def output(*command: object, cwd: Path | None = None, **environment: str) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def test_pkg_config(exported: Path, tmp_path: Path) -> None:
    gcc, pkg_config = needs("gcc"), needs("pkg-config")
    where = {"PKG_CONFIG_PATH": str(exported / "lib/pkgconfig")}
    flags = output(pkg_config, "--cflags", "--libs", "alpha", **where).split()
    (tmp_path / "main.c").write_text(MAIN)
    strict = ["-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror"]
    output(gcc, *strict, "main.c", "-o", "main", *flags, cwd=tmp_path)
    assert output(tmp_path / "main", LD_LIBRARY_PATH=str(exported / "lib")) == "25\n"
    loaded = output(needs("ldd"), exported / "lib/libalpha.so")
    names = set(re.findall(r"(?:^|/)\t?(lib\w+|ld-linux\S*?|linux-vdso)\.", loaded, re.MULTILINE))
    assert names <= {"libc", "libm", "libpthread", "ld-linux-x86-64", "linux-vdso"}


def test_cmake(exported: Path, tmp_path: Path) -> None:
    cmake = needs("cmake")
    (tmp_path / "main.c").write_text(MAIN)
    (tmp_path / "CMakeLists.txt").write_text(CMAKE)
    output(cmake, "-S", tmp_path, "-B", tmp_path / "out", f"-Dalpha_DIR={exported}/lib/cmake/alpha")
    output(cmake, "--build", tmp_path / "out")
    assert output(tmp_path / "out/with_shared") == "25\n"
    assert output(tmp_path / "out/with_static") == "25\n"


def test_cplusplus(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "main.cc").write_text(MAIN)
    command = [needs("g++"), "main.cc", f"-I{exported}/include", exported / "lib/libalpha.a"]
    output(*command, "-lm", "-lpthread", "-o", "main", cwd=tmp_path)
    assert output(tmp_path / "main") == "25\n"


def test_unwritable(alpha: Linkable, toolchain: Toolchain) -> None:
    with pytest.raises(ArtifactError, match="cannot be made"):
        export(alpha, Path("/dev/null/x"), toolchain)
