"""C compilers and linkers: the ziglang package for every target, or one that the user names.

Everything is done in a temporary folder, on files with fixed names, in an environment without
compiler settings: the bytes that come out depend on the bytes that go in, the triple and the
compiler alone. Results are returned as bytes, so that nothing is ever half-written.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

from edgec.cache import Cache, key_of
from edgec.emit.elf import archive, keep_global
from edgec.errors import LoweringError, TargetError
from edgec.targets import Target

RUNTIME = Path(__file__).resolve().parent.parent / "runtime"
"""Folder of the runtime's C sources and headers."""

RUNTIME_SOURCES = ("instance.c", "run.c", "pool.c", "selftest.c", "host.c")
"""The runtime proper: part of every library and executable."""

GPU_SOURCES = ("cuda.c", "cuda_create.c", "cuda_driver.c")
"""What the runtime of a model with a part for GPUs has besides."""

RUNNER_SOURCES = ("runner.c", "npy.c", "zip.c", "sha256.c")
"""What a standalone executable has besides."""

_COMPILE = ("-c", "-std=c99", "-O2", "-g0", "-fPIC", "-fvisibility=hidden", "-w")
_LINK = ("-O2", "-s", "-Wl,--build-id=none", "-Wl,-z,noexecstack")
_LIBRARIES = ("-lm", "-lpthread")

_ANDROID = re.compile(r"-android(eabi)?\d+$")
_ANDROID_LIBRARIES = ("-lm", "-Wl,-z,max-page-size=16384")
"""Bionic has threads in its libc; pages of 16 KiB came with Android 15."""


