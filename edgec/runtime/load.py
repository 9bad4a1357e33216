# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Run compiled models from Python.

    module = load("model.edgec")
    outputs = module.run({"x": x})

This one file is all that a device needs besides Python 3.8 or newer and numpy. An artifact is a ZIP
file of stored members. Its library is checked against the manifest's SHA-256 before a byte of it is
executed, and loaded from sealed memory; its weights are checked likewise and mapped from the file.

Errors are `ArtifactError` (damaged, foreign, or made for another machine), `DataError` (inputs that
do not fit), `DeviceError` (failure while running) and `VerifyError` (a failed self-test). Where
edgec is installed they are edgec's own.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import mmap
import os
import struct
import sys
import zipfile
from typing import IO, Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np

try:
    from edgec.errors import ArtifactError, DataError, DeviceError, EdgecError, VerifyError
except ImportError:

    class EdgecError(Exception):  # type: ignore[no-redef]
        """`what` is wrong, `where`, and a `hint` at what to do about it."""

        exit_code = 1

        def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
            super().__init__(what)
            self.what = what
            self.where = where
            self.hint = hint

        def __str__(self) -> str:
            text = f"{self.where}: {self.what}" if self.where else self.what
            return f"{text}\n  {self.hint}" if self.hint else text

    class VerifyError(EdgecError):  # type: ignore[no-redef]
        """The model computes something else than its golden data."""

        exit_code = 7

    class ArtifactError(EdgecError):  # type: ignore[no-redef]
        """An artifact is damaged, foreign, or made for another machine or version."""

        exit_code = 9

    class DeviceError(EdgecError):  # type: ignore[no-redef]
        """The model failed while running."""

        exit_code = 10

    class DataError(EdgecError):  # type: ignore[no-redef]
        """Input data is missing or has the wrong name, shape or dtype."""

        exit_code = 12


__all__ = ["Bound", "Module", "Tensor", "load", "read_manifest"]

FORMAT_VERSION = 1
ABI_VERSION = 1
_MANIFEST = "manifest.json"
_MANIFEST_LIMIT = 64 << 20

_DTYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64",
    9: "bool", 10: "float16", 11: "float64", 12: "uint32", 13: "uint64", 16: "bfloat16",
    17: "float8_e4m3fn", 18: "float8_e4m3fnuz", 19: "float8_e5m2", 20: "float8_e5m2fnuz",
    21: "uint4", 22: "int4", 23: "float4_e2m1fn", 24: "float8_e8m0fnu", 25: "uint2", 26: "int2",
}  # fmt: skip

_BITS = {"uint4": 4, "int4": 4, "float4_e2m1fn": 4, "uint2": 2, "int2": 2}
"""Bits of the elements that share bytes."""


_PARSE_ERRORS = (
    ArithmeticError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,  # NotImplementedError and RecursionError among them
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
)
"""What reading a ZIP file and its JSON may raise when their bytes are wrong."""


class Tensor(NamedTuple):
    """An input or output.

    `dtype` is the element type's name, ONNX's or that of `ml_dtypes`. Arrays have the numpy dtype
    `numpy_dtype` and the shape `numpy_shape`, which differ from it for what numpy itself has not:
    bfloat16 is passed as uint16 and 8-bit floats as uint8 (the same bits), elements of 4 and 2 bits
    as a row of uint8, the first in the low bits. As inputs, arrays of `ml_dtypes` will do too.
    """

    name: str
    dtype: str
    shape: Tuple[int, ...]
    nbytes: int

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        if self.dtype == "bfloat16":
            return np.dtype(np.uint16)
        raw = self.dtype in _BITS or self.dtype.startswith("float8")
        return np.dtype(np.uint8 if raw else self.dtype)

    @property
    def numpy_shape(self) -> Tuple[int, ...]:
        return (self.nbytes,) if self.dtype in _BITS else self.shape


