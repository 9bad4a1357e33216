"""Engines called from C: what Python's own time would hide on small models.

`edgec.engines` loads this file by path, so it imports nothing of edgec. `burst.c` makes the calls;
here they are prepared with ctypes. ONNX Runtime's C interface is a table of functions that is only
ever added to (`OrtApi` in onnxruntime_c_api.h): the places of those used here are fixed.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]
Burst = Callable[[int], list[int]]
"""The nanoseconds of each of so many calls."""

_API_VERSION = 16
_PLACES = {
    "GetErrorMessage": 2,
    "CreateEnv": 3,
    "CreateSession": 7,
    "Run": 9,
    "CreateSessionOptions": 10,
    "SetIntraOpNumThreads": 24,
    "CreateTensorWithDataAsOrtValue": 49,
    "CreateCpuMemoryInfo": 69,
}
_ERROR_LEVEL, _ARENA, _DEFAULT_MEMORY = 3, 1, 0
_TYPES = {
    "float32": 1,
    "uint8": 2,
    "int8": 3,
    "uint16": 4,
    "int16": 5,
    "int32": 6,
    "int64": 7,
    "bool": 9,
    "float16": 10,
    "float64": 11,
    "uint32": 12,
    "uint64": 13,
}


class _Calls:
    """A burst by a function of `burst.c`, whose last arguments are where times go and how many."""

    def __init__(
        self,
        function: Any,
        arguments: Sequence[Any],
        check: Callable[[int], None],
        kept: Sequence[object],
    ) -> None:
        function.restype = ctypes.c_ssize_t
        self._function = function
        self._arguments = arguments
        self._check = check
        self._kept = kept  # the arguments hold addresses only

    def __call__(self, calls: int) -> list[int]:
        times = (ctypes.c_uint64 * calls)()
        self._check(self._function(*self._arguments, times, ctypes.c_uint32(calls)))
        return list(times)


def edgec(library: str, bound: Any) -> Burst:
    """Calls of a `Bound` of `edgec.runtime.load`."""
    addresses = (bound._module._handle, bound._inputs, bound._outputs)
    arguments = [ctypes.cast(bound._run, ctypes.c_void_p), *map(ctypes.c_void_p, addresses)]
    return _Calls(ctypes.CDLL(library).burst_edgec, arguments, bound._module._check, [bound])


def onnxruntime(
    library: str, path: str, threads: int, inputs: Mapping[str, Array], outputs: Mapping[str, Array]
) -> Burst:
    """Calls of a new session on the model at `path`, from and into these arrays."""
    session = _Session(path, threads)
    arguments: list[Any] = [ctypes.c_void_p(session.api["Run"]), session.handle]
    for arrays in (inputs, outputs):
        names = (ctypes.c_char_p * len(arrays))(*map(str.encode, arrays))
        values = (ctypes.c_void_p * len(arrays))(*map(session.value, arrays.values()))
        arguments += [names, values, ctypes.c_size_t(len(arrays))]
    function = ctypes.CDLL(library).burst_onnxruntime
    return _Calls(function, arguments, session.check, [inputs, outputs])


class _Session:
    """A model that ONNX Runtime's C library has loaded, for as long as the process lives."""

    def __init__(self, path: str, threads: int) -> None:
        base = ctypes.CDLL(str(_library())).OrtGetApiBase
        base.restype = ctypes.POINTER(ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint32))
        table = (ctypes.c_void_p * (1 + max(_PLACES.values()))).from_address(
            base().contents(_API_VERSION)
        )
        self.api = {name: int(table[place] or 0) for name, place in _PLACES.items()}
        name = ctypes.c_char_p(b"edgec")
        environment = self._new("CreateEnv", ctypes.c_int(_ERROR_LEVEL), name)
        options = self._new("CreateSessionOptions")
        self._call("SetIntraOpNumThreads", options, ctypes.c_int(threads))
        file = ctypes.c_char_p(str(path).encode())
        self.handle = self._new("CreateSession", environment, file, options)
        self._memory = self._new(
            "CreateCpuMemoryInfo", ctypes.c_int(_ARENA), ctypes.c_int(_DEFAULT_MEMORY)
        )

    def value(self, array: Array) -> int | None:
        """A tensor that lies where `array` does."""
        return self._new(
            "CreateTensorWithDataAsOrtValue",
            self._memory,
            ctypes.c_void_p(array.ctypes.data),
            ctypes.c_size_t(array.nbytes),
            (ctypes.c_int64 * array.ndim)(*array.shape),
            ctypes.c_size_t(array.ndim),
            ctypes.c_int(_TYPES[array.dtype.name]),
        ).value

    def check(self, status: int | None) -> None:
        """RuntimeError with ONNX Runtime's words where `status` is one."""
        if status:
            message = ctypes.CFUNCTYPE(ctypes.c_char_p)(self.api["GetErrorMessage"])
            raise RuntimeError(message(ctypes.c_void_p(status)).decode(errors="replace"))

    def _new(self, name: str, *arguments: Any) -> ctypes.c_void_p:
        """What a function makes, which returns it by its last argument."""
        made = ctypes.c_void_p()
        self._call(name, *arguments, ctypes.byref(made))
        return made

    def _call(self, name: str, *arguments: Any) -> None:
        self.check(ctypes.CFUNCTYPE(ctypes.c_void_p)(self.api[name])(*arguments))


def _library() -> Path:
    """The C library inside the Python package."""
    spec = importlib.util.find_spec("onnxruntime")
    folder = Path(spec.origin).parent / "capi" if spec is not None and spec.origin else Path()
    return next(folder.glob("libonnxruntime.so*"))
