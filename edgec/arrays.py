"""Arrays in .npy and .npz files, read item by item and without pickle.

numpy maps a .npy but reads a member of an .npz whole; here both are streams, so that a data set may
be larger than memory and a header that lies about its size costs nothing.
"""

from __future__ import annotations

import math
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from edgec.errors import DataError

Array = NDArray[Any]

_BROKEN = (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What zipfile, zlib and numpy raise on damaged, foreign or encrypted files."""
_BROKEN_HEADER = (
    ArithmeticError,
    LookupError,
    MemoryError,
    SyntaxError,
    TypeError,
    tokenize.TokenError,
)
"""What numpy's parser of .npy headers raises besides."""


def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether the dtype is a real float, those of ml_dtypes included."""
    if dtype.kind != "V":
        return dtype.kind == "f"
    try:
        ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class StoredArray:
    """The array of a .npy file, or of one `member` of an .npz."""

    path: Path
    member: str | None
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool

    @property
    def where(self) -> str:
        """The file, and the member's name in brackets."""
        return _where(self.path, self.member)

    def items(self, shape: tuple[int, ...], count: int) -> Iterator[Array]:
        """The array's values in C order, cut into `count` arrays of `shape`.

        An array in Fortran order is read whole. Raises `DataError` where the file is damaged.
        """
        with _open(self.path, self.member) as (file, _):
            _read_header(file)
            if self.fortran:
                flat = _read(file, self.shape[::-1], self.dtype)
                yield from flat.transpose().reshape(count, *shape)
                return
            for _ in range(count):
                yield _read(file, shape, self.dtype)


def open_npy(path: Path) -> StoredArray:
    """The array of a .npy file. Raises `DataError` unless it is one, of plain numbers."""
    return _stored(path, None)


def open_npz(path: Path) -> dict[str, StoredArray]:
    """The arrays of an .npz by name. Raises `DataError` unless it is one, of plain numbers."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
    except _BROKEN as error:
        raise DataError(f"not a readable .npz file: {error}", where=str(path)) from error
    return {name: _stored(path, name) for name in names}


def load_npz(path: Path) -> dict[str, Array]:
    """All arrays of an .npz by name, in memory."""
    return {
        name: next(array.items(array.shape, 1)).reshape(array.shape)
        for name, array in open_npz(path).items()
    }


def save_npy(path: Path, array: Array) -> None:
    """Write one array. `DataError` where the file cannot be written."""
    with _writing(path), path.open("wb") as file:
        np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)


def save_npz(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write arrays under any names: `numpy.savez` takes names as keyword arguments of its own.

    `DataError` where the file cannot be written.
    """
    with _writing(path), zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"cannot be written: {error.strerror}", where=str(path)) from error


def _where(path: Path, member: str | None) -> str:
    return f"{path}[{member}]" if member is not None else str(path)


@contextmanager
def _open(path: Path, member: str | None) -> Iterator[tuple[IO[bytes], int]]:
    """A .npy stream and its length; whatever its reading raises becomes a `DataError`."""
    try:
        if member is None:
            with path.open("rb") as file:
                yield file, path.stat().st_size
        else:
            with zipfile.ZipFile(path) as archive, archive.open(f"{member}.npy") as stream:
                yield stream, archive.getinfo(f"{member}.npy").file_size
    except KeyError as error:
        raise DataError("not a .npy member", where=_where(path, member)) from error
    except FileNotFoundError as error:
        raise DataError("no such file", where=str(path)) from error
    except _BROKEN as error:
        raise DataError(f"cannot be read: {error}", where=_where(path, member)) from error


def _stored(path: Path, member: str | None) -> StoredArray:
    with _open(path, member) as (file, nbytes):
        shape, fortran, dtype = _read_header(file)
        if math.prod(shape) * dtype.itemsize > nbytes - file.tell():
            raise EOFError("the file ends early")
    return StoredArray(path, member, shape, dtype, fortran)


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    try:
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        elif version == (2, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
        else:
            raise ValueError(f".npy version {version} holds no plain numbers")
    except _BROKEN_HEADER as error:
        raise ValueError(f"its header is damaged: {error}") from error
    if any(length < 0 for length in shape):
        raise ValueError(f"its header is damaged: shape {shape}")
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which only pickle can load")
    return shape, fortran, dtype


def _read(file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    nbytes = math.prod(shape) * dtype.itemsize
    data = file.read(nbytes)
    if len(data) != nbytes:
        raise EOFError("the file ends early")
    return np.frombuffer(data, dtype).reshape(shape)