@dataclass(frozen=True)
class Toolchain:
    """Compiles and links C for one target.

    `triple` is zig's, with the libc it links against ("x86_64-linux-gnu.2.17",
    "aarch64-linux-musl"). `cache_dir` holds what zig builds once per libc (50 MB). `cc` replaces
    zig by another C compiler driver, which must already compile for the target: its path, or its
    name on PATH. `timeout` is the limit for one compilation or link, in seconds. `static_triple` is
    zig's for static programs.

    Every method raises TargetError when the compiler is missing and LoweringError when it fails.
    """

    triple: str
    cache_dir: Path
    cc: str | None = None
    timeout: float = 300.0
    static_triple: str = ""

    @staticmethod
    def of(
        target: Target, cache_dir: Path, cc: str | None = None, ndk: str | None = None
    ) -> Toolchain:
        """The toolchain for `target`: zig, the compiler `cc`, or, for Android, that of the NDK in
        the folder `ndk`.

        Raises:
            TargetError: that folder has no compiler for `target`.
        """
        triple = target.link_triple
        if ndk is not None and cc is None and _ANDROID.search(triple):
            cc = _of_ndk(Path(ndk), triple)
        return Toolchain(triple, cache_dir, cc, static_triple=target.zig_static)

    def for_static_programs(self) -> Toolchain:
        """The same with a libc that zig can link statically."""
        own = self.cc is not None or not self.static_triple
        return self if own else replace(self, triple=self.static_triple)

    def compile(
        self,
        source: str | Path,
        *,
        includes: Sequence[Path] = (RUNTIME,),
        defines: Mapping[str, str] | None = None,
        files: Mapping[str, bytes] | None = None,
        options: Sequence[str] = (),
    ) -> bytes:
        """The object code of one C99 source, given as text or as a path; zig's are cached.

        `defines` are macros; `files` are put beside the source, under their names, for `.incbin`;
        `options` are more of the compiler's.
        """
        text = source.read_text(encoding="utf-8") if isinstance(source, Path) else source
        name = source.name if isinstance(source, Path) else "source.c"
        given = [*options, *(f"-D{key}={value}" for key, value in (defines or {}).items())]
        members = {**(files or {}), name: text.encode()}
        headers = [path.read_bytes() for folder in includes for path in sorted(folder.glob("*.h"))]
        key = key_of(_zig_version(), self.triple, _COMPILE, given, sorted(members.items()), headers)
        found = Cache(self.cache_dir).get("object", key) if self.cc is None else None
        if found is None:
            given += [f"-I{folder.resolve()}" for folder in includes]
            found = self._run([*_COMPILE, *given, name, "-o", "out.o"], members, "out.o")
            if self.cc is None:
                Cache(self.cache_dir).put("object", key, found)
        return found

    def runtime(self, *, gpu: bool = False) -> list[bytes]:
        """The objects of the runtime, with `gpu` of one that can use GPUs."""
        sources = (*RUNTIME_SOURCES, *(GPU_SOURCES if gpu else ()))
        return [self.compile(RUNTIME / name) for name in sources]

    def shared_library(
        self, objects: Sequence[bytes], *, exports: Sequence[str], soname: str
    ) -> bytes:
        """A shared library that needs parts of libc only and exports `exports` only."""
        listed = "".join(f" {name};" for name in exports)
        members = {"exports.map": f"{{ global:{listed} local: *; }};\n".encode()}
        options = ["-shared", f"-Wl,-soname,{soname}", "-Wl,--version-script=exports.map"]
        options += ["-Wl,-Bsymbolic", "-Wl,-z,defs", "-Wl,--gc-sections"]
        return self._link(objects, [*_LINK, *options], self._libraries(), members)

    def static_library(self, objects: Sequence[bytes], *, exports: Sequence[str]) -> bytes:
        """An archive of one object whose only global definitions are `exports`."""
        merged = self._link(objects, ["-r", "-nostdlib"], (), {})
        return archive("model.o", keep_global(merged, frozenset(exports)), exports)

    def executable(self, objects: Sequence[bytes], *, static: bool = True) -> bytes:
        """An executable; `static` wants a libc that can be linked so, such as musl."""
        options = [*_LINK, "-Wl,--gc-sections", *(["-static"] if static else [])]
        return self._link(objects, options, self._libraries(), {})

    def version(self) -> str:
        """The compiler's own description of itself, one line, for caches and reports."""
        command = [*self._driver()[:1], "version" if self.cc is None else "--version"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=self.timeout)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise self._missing(str(error)) from error
        first = (done.stdout or done.stderr).strip().splitlines()
        return f"{'zig' if self.cc is None else Path(self.cc).name} {first[0] if first else '?'}"

    def _libraries(self) -> Sequence[str]:
        return _ANDROID_LIBRARIES if _ANDROID.search(self.triple) else _LIBRARIES

    def _link(
        self,
        objects: Sequence[bytes],
        options: Sequence[str],
        libraries: Sequence[str],
        members: Mapping[str, bytes],
    ) -> bytes:
        named = {f"{index:05}.o": data for index, data in enumerate(objects)}
        arguments = [*options, *named, *libraries, "-o", "out.bin"]
        return self._run(arguments, {**members, **named}, "out.bin")

    def _run(self, arguments: Sequence[str], members: Mapping[str, bytes], output: str) -> bytes:
        command = [*self._driver(), *arguments]
        try:
            with tempfile.TemporaryDirectory(prefix="edgec-") as folder:
                for name, data in members.items():
                    Path(folder, name).write_bytes(data)
                done = subprocess.run(
                    command,
                    cwd=folder,
                    env=self._environment(folder),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    timeout=self.timeout,
                )
                path = Path(folder, output)
                if done.returncode == 0 and path.exists():
                    return path.read_bytes()
        except FileNotFoundError as error:
            raise self._missing(str(error)) from error
        except subprocess.TimeoutExpired as error:
            raise LoweringError(
                f"the C compiler did not finish within {self.timeout:g} s", where=self.triple
            ) from error
        except OSError as error:
            raise LoweringError(
                f"the C compiler could not be run: {error.strerror or error}",
                where=self.triple,
                hint=f"is there space in {tempfile.gettempdir()} and {self.cache_dir}?",
            ) from error
        lines = done.stdout.decode(errors="replace").strip().splitlines()
        raise LoweringError(
            f"the C compiler failed with code {done.returncode}:\n" + "\n".join(lines[-20:]),
            where=self.triple,
        )

    def _driver(self) -> list[str]:
        if self.cc is not None:
            found = shutil.which(self.cc)
            if found is None:
                raise self._missing(f"'{self.cc}' is not an executable file")
            return [found]
        if _ANDROID.search(self.triple):
            raise TargetError(
                "zig has no libc of Android's",
                where=self.triple,
                hint="name the folder of an NDK: --ndk ~/Android/Sdk/ndk/VERSION",
            )
        spec = importlib.util.find_spec("ziglang")
        zig = Path(spec.origin).parent / "zig" if spec and spec.origin else None
        if zig is None or not zig.exists():
            raise self._missing("the package ziglang is not installed")
        return [str(zig), "cc", "-target", self.triple]

    def _missing(self, what: str) -> TargetError:
        hint = "check the path given by --cc" if self.cc else "pip install 'ziglang>=0.17,<0.18'"
        return TargetError(f"no C compiler: {what}", where=self.triple, hint=hint)

    def _environment(self, folder: str) -> dict[str, str]:
        """A user's own compiler keeps the user's environment. Zig gets none of it.

        Its cache of objects is dropped with the folder: it knows nothing of `.incbin` files, and
        would grow with every model.
        """
        if self.cc is not None:
            return dict(os.environ)
        kept = {key: os.environ[key] for key in ("HOME", "PATH", "TMPDIR") if key in os.environ}
        zig_cache = self.cache_dir.resolve() / "zig"
        zig_cache.mkdir(parents=True, exist_ok=True)
        return {
            **kept,
            "ZIG_GLOBAL_CACHE_DIR": str(zig_cache),
            "ZIG_LOCAL_CACHE_DIR": str(Path(folder, "zig-cache")),
        }


def _of_ndk(ndk: Path, triple: str) -> str:
    """The path of the NDK's compiler for a triple such as "aarch64-linux-android24"."""
    found = sorted(ndk.glob(f"toolchains/llvm/prebuilt/*/bin/{triple}-clang"))
    if found:
        return str(found[0].resolve())
    levels = sorted(
        int(path.name.removesuffix("-clang")[len(triple.rstrip("0123456789")) :])
        for path in ndk.glob(
            f"toolchains/llvm/prebuilt/*/bin/{triple.rstrip('0123456789')}[0-9]*-clang"
        )
    )
    known = f"it has API levels {levels[0]} to {levels[-1]}" if levels else "is it an NDK's folder?"
    raise TargetError(f"has no compiler {triple}-clang", where=str(ndk), hint=known)


def _zig_version() -> str:
    try:
        return metadata.version("ziglang")
    except metadata.PackageNotFoundError:
        return ""


def c_name(name: str) -> str:
    """`name` as a C identifier: other characters become "_", and a leading digit gets one."""
    safe = re.sub(r"[^A-Za-z0-9_]", "_", name)
    return f"_{safe}" if not safe or safe[0].isdigit() else safe
