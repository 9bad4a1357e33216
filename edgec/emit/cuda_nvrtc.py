"""CUDA C to machine code, by the NVRTC of a wheel from PyPI: no GPU, no toolkit, no headers.

A board's driver chooses the NVRTC: machine code (SASS) of the same major version of CUDA loads into
it, PTX only where its ISA is no newer than the driver's (CUDA Compatibility guide, "minor version
compatibility"; PTX ISA, "Release Notes").
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgec.errors import LoweringError, TargetError
from edgec.targets import Target

_PTX_OF_CUDA = {
    **{(11, minor): (7, minor) for minor in range(9)},
    **{(12, minor): (8, minor) for minor in range(6)},
    (12, 6): (8, 5),
    (12, 7): (8, 6),
    (12, 8): (8, 7),
    (12, 9): (8, 8),
    (13, 0): (9, 0),
    (13, 1): (9, 1),
}
"""The newest PTX that the driver of a CUDA version takes."""


@dataclass(frozen=True)
class Wheel:
    """Where NVRTC of a major version of CUDA comes from."""

    requirement: str
    extra: str
    library: str
    folders: tuple[str, ...]


WHEELS = {
    11: Wheel("nvidia-cuda-nvrtc-cu11==11.8.89", "cuda11", "libnvrtc.so.11.2", ("cuda_nvrtc/lib",)),
    12: Wheel("nvidia-cuda-nvrtc-cu12==12.6.85", "cuda12", "libnvrtc.so.12", ("cuda_nvrtc/lib",)),
    13: Wheel("nvidia-cuda-nvrtc>=13,<14", "cuda13", "libnvrtc.so.13", ("cu13/lib",)),
}


@dataclass(frozen=True)
class DeviceCode:
    """Machine code for one architecture (an ELF file), and PTX where drivers can take it."""

    cubin: bytes
    ptx: bytes


def ptx_of_driver(cuda: str) -> tuple[int, int]:
    """The newest version of PTX that a driver for CUDA `cuda`, "12.6", takes."""
    major, minor = _version(cuda)
    known = [key for key in _PTX_OF_CUDA if key <= (major, minor)]
    return _PTX_OF_CUDA[max(known)] if known else (0, 0)


def ptx_version(ptx: bytes) -> tuple[int, int]:
    """What `.version` says in PTX."""
    found = re.search(rb"^\.version\s+(\d+)\.(\d+)", ptx, re.MULTILINE)
    if found is None:
        raise LoweringError("NVRTC wrote PTX that names no version")
    return int(found[1]), int(found[2])


def compile_cuda(
    source: str, arch: str, cuda: str, options: Sequence[str] = (), *, path: str = ""
) -> DeviceCode:
    """Compile CUDA C for a GPU of `arch`, "sm_87", whose driver is that of CUDA `cuda`, "12.6", by
    the toolkit in the folder `path`, if one is given.

    Raises:
        TargetError: the NVRTC for that driver is not installed, or does not know `arch`.
        LoweringError: the source does not compile.
    """
    library = nvrtc(cuda, path)
    options = ("--std=c++17", *options)
    cubin = library.compile(source, [f"--gpu-architecture={arch}", *options], "CUBIN")
    ptx = library.compile(source, [f"--gpu-architecture=compute_{arch[3:]}", *options], "PTX")
    return DeviceCode(cubin, ptx if ptx_version(ptx) <= ptx_of_driver(cuda) else b"")


def check_gpu(target: Target) -> None:
    """Raises TargetError where the compiler for the target's GPU is absent or does not know it."""
    if has_gpu_part(target):
        try:
            compile_cuda("", target.gpu_arch, target.cuda, path=target.cuda_path)
        except TargetError as error:
            where = f"target '{target.name}'"
            raise TargetError(error.what, where=where, hint=error.hint) from error


def has_gpu_part(target: Target) -> bool:
    """Whether modules for `target` have a part for its GPU: a compiler for its driver exists."""
    return bool(target.gpu_arch) and _version(target.cuda)[0] in WHEELS


TF32_SINCE = 80
"""The compute capability from which tensor cores multiply float32 in TF32."""


def has_tf32(target: Target) -> bool:
    """Whether modules for `target` may have float32 multiplied in TF32 on its GPU."""
    return has_gpu_part(target) and int(target.gpu_arch[3:]) >= TF32_SINCE


