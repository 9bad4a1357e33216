"""Calibration data, sample by sample: the sources of `edgec.data`, folders of arrays, and readers.

    FILE.npz, FILE.npy, IMAGE, FOLDER of images, NAME=..., random, zeros      see `edgec.data`
    FOLDER of .npz and .npy files       one after the other, in the order of their names
    FILE.py:NAME                        a function without arguments, or anything else to iterate,
                                        that yields a dict of input name to array; the file is run

Every value must be finite.
"""

from __future__ import annotations

import importlib.util
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgec.arrays import Array
from edgec.data import Sample, TensorLike, open_data
from edgec.errors import DataError, EdgecError, UsageError

GENERATED = 16
"""How many samples are made where all of them are generated."""


@dataclass(frozen=True)
class CalibrationData:
    """Where the samples of a model with the inputs `specs` come from: iterate for dicts of arrays.

    Iterating again reads the data again. `most` limits how many there are. Raises DataError for
    data that does not fit the inputs, is damaged, is not finite, or holds no sample.
    """

    specs: Sequence[TensorLike]
    sources: Sequence[str] | Mapping[str, Array]
    normalize: Sequence[str] = ()
    most: int | None = None
    limits: Mapping[str, int] = field(default_factory=dict)
    note: Callable[[str], None] = lambda text: None

    def __iter__(self) -> Iterator[Sample]:
        found = False
        for sample in itertools.islice(self._all(), self.most):
            found = True
            yield sample
        if not found:
            raise DataError("holds no samples", where="the calibration data")

    def _all(self) -> Iterator[Sample]:
        if len(self.sources) == 1 and not isinstance(self.sources, Mapping):
            text = self.sources[0]
            if is_reader(text):
                for index, item in enumerate(read(text)):
                    yield from self._checked(item, text, index)
                return
            files = sorted(p for p in Path(text).glob("*.np[yz]") if p.is_file())
            if Path(text).is_dir() and files:
                for file in files:
                    yield from self._open([str(file)])
                return
        yield from self._open(self.sources)

    def _open(self, sources: Sequence[str] | Mapping[str, Array]) -> Iterable[Sample]:
        return open_data(
            self.specs,
            sources,
            normalize=self.normalize,
            count=GENERATED,
            limits=self.limits,
            note=self.note,
            finite=True,
        )

    def _checked(self, item: object, text: str, index: int) -> Iterable[Sample]:
        where = f"{text}, sample {index}"
        if not isinstance(item, Mapping):
            raise DataError(f"{type(item).__name__} is no dict of input name to array", where=where)
        try:
            yield from self._open(item)
        except DataError as error:
            inner = f"{error.where}: {error.what}" if error.where else error.what
            raise DataError(inner, where=where, hint=error.hint) from error


def bytes_of(sample: Sample) -> bytes:
    """What tells `sample` from all others."""
    arrays = sorted(sample.items())
    heads = repr([(name, array.dtype.name, array.shape) for name, array in arrays])
    return heads.encode() + b"".join(array.tobytes() for _, array in arrays)


def is_reader(text: str) -> bool:
    """Whether `text` is FILE.py:NAME."""
    path, colon, name = text.rpartition(":")
    return bool(colon) and path.endswith(".py") and name.isidentifier()


def read(text: str) -> Iterator[Any]:
    """What the reader FILE.py:NAME yields. Its file is run, once in this process.

    Raises UsageError where there is no such file or name, DataError where it fails.
    """
    found = load_name(text)
    try:
        yield from found() if callable(found) else found
    except EdgecError:
        raise
    except Exception as error:
        raise DataError(f"the reader failed: {error!r}", where=text) from error


def load_name(text: str) -> Any:
    """The object FILE.py:NAME. Raises UsageError where it cannot be had."""
    path, _, name = text.rpartition(":")
    file = Path(path)
    module_name = f"edgec_reader_{file.stem}_{abs(hash(str(file.resolve()))):x}"
    module = sys.modules.get(module_name)
    if module is None:
        spec = importlib.util.spec_from_file_location(module_name, file)
        if spec is None or spec.loader is None or not file.is_file():
            raise UsageError("there is no such Python file", where=path)
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            raise UsageError(f"cannot be run: {error!r}", where=path) from error
        sys.modules[module_name] = module
    if not hasattr(module, name):
        raise UsageError(f"has no '{name}'", where=path)
    return getattr(module, name)