def load(
    path: Any,
    *,
    variant: Optional[str] = None,
    dims: Optional[Mapping[str, int]] = None,
    threads: int = 0,
    spin_us: Optional[int] = None,
    device: int = 0,
) -> Module:
    """Open the artifact at `path` and make an instance of its first variant that this machine runs.

    `variant` asks for one by id, `dims` for one compiled with these values of symbolic dimensions.
    `threads` 0 means as many as the affinity mask and the cgroup quota allow. Idle workers spin for
    `spin_us` microseconds before they sleep (None: 100). `device` 0 is the first GPU, where the
    model has code for one and it can be used, else the CPU; -1 is the CPU, and n > 0 is GPU n.

    Raises:
        ArtifactError: the file is damaged or no edgec artifact, or nothing in it runs here.
        DeviceError: there is not enough memory.
    """
    archive = _Archive(os.fspath(path))
    try:
        chosen = _choose(archive, variant, dims or {})
        return Module(archive, chosen, threads, spin_us, device)
    except BaseException:
        archive.close()
        raise


def read_manifest(path: Any) -> Dict[str, Any]:
    """The manifest of the artifact at `path`, checked for format and version only.

    Raises:
        ArtifactError: the file is damaged or no edgec artifact.
    """
    archive = _Archive(os.fspath(path))
    archive.close()
    return archive.manifest


def read_member(path: Any, name: str) -> bytes:
    """The content of a member of the artifact at `path`, its hash checked.

    Raises:
        ArtifactError: the file is damaged or no edgec artifact, or has no such member.
    """
    archive = _Archive(os.fspath(path))
    try:
        return bytes(archive.member(name))
    finally:
        archive.close()