@functools.cache
def nvrtc(cuda: str, path: str = "") -> Nvrtc:
    """The NVRTC to compile with for a driver of CUDA `cuda`: a wheel's, or that of the toolkit in
    the folder `path`.

    Raises:
        TargetError: there is none, it is not installed, or its code would not load.
    """
    major, _ = _version(cuda)
    if path:
        return _of_toolkit(Path(path), major)
    wheel = WHEELS.get(major)
    if wheel is None:
        raise TargetError(
            f"no compiler of CUDA {cuda} is on PyPI",
            hint="such boards run on their CPU until a toolkit of theirs is given",
        )
    for candidate in _candidates(wheel):
        if candidate.exists():
            return Nvrtc(candidate)
    raise TargetError(
        f"code for a driver of CUDA {cuda} needs NVRTC {major}, which is not installed",
        hint=f"pip install '{wheel.requirement}'  (or 'edgec[{wheel.extra}]')",
    )


def _candidates(wheel: Wheel) -> Iterator[Path]:
    spec = importlib.util.find_spec("nvidia")
    for root in (spec.submodule_search_locations or []) if spec else []:
        for folder in wheel.folders:
            yield Path(root) / folder / wheel.library


def _of_toolkit(folder: Path, major: int) -> Nvrtc:
    """The NVRTC of an installed toolkit, as NVIDIA's installers and distributions lay it out."""
    places = ("lib64", "lib", "targets/*/lib", "lib/*-linux-gnu", ".")
    found = [path for place in places for path in sorted(folder.glob(f"{place}/libnvrtc.so*"))]
    if not found:
        raise TargetError(
            "has no libnvrtc.so",
            where=str(folder),
            hint="--cuda-path names the folder of a CUDA toolkit, such as /usr/local/cuda-12.6",
        )
    libraries = [Nvrtc(path) for path in found]
    for library in libraries:
        if library.version[0] == major:
            return library
    raise TargetError(
        f"its NVRTC is {'.'.join(map(str, libraries[0].version))}: the target's driver loads code "
        f"of CUDA {major} only",
        where=libraries[0].path,
        hint=f"name a toolkit of CUDA {major}, or leave --cuda-path out",
    )


class Nvrtc:
    """The library, called through ctypes (NVRTC's documentation, "Basic usage")."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        try:
            # Its own symbols first: TVM has another LLVM in the same process.
            self._library = ctypes.CDLL(str(path), mode=os.RTLD_LOCAL | os.RTLD_DEEPBIND)
        except OSError as error:
            raise TargetError(f"NVRTC cannot be loaded: {error}", where=str(path)) from error
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
        self.version = (major.value, minor.value)

    def compile(self, source: str, options: Sequence[str], form: str) -> bytes:
        """The program as `form`, "CUBIN" or "PTX"."""
        library = self._library
        program = ctypes.c_void_p()
        status = library.nvrtcCreateProgram(
            ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None
        )
        if status:
            raise LoweringError(f"NVRTC makes no program: status {status}")
        try:
            encoded = [option.encode() for option in options]
            texts = (ctypes.c_char_p * len(encoded))(*encoded)
            status = library.nvrtcCompileProgram(program, len(encoded), texts)
            if status:
                raise self._error(status, self._get(program, "ProgramLog").decode(), options)
            return (
                self._get(program, form).rstrip(b"\0")
                if form == "PTX"
                else self._get(program, form)
            )
        finally:
            library.nvrtcDestroyProgram(ctypes.byref(program))

    def _get(self, program: ctypes.c_void_p, what: str) -> bytes:
        size = ctypes.c_size_t()
        getattr(self._library, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
        text = ctypes.create_string_buffer(size.value)
        getattr(self._library, f"nvrtcGet{what}")(program, text)
        return text.raw

    def _error(self, status: int, log: str, options: Sequence[str]) -> LoweringError | TargetError:
        if "invalid value for --gpu-architecture" in log:
            version = ".".join(map(str, self.version))
            return TargetError(f"NVRTC {version} does not know {options[0].split('=')[1]}")
        lines = [line for line in log.splitlines() if "error" in line or "fatal" in line]
        return LoweringError(f"NVRTC refuses a kernel: {(lines or [f'status {status}'])[0]}")


def _version(cuda: str) -> tuple[int, int]:
    major, minor = (int(part) for part in cuda.split(".")[:2])
    return major, minor
