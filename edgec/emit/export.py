"""A compiled model as a library for C and C++ programs."""

from __future__ import annotations

from pathlib import Path

from edgec.emit.archive import write_file
from edgec.emit.artifact import header
from edgec.emit.linkable import Linkable, link_standalone
from edgec.emit.toolchain import RUNTIME, Toolchain
from edgec.errors import ArtifactError

_PKG_CONFIG = """\
prefix=${{pcfiledir}}/../..
libdir=${{prefix}}/lib
includedir=${{prefix}}/include

Name: {name}
Description: A model compiled by edgec
Version: {version}
Cflags: -I${{includedir}}
Libs: -L${{libdir}} -l{name}
Libs.private: -lm -lpthread
"""

_CMAKE = """\
include(CMakeFindDependencyMacro)
find_dependency(Threads)
get_filename_component(_prefix "${{CMAKE_CURRENT_LIST_DIR}}/../../.." ABSOLUTE)
if(NOT TARGET {name}::{name})
  add_library({name}::{name} SHARED IMPORTED)
  set_target_properties({name}::{name} PROPERTIES
    IMPORTED_LOCATION "${{_prefix}}/lib/lib{name}.so"
    IMPORTED_SONAME "lib{name}.so"
    INTERFACE_INCLUDE_DIRECTORIES "${{_prefix}}/include")
  add_library({name}::static STATIC IMPORTED)
  set_target_properties({name}::static PROPERTIES
    IMPORTED_LOCATION "${{_prefix}}/lib/lib{name}.a"
    INTERFACE_INCLUDE_DIRECTORIES "${{_prefix}}/include"
    INTERFACE_LINK_LIBRARIES "m;Threads::Threads")
endif()
unset(_prefix)
"""


def export(
    model: Linkable, directory: Path, toolchain: Toolchain, *, version: str = "1"
) -> list[Path]:
    """Write libraries, headers, pkg-config and CMake files below `directory`; list what is written.

    The libraries carry the weights and need libc, libm and libpthread only. A program uses them by
    `pkg-config NAME`, by `find_package(NAME)` and the targets NAME::NAME and NAME::static, or by
    `-Iinclude -Llib -lNAME`.

    Raises:
        ArtifactError: a file cannot be written.
        TargetError, LoweringError: the libraries cannot be linked.
    """
    name = model.c_name
    shared, static = link_standalone(model, toolchain)
    files = {
        f"include/{name}.h": header(model.name).encode(),
        "include/edgec.h": (RUNTIME / "edgec.h").read_bytes(),
        f"lib/lib{name}.so": shared,
        f"lib/lib{name}.a": static,
        f"lib/pkgconfig/{name}.pc": _PKG_CONFIG.format(name=name, version=version).encode(),
        f"lib/cmake/{name}/{name}Config.cmake": _CMAKE.format(name=name).encode(),
    }
    for path, content in files.items():
        try:
            (directory / path).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ArtifactError(
                f"cannot be made: {error.strerror or error}", where=str(directory)
            ) from error
        write_file(directory / path, [content], executable=path.endswith(".so"))
    return [directory / path for path in files]