class _Archive:
    """A mapped artifact: its manifest, and its members as views of the file."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.manifest: Dict[str, Any] = {}
        if os.path.exists(path) and not os.path.isfile(path):
            raise ArtifactError("is not a file", where=path)
        try:
            with open(path, "rb") as stream:
                self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
                self.view = memoryview(self._map)
                self._open(stream)
        except OSError as error:
            raise ArtifactError(f"cannot be read: {error.strerror or error}", where=path) from None
        except ValueError:
            raise self.damaged("the file is empty") from None

    def _open(self, stream: IO[bytes]) -> None:
        try:
            with zipfile.ZipFile(stream) as archive:
                self._members = self._find_members(archive)
                self.manifest = self._read_manifest(archive)
        except ArtifactError:
            self.close()
            raise
        except _PARSE_ERRORS as error:
            self.close()
            raise self.damaged(str(error) or type(error).__name__) from None

    def damaged(self, why: str) -> ArtifactError:
        return ArtifactError(
            f"not an edgec artifact, or a damaged one: {why}",
            where=self.path,
            hint="copy the file again, or compile the model again",
        )

    def _find_members(self, archive: zipfile.ZipFile) -> Dict[str, Tuple[int, int]]:
        """Offset and size in the file of every member."""
        members = {}
        for info in archive.infolist():
            at = info.header_offset
            if at + 30 > len(self.view) or bytes(self.view[at : at + 4]) != b"PK\x03\x04":
                raise self.damaged(f"member '{info.filename}' is not where it should be")
            name_size, extra_size = struct.unpack_from("<HH", self.view, at + 26)
            start = at + 30 + name_size + extra_size
            if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
                raise self.damaged(f"member '{info.filename}' is compressed or encrypted")
            if info.filename in members or start + info.file_size > len(self.view):
                raise self.damaged(f"member '{info.filename}' is there twice or cut off")
            members[info.filename] = (start, info.file_size)
        return members

    def _read_manifest(self, archive: zipfile.ZipFile) -> Dict[str, Any]:
        if self._members.get(_MANIFEST, (0, _MANIFEST_LIMIT))[1] >= _MANIFEST_LIMIT:
            raise self.damaged("it has no manifest")
        manifest = json.loads(archive.read(_MANIFEST).decode("utf-8"))
        if not isinstance(manifest, dict) or manifest.get("format") != "edgec":
            raise self.damaged("its manifest is not edgec's")
        version = manifest["version"]
        if not isinstance(version, list) or not all(isinstance(part, int) for part in version):
            raise self.damaged("its manifest has no version")
        if version[0] > FORMAT_VERSION:
            raise ArtifactError(
                f"the artifact has format version {version[0]}, "
                f"this loader reads up to {FORMAT_VERSION}",
                where=self.path,
                hint="use the loader of the edgec that compiled it, also found inside as load.py",
            )
        if not isinstance(manifest["variants"], list) or not isinstance(manifest["files"], dict):
            raise self.damaged("its manifest lists no variants or files")
        return manifest

    def member(self, name: str) -> memoryview:
        """The content of a member, its hash checked."""
        try:
            facts = self.manifest["files"][name]
            size, digest = int(facts["size"]), str(facts["sha256"])
            start, actual = self._members[name]
        except (LookupError, TypeError, ValueError):
            raise self.damaged(f"'{name}' is missing") from None
        content = self.view[start : start + actual]
        if actual != size or hashlib.sha256(content).hexdigest() != digest:
            raise self.damaged(f"'{name}' has changed since it was written")
        return content

    def close(self) -> None:
        self.view.release()
        with contextlib.suppress(BufferError):  # unmapped when the last view of it goes
            self._map.close()


class _Variant(NamedTuple):
    """What the loader needs to know of a variant."""

    id: str
    library: str
    symbol: str
    weights: Optional[str]
    golden: Optional[str]

    @staticmethod
    def of(facts: Mapping[str, Any]) -> _Variant:
        texts = [facts[key] for key in ("id", "library", "symbol")]
        weights, golden = facts.get("weights"), facts.get("golden")
        if not all(isinstance(text, str) for text in [*texts, weights or "", golden or ""]):
            raise TypeError("names are strings")
        return _Variant(texts[0], texts[1], texts[2], weights, golden)


def _choose(archive: _Archive, wanted: Optional[str], dims: Mapping[str, int]) -> _Variant:
    """The first variant that was asked for and runs here."""
    refused: List[str] = []
    known: List[str] = []
    try:
        for facts in archive.manifest["variants"]:
            known.append(facts["id"])
            if wanted is not None and facts["id"] != wanted:
                continue
            bound = facts.get("dims") or {}
            if any(bound.get(name) != value for name, value in dims.items()):
                continue
            why = _refusal(facts)
            if why is None:
                return _Variant.of(facts)
            refused.append(f"variant '{facts['id']}': {why}")
    except (LookupError, TypeError, AttributeError, ValueError):
        raise archive.damaged("its manifest describes a variant wrongly") from None
    if refused:
        raise ArtifactError(
            "this machine cannot run it: " + "; ".join(refused),
            where=archive.path,
            hint="compile the model for this machine: edgec compile MODEL --target host",
        )
    asked = f"variant '{wanted}'" if wanted is not None else f"dims {dict(dims)}"
    raise ArtifactError(
        f"it holds no {asked}",
        where=archive.path,
        hint="it holds: " + (", ".join(map(str, known)) or "nothing"),
    )


def _refusal(variant: Mapping[str, Any]) -> Optional[str]:
    """Why this machine cannot run a variant, or None."""
    requires = variant["requires"]
    if variant["abi"] != ABI_VERSION:
        return f"it has ABI version {variant['abi']}, this loader speaks {ABI_VERSION}"
    if requires["os"] != ("linux" if sys.platform == "android" else sys.platform):
        return f"it is for {requires['os']}, this is {sys.platform}"
    machine, bits = _machine(), 8 * struct.calcsize("P")
    if requires["arch"] != machine or bits != _BITS_OF.get(machine, 64):
        return f"it is for {requires['arch']}, this is {machine} with {bits}-bit Python"
    libc, _, floor = requires.get("libc", "").partition(" ")
    if libc in ("musl", "bionic") and _glibc_version() is not None:
        return f"it needs {requires['libc']}, this system has glibc"
    if libc == "glibc":
        here = _glibc_version()
        if here is None:
            return f"it needs {requires['libc']}, which this system does not have"
        if here < tuple(int(part) for part in floor.split(".")):
            return f"it needs {requires['libc']}, this is {'.'.join(map(str, here))}"
    present = _cpu_features()
    missing = [name for name in requires["features"] if present and name not in present]
    return f"this CPU has no {', '.join(missing)}" if missing else None


def _glibc_version() -> Optional[Tuple[int, ...]]:
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
        return tuple(int(part) for part in version.split(".")) if name == "glibc" else None
    except (ValueError, OSError):
        return None


def _machine() -> str:
    """This machine as a process sees it: 32-bit Python on 64-bit Arm is on an armv7l."""
    machine = os.uname().machine
    return "armv7l" if machine in ("aarch64", "armv8l") and sys.maxsize < 1 << 32 else machine


_BITS_OF = {"armv7l": 32}

_CAPABILITIES = {
    "aarch64": {
        "fp": 0, "asimd": 1, "crc32": 7, "atomics": 8, "fphp": 9, "asimdhp": 10, "asimdrdm": 12,
        "asimddp": 20, "sve": 22, "asimdfhm": 23, "sve2": 33, "i8mm": 45, "bf16": 46,
    },
    "armv7l": {
        "vfp": 6, "edsp": 7, "neon": 12, "vfpv3": 13, "vfpv4": 16, "idiva": 17, "idivt": 18,
        "vfpd32": 19,
    },
}  # fmt: skip
"""Bits of AT_HWCAP, and from 32 on of AT_HWCAP2: what the kernel says of an Arm processor."""


def _cpu_features() -> List[str]:
    """Features as /proc/cpuinfo names them; empty where the system does not tell."""
    machine = _machine()
    names = _CAPABILITIES.get(machine, {})
    found: List[str] = []
    key = "Features" if names else "flags"
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as stream:
            lines = (line.partition(":") for line in stream)
            found = next((value.split() for name, _, value in lines if name.strip() == key), [])
    except OSError:
        pass
    with contextlib.suppress(OSError, AttributeError):
        getauxval = ctypes.CDLL(None).getauxval
        getauxval.restype, getauxval.argtypes = ctypes.c_ulong, [ctypes.c_ulong]
        bits = getauxval(16) & 0xFFFFFFFF | getauxval(26) << 32
        found = [name for name in found if name not in names]
        found += [name for name, bit in names.items() if bits >> bit & 1]
    return found


class _CTensor(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("rank", ctypes.c_uint32),
        ("dtype", ctypes.c_int32),
        ("bytes", ctypes.c_uint64),
    ]


class _COptions(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_uint32),
        ("threads", ctypes.c_uint32),
        ("spin_us", ctypes.c_int32),
        ("device", ctypes.c_int32),
        ("parallel_for", ctypes.c_void_p),
        ("parallel_for_context", ctypes.c_void_p),
        ("arena", ctypes.c_void_p),
        ("arena_size", ctypes.c_uint64),
        ("weights", ctypes.c_void_p),
        ("weights_size", ctypes.c_uint64),
        ("error", ctypes.c_void_p),
        ("error_size", ctypes.c_uint64),
    ]


_Status = ctypes.c_int
_Handle = ctypes.c_void_p
_Describe = ctypes.CFUNCTYPE(ctypes.POINTER(_CTensor), _Handle, ctypes.c_uint32)


class _CModel(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_uint32),
        ("abi_version", ctypes.c_uint32),
        ("name", ctypes.c_char_p),
        ("cpu_features", ctypes.c_char_p),
        ("weights_sha256", ctypes.c_char_p),
        ("weights_bytes", ctypes.c_uint64),
        ("weights_embedded", ctypes.c_uint32),
        ("input_count", ctypes.c_uint32),
        ("output_count", ctypes.c_uint32),
        ("state_count", ctypes.c_uint32),
        ("arena_size", ctypes.CFUNCTYPE(ctypes.c_uint64, _Handle, _Handle)),
        (
            "create",
            ctypes.CFUNCTYPE(
                _Status, _Handle, ctypes.POINTER(_COptions), ctypes.POINTER(ctypes.c_void_p)
            ),
        ),
        ("destroy", ctypes.CFUNCTYPE(_Status, _Handle)),
        ("run", ctypes.CFUNCTYPE(_Status, _Handle, _Handle, _Handle, _Handle)),
        ("reset", ctypes.CFUNCTYPE(_Status, _Handle)),
        ("selftest", ctypes.CFUNCTYPE(_Status, _Handle, _Handle, ctypes.c_uint64)),
        ("input", _Describe),
        ("output", _Describe),
        ("last_error", ctypes.CFUNCTYPE(ctypes.c_char_p, _Handle)),
        ("thread_count", ctypes.CFUNCTYPE(ctypes.c_uint32, _Handle)),
        ("result", _Describe),
        (
            "profile",
            ctypes.CFUNCTYPE(_Status, _Handle, _Handle, _Handle, _Handle, ctypes.c_uint32),
        ),
        ("device", ctypes.CFUNCTYPE(ctypes.c_char_p, _Handle)),
    ]


_OK, _INVALID, _NO_MEMORY, _BUSY, _UNSUPPORTED, _FAILED, _MISMATCH, _FORKED = range(8)


class _Library:
    """A shared library, loaded from memory that nobody can change any more."""

    def __init__(self, content: memoryview, where: str) -> None:
        self._file: Optional[int] = None
        try:
            try:
                path = self._seal(content)
                self._library = ctypes.CDLL(path)
            except (OSError, AttributeError):  # no memfd here, or none that may be executed
                self._close_file()
                self._library = _load_from_cache(content)
        except OSError as error:
            raise ArtifactError(f"its library cannot be loaded: {error}", where=where) from None

    def _seal(self, content: memoryview) -> str:
        import fcntl

        self._file = os.memfd_create("edgec", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        with open(self._file, "wb", closefd=False) as stream:
            stream.write(content)
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
        fcntl.fcntl(self._file, fcntl.F_ADD_SEALS, seals)
        return f"/proc/self/fd/{self._file}"

    def model(self, symbol: str) -> Any:
        """The table that the library's one function returns."""
        entry = getattr(self._library, symbol)
        entry.restype, entry.argtypes = ctypes.POINTER(_CModel), []
        return entry()

    def close(self) -> None:
        import _ctypes

        _ctypes.dlclose(self._library._handle)
        self._close_file()

    def _close_file(self) -> None:
        """Not before the library is gone: the dynamic linker knows it by the file's number."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _load_from_cache(content: memoryview) -> ctypes.CDLL:
    """Load by way of a file in the user's cache folder, which others cannot write to."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = os.path.join(base, "edgec", "libraries")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    path = os.path.join(folder, f"{hashlib.sha256(content).hexdigest()}.so")
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as stream:
        if stream.read() == content:
            return ctypes.CDLL(path)
    temporary = f"{path}.{os.getpid()}"
    try:
        with open(temporary, "wb") as stream:
            stream.write(content)
        library = ctypes.CDLL(temporary)
        os.replace(temporary, path)
        return library
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


class Module:
    """A model that runs.

    One call at a time: a second thread that calls meanwhile gets a DeviceError. For concurrency
    load the artifact once per thread; the weights are shared. Closed by `close` or a `with` block.

    `inputs` and `outputs` are lists of `Tensor`, `variant` is the id of the variant that runs,
    `threads` the number of threads of a parallel step, `manifest` the artifact's, `device` what
    runs it: "CPU" or the name of a GPU. Where the inputs
    decide an extent of an output, its shape in `outputs` is the largest there can be.
    """

    def __init__(
        self,
        archive: _Archive,
        variant: _Variant,
        threads: int,
        spin_us: Optional[int],
        device: int,
    ) -> None:
        self.path = archive.path
        self.manifest = archive.manifest
        self.variant = variant.id
        self._archive = archive
        self._golden = variant.golden
        self._handle: Optional[int] = None
        weights = archive.member(variant.weights) if variant.weights else b""
        self._weights = np.frombuffer(weights, np.uint8)
        self._library = _Library(archive.member(variant.library), self.path)
        try:
            self._table = self._open_table(variant)
            self._handle = self._create(threads, spin_us, device)
        except BaseException:
            self._library.close()
            raise
        self.threads: int = self._table.thread_count(self._handle)
        self.device: str = self._table.device(self._handle).decode("utf-8", "replace")
        self.inputs = self._describe(self._table.input, self._table.input_count)
        self.outputs = self._describe(self._table.output, self._table.output_count)
        self._results = [self._table.result(self._handle, i)[0] for i in range(len(self.outputs))]

    def _open_table(self, variant: _Variant) -> Any:
        try:
            table = self._library.model(variant.symbol).contents
        except AttributeError:
            raise self._archive.damaged(f"its library has no {variant.symbol}") from None
        other = ""
        if table.abi_version != ABI_VERSION:
            other = f"has ABI version {table.abi_version}, this loader speaks {ABI_VERSION}"
        elif table.size < ctypes.sizeof(_CModel):
            needed = ctypes.sizeof(_CModel)
            other = f"is of an older edgec: {table.size} bytes of functions, {needed} are used here"
        if other:
            raise ArtifactError(
                f"its library {other}",
                where=self.path,
                hint="use the loader of the edgec that compiled it, also found inside as load.py",
            )
        if variant.weights:
            digest = self.manifest["files"][variant.weights]["sha256"]
            if digest != table.weights_sha256.decode():
                raise self._archive.damaged("its weights belong to another library")
        return table

    def _create(self, threads: int, spin_us: Optional[int], device: int) -> int:
        options = _COptions(ctypes.sizeof(_COptions), max(0, threads), device=device)
        if spin_us is not None:
            options.spin_us = min(spin_us, 2**31 - 1) if spin_us > 0 else -1
        if self._weights.size:
            options.weights = self._weights.ctypes.data
            options.weights_size = self._weights.size
        why = ctypes.create_string_buffer(512)
        options.error, options.error_size = ctypes.addressof(why), len(why)
        handle = ctypes.c_void_p()
        status = self._table.create(ctypes.addressof(self._table), options, handle)
        if status != _OK or not handle.value:
            kind = DeviceError if status == _NO_MEMORY else ArtifactError
            raise kind(why.value.decode("utf-8", "replace"), where=self.path)
        return handle.value

    def _describe(self, ask: Any, count: int) -> List[Tensor]:
        tensors = []
        for i in range(count):
            facts = ask(self._handle, i).contents
            dtype = _DTYPES.get(facts.dtype)
            if dtype is None:
                raise ArtifactError(f"element type {facts.dtype} is unknown", where=self.path)
            shape = tuple(facts.shape[axis] for axis in range(facts.rank))
            tensors.append(Tensor(facts.name.decode(), dtype, shape, facts.bytes))
        return tensors

    def run(self, inputs: Mapping[str, Any]) -> Dict[str, np.ndarray[Any, Any]]:
        """Run once: an array per input name in, a new array per output name out.

        Arrays are read in place when they are C-contiguous and aligned, else copied. Names, shapes
        and dtypes must be the model's own.

        Raises:
            DataError: an input is missing, unknown, or has another shape or dtype.
            DeviceError: the model failed, is running in another thread, or is closed.
        """
        arrays = _match(self.inputs, inputs, "input")
        arrays = [np.require(array, requirements=["C", "A"]) for array in arrays]
        bound = Bound(self, arrays, self._new_outputs())
        bound()
        return bound.results()

    def run_at(self, inputs: Sequence[int], outputs: Sequence[int], stream: int = 0) -> None:
        """Run once on buffers given by their addresses, in the order of `inputs` and `outputs`.

        They are not checked beyond alignment. On a GPU they may be memory of the GPU, such as a
        tensor's `data_ptr()`, and `stream` a CUstream to run on; without memory of the host among
        them the call then returns before the work is done.

        Raises:
            DataError: there are more or fewer than the model has.
            DeviceError: as `run` does.
        """
        counts = (len(inputs), len(outputs))
        if counts != (len(self.inputs), len(self.outputs)):
            raise DataError(
                f"{counts[0]} inputs and {counts[1]} outputs given, "
                f"the model has {len(self.inputs)} and {len(self.outputs)}",
                where=self.path,
            )
        given = [(ctypes.c_void_p * len(places))(*places) for places in (inputs, outputs)]
        self._check(self._table.run(self._open_handle(), given[0], given[1], stream or None))

    def _new_outputs(self) -> List[np.ndarray[Any, Any]]:
        return [np.empty(t.numpy_shape, t.numpy_dtype) for t in self.outputs]

    def bind(self, inputs: Mapping[str, Any], outputs: Optional[Mapping[str, Any]] = None) -> Bound:
        """Fix the arrays, once, for many runs; what is returned runs the model when called.

        Every array is used in place, so all must be C-contiguous and aligned, and outputs writable
        and apart from each other and from the inputs. Without `outputs` new arrays are made.

        Raises:
            DataError: an array is missing, unknown, or has another shape, dtype or layout.
        """
        made = {t.name: array for t, array in zip(self.outputs, self._new_outputs())}
        given = [
            _match(self.inputs, inputs, "input"),
            _match(self.outputs, made if outputs is None else outputs, "output"),
        ]
        for array, tensor in zip(given[0] + given[1], self.inputs + self.outputs):
            if not (array.flags.c_contiguous and array.flags.aligned):
                raise DataError(f"the array for '{tensor.name}' is not C-contiguous and aligned")
        for array, tensor in zip(given[1], self.outputs):
            if not array.flags.writeable:
                raise DataError(f"the array for output '{tensor.name}' cannot be written to")
        return Bound(self, given[0], given[1])

    def reset(self) -> None:
        """Set the recurrent state to zero."""
        self._check(self._table.reset(self._open_handle()))

    def selftest(self) -> None:
        """Run the golden inputs and compare with the golden outputs; the state is zero afterwards.

        Raises:
            VerifyError: an output differs by more than its tolerance.
            ArtifactError: the golden data are damaged, or there are none.
        """
        handle = self._open_handle()
        if not self._golden:
            raise ArtifactError("it holds no golden data", where=self.path)
        golden = np.frombuffer(self._archive.member(self._golden), np.uint8)
        self._check(self._table.selftest(handle, golden.ctypes.data, golden.size))

    def close(self) -> None:
        """Free everything. Closing twice is allowed.

        Raises:
            DeviceError: the model is running in another thread; it stays open.
        """
        if self._handle is None:
            return
        self._check(self._table.destroy(self._handle))
        self._handle = None
        self._library.close()
        del self._weights
        self._archive.close()

    def __enter__(self) -> Module:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None and not sys.is_finalizing():
            self.close()

    def __repr__(self) -> str:
        return f"<edgec module {self.path!r}, variant {self.variant!r}>"

    def _open_handle(self) -> int:
        if self._handle is None:
            raise DeviceError("the module is closed", where=self.path)
        return self._handle

    def _check(self, status: int) -> None:
        if status == _OK:
            return
        if status == _BUSY:
            raise DeviceError(
                "the module is running in another thread",
                where=self.path,
                hint="load the artifact once per thread",
            )
        if status == _FORKED:
            raise DeviceError(
                "the module was running while the process forked, and the child cannot use it",
                where=self.path,
                hint="load the artifact again in the child",
            )
        text = self._table.last_error(self._handle).decode("utf-8", "replace")
        kinds = {_INVALID: DataError, _MISMATCH: VerifyError}
        raise kinds.get(status, DeviceError)(text, where=self.path)


class Bound:
    """A model with its arrays: calling it runs the model on them.

    An output whose extent the inputs decide fills the beginning of its array; `results` tells how
    much of it.
    """

    __slots__ = ("_arrays", "_inputs", "_module", "_outputs", "_pointers", "_run")

    def __init__(
        self,
        module: Module,
        inputs: Sequence[np.ndarray[Any, Any]],
        outputs: Sequence[np.ndarray[Any, Any]],
    ) -> None:
        self._module = module
        self._arrays = (inputs, outputs)
        self._pointers = [
            (ctypes.c_void_p * len(arrays))(*[a.ctypes.data for a in arrays])
            for arrays in self._arrays
        ]
        self._inputs, self._outputs = map(ctypes.addressof, self._pointers)
        self._run: Callable[..., int] = module._table.run

    def __call__(self) -> None:
        """Run once.

        Raises:
            DeviceError: the model failed, is running in another thread, or is closed.
        """
        module = self._module
        status = self._run(module._handle or module._open_handle(), self._inputs, self._outputs, 0)
        if status:
            module._check(status)

    def profile(self) -> List[int]:
        """Run once and return the nanoseconds that each step took, all its iterations together.

        The steps are those of the variant in the manifest, each before the ones inside it; a step
        that was skipped or only holds others has 0.

        Raises:
            ArtifactError: the manifest does not list the steps.
            DeviceError: as calling it does.
        """
        module = self._module
        handle = module._open_handle()
        try:
            facts = next(v for v in module.manifest["variants"] if v["id"] == module.variant)
            times = (ctypes.c_uint64 * _count_steps(facts["steps"]))()
        except (LookupError, TypeError, AttributeError):
            raise module._archive.damaged("its manifest lists no steps") from None
        count = len(times)
        module._check(module._table.profile(handle, self._inputs, self._outputs, times, count))
        return list(times)

    def results(self) -> Dict[str, np.ndarray[Any, Any]]:
        """The output arrays by name, as views of the shape that the last run gave them."""
        module = self._module
        module._open_handle()
        return {
            tensor.name: array if now.bytes == tensor.nbytes else _cut(array, now)
            for tensor, array, now in zip(module.outputs, self._arrays[1], module._results)
        }


def _count_steps(steps: Sequence[Mapping[str, Any]]) -> int:
    """Steps, those inside others included."""
    inside = (step.get(key, ()) for step in steps for key in ("body", "then", "else"))
    return len(steps) + sum(map(_count_steps, inside))


def _cut(array: np.ndarray[Any, Any], result: _CTensor) -> np.ndarray[Any, Any]:
    """The dense data at the beginning of `array`, in the shape of `result`."""
    shape = tuple(result.shape[axis] for axis in range(result.rank))
    return array.reshape(-1)[: result.bytes // array.itemsize].reshape(shape)


def raw(array: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """An array of `ml_dtypes` as it is passed: the same bits, in shared bytes if they are few."""
    codes = np.ascontiguousarray(array).view(dtype)
    bits = _BITS.get(array.dtype.name)
    if bits is None:
        return codes
    row = np.zeros(-(-codes.size * bits // 8) * 8 // bits, np.uint8)
    row[: codes.size] = codes.ravel() & (2**bits - 1)
    row = row.reshape(-1, 8 // bits) << np.arange(0, 8, bits).astype(np.uint8)
    packed: np.ndarray[Any, Any] = np.bitwise_or.reduce(row, axis=1)
    return packed


def _match(
    tensors: Sequence[Tensor], arrays: Mapping[str, Any], kind: str
) -> List[np.ndarray[Any, Any]]:
    """The arrays in the order of `tensors`, each with the right shape and dtype."""
    hint = f"the model's {kind}s are: " + ", ".join(
        f"{t.name} {t.numpy_dtype} {list(t.numpy_shape)}" for t in tensors
    )
    names = [tensor.name for tensor in tensors]
    for name in arrays:
        if name not in names:
            raise DataError(f"there is no {kind} '{name}'", hint=hint)
    matched = []
    for tensor in tensors:
        if tensor.name not in arrays:
            raise DataError(f"{kind} '{tensor.name}' is missing", hint=hint)
        array = np.asarray(arrays[tensor.name])
        narrow = tensor.dtype != tensor.numpy_dtype.name and array.dtype.name == tensor.dtype
        if kind == "input" and narrow and array.shape == tensor.shape:
            array = raw(array, tensor.numpy_dtype)
        if array.dtype != tensor.numpy_dtype or array.shape != tensor.numpy_shape:
            raise DataError(
                f"{kind} '{tensor.name}' must be {tensor.numpy_dtype} {list(tensor.numpy_shape)}, "
                f"not {array.dtype} {list(array.shape)}",
                hint=hint,
            )
        matched.append(array)
    return matched
