"""Input data for run, verify, bench and calibration: generated, from .npy and .npz, from images.

A source is one of

    random, zeros                 every input that no other source names
    NAME=random, NAME=zeros       one input
    NAME=FILE.npy                 an array of samples
    NAME=IMAGE, NAME=FOLDER       8-bit images, resized to the input
    FILE.npz                      one array per input name
    FILE.npy, IMAGE, FOLDER       the same for a model with one input

Samples are stacked on axis 0. Where the model's own batch is 1 that is its batch axis, otherwise a
further one. Files are read sample by sample, so memory does not grow with the data.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import ml_dtypes
import numpy as np

from edgec import images
from edgec.arrays import Array, StoredArray, is_float, open_npy, open_npz
from edgec.errors import DataError, UsageError
from edgec.program import dtype_of

Sample = dict[str, Array]
Note = Callable[[str], None]


class TensorLike(Protocol):
    """What is asked of an input: its ONNX name, dtype name and static shape."""

    @property
    def name(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...


class _Column(Protocol):
    """The samples of one input. `length` is None where they never end."""

    @property
    def length(self) -> int | None: ...
    def samples(self) -> Generator[Array]: ...


class Dataset:
    """Samples for a model: iterate, as often as needed, for dicts of input name to array.

    `len` is the number of samples. Iterating raises `DataError` where a file is damaged. NaN and
    infinite values are passed on, and reported once per input through `note`; where everything must
    be `finite` they raise `DataError`.
    """

    def __init__(
        self, columns: Mapping[str, _Column], count: int, note: Note, finite: bool = False
    ) -> None:
        self._columns = dict(columns)
        self._note = note
        self._finite = finite
        lengths = {name: c.length for name, c in columns.items() if c.length is not None}
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"{name}: {length}" for name, length in lengths.items())
            raise DataError(f"the inputs have different numbers of samples ({listed})")
        self._length = next(iter(lengths.values()), count)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Generator[Sample]:
        unreported = set(self._columns)
        streams = {name: column.samples() for name, column in self._columns.items()}
        try:
            for index in range(self._length):
                sample = {name: next(stream) for name, stream in streams.items()}
                for name in sorted(unreported):
                    if found := _non_finite(sample[name]):
                        unreported.remove(name)
                        where = f"input {name!r}, sample {index}"
                        if self._finite:
                            raise DataError(
                                found, where=where, hint="repair the sample, or leave it out"
                            )
                        self._note(f"{where}: {found}")
                yield sample
        finally:
            for stream in streams.values():
                stream.close()


def open_data(
    specs: Sequence[TensorLike],
    sources: Sequence[str] | Mapping[str, Array],
    *,
    normalize: Sequence[str] = (),
    count: int = 1,
    seed: int = 0,
    limits: Mapping[str, int] | None = None,
    note: Note = lambda text: None,
    finite: bool = False,
) -> Dataset:
    """Find the data for every input of `specs`.

    `sources` are texts as in the module's docstring, or arrays by input name. `normalize` holds
    "NAME=MEAN,STD" (or all means, then all stds, one per channel) in units of 8-bit pixels: uint8
    data for that float input becomes (pixel - MEAN) / STD. Without it, pixels stay 0..255.

    `count` is the number of samples where all of them are generated, `seed` makes them. Random
    floats are standard normal; bools and integers of up to 16 bits take any value; wider integers,
    mostly ids, masks and lengths, are 0 or 1, or below `limits[name]` (`index_limits` knows some).

    `note` receives lines the user should see. NaN and infinities are an error with `finite`. Raises
    `DataError` for a missing, unknown, damaged or unfitting source, `UsageError` for a malformed
    `normalize`.
    """
    by_name = {spec.name: spec for spec in specs}
    rules = dict(_parse_normalize(text, by_name) for text in normalize)
    columns: dict[str, _Column] = {}
    fill = ""

    def add(name: str, column: _Column) -> None:
        if name in columns:
            raise DataError("given twice", where=f"input {name!r}")
        columns[name] = column

    def generated(spec: TensorLike, kind: str) -> _Generated:
        return _Generated(spec, kind, seed, (limits or {}).get(spec.name, 2))

    def stored(spec: TensorLike, array: StoredArray | _InMemory) -> _Stored:
        return _Stored(spec, array, _count(spec, array), _check_dtype(spec, array, rules))

    if isinstance(sources, Mapping):
        for name, values in sources.items():
            spec = _find(by_name, name, "inputs")
            add(name, stored(spec, _InMemory(np.asarray(values), f"inputs[{name!r}]")))
        sources = ()
    for text in sources:
        owner, rest = _split_name(text, by_name)
        path = Path(rest)
        if owner is None and rest in ("random", "zeros"):
            fill = rest
            continue
        if owner is None and path.suffix == ".npz":
            for name, array in open_npz(path).items():
                add(name, stored(_find(by_name, name, rest), array))
            continue
        spec = by_name[owner] if owner is not None else _only(specs, rest)
        if rest in ("random", "zeros"):
            add(spec.name, generated(spec, rest))
        elif path.is_dir() or path.suffix.lower() in images.SUFFIXES:
            add(spec.name, _images(spec, path, rules.get(spec.name), note))
        elif path.suffix == ".npy":
            add(spec.name, stored(spec, open_npy(path)))
        else:
            raise DataError(
                "no data of a known kind" if path.exists() else "no such file or folder",
                where=text,
                hint="give random, zeros, an .npz or .npy file, an image or a folder of images",
            )
    missing = [spec for spec in specs if spec.name not in columns]
    if missing and not fill:
        raise DataError(
            "no data for " + ", ".join(f"{s.name!r} {s.dtype}{list(s.shape)}" for s in missing),
            hint="give NAME=FILE.npy for each, or random for all that are left",
        )
    columns |= {spec.name: generated(spec, fill) for spec in missing}
    return Dataset({spec.name: columns[spec.name] for spec in specs}, count, note, finite)


def index_limits(model: Any) -> dict[str, int]:
    """Exclusive bounds of the inputs of an `onnx.ModelProto` that index a constant table.

    An input that reaches the indices of a Gather, directly or through Cast and reshaping, must stay
    below the length of the table's axis.
    """
    tables = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    origin = {value.name: value.name for value in model.graph.input if value.name not in tables}
    moves = {"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
    limits: dict[str, int] = {}
    for node in model.graph.node:
        if node.op_type in moves and node.input[0] in origin:
            origin[node.output[0]] = origin[node.input[0]]
        elif node.op_type == "Gather" and node.input[0] in tables and node.input[1] in origin:
            axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
            name, dims = origin[node.input[1]], tables[node.input[0]]
            limits[name] = min([dims[axis]] + ([limits[name]] if name in limits else []))
    return limits


@dataclass(frozen=True)
class _Generated:
    spec: TensorLike
    kind: str
    seed: int
    limit: int
    length: int | None = None

    def samples(self) -> Generator[Array]:
        dtype, shape = _dtype(self.spec), self.spec.shape
        rng = np.random.default_rng([self.seed, zlib.crc32(self.spec.name.encode())])
        while True:
            if self.kind == "zeros":
                yield np.zeros(shape, dtype)
            elif dtype.kind == "c":
                real, imaginary = rng.standard_normal((2, *shape))
                yield (real + 1j * imaginary).astype(dtype)
            elif is_float(dtype):
                yield rng.standard_normal(shape, np.float32).astype(dtype)
            elif dtype.kind in "iu" and dtype.itemsize > 2:
                yield rng.integers(0, max(self.limit, 1), shape).astype(dtype)
            elif dtype == np.bool_:
                yield rng.integers(0, 2, shape).astype(dtype)
            else:
                bounds = ml_dtypes.iinfo(dtype)  # type: ignore[no-untyped-call]
                yield rng.integers(int(bounds.min), int(bounds.max) + 1, shape).astype(dtype)


@dataclass(frozen=True)
class _InMemory:
    values: Array
    where: str

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.values.dtype

    def items(self, shape: tuple[int, ...], count: int) -> Generator[Array]:
        yield from self.values.reshape(count, *shape)


@dataclass(frozen=True)
class _Stored:
    """An array in a file or in memory, cut into samples."""

    spec: TensorLike
    array: StoredArray | _InMemory
    length: int
    normalization: images.Normalization | None

    def samples(self) -> Generator[Array]:
        dtype = _dtype(self.spec)
        for item in self.array.items(self.spec.shape, self.length):
            if self.normalization is not None:
                axis = images.layout_of(self.spec.shape, "").channel_axis
                yield self.normalization(item, axis).astype(dtype)
            else:
                values = item.view(dtype) if item.dtype.kind == "V" else item
                yield np.ascontiguousarray(values, dtype).reshape(self.spec.shape)


@dataclass(frozen=True)
class _Images:
    spec: TensorLike
    paths: tuple[Path, ...]
    layout: images.Layout
    normalization: images.Normalization | None

    @property
    def length(self) -> int:
        return len(self.paths)

    def samples(self) -> Generator[Array]:
        for path in self.paths:
            pixels = images.read(path, self.layout)
            if self.normalization is not None:
                pixels = self.normalization(pixels, self.layout.channel_axis)
            yield np.ascontiguousarray(pixels, _dtype(self.spec))


def _images(
    spec: TensorLike, path: Path, normalization: images.Normalization | None, note: Note
) -> _Images:
    dtype, where = _dtype(spec), f"input {spec.name!r}"
    if dtype != np.uint8 and not is_float(dtype):
        raise DataError(f"images do not fit {spec.dtype}", where=where)
    if not path.exists():
        raise DataError("no such file or folder", where=str(path))
    layout = images.layout_of(spec.shape, where)
    paths = images.find(path)
    note(
        f"{where}: {len(paths)} image{'s'[: len(paths) != 1]} resized bilinearly to "
        f"{layout.width}x{layout.height}, {layout.name}"
    )
    if normalization is None and dtype != np.uint8:
        note(f"{where}: pixels are 0..255; --normalize {spec.name}=127.5,127.5 would make it -1..1")
    return _Images(spec, paths, layout, normalization)


def _count(spec: TensorLike, array: StoredArray | _InMemory) -> int:
    """How many samples `array` stacks."""
    one, given = spec.shape, array.shape
    batch_is_one = one[:1] == (1,)
    if given and (given[1:] == one or (batch_is_one and given[1:] == one[1:])):
        count = given[0]
    elif given == one or (batch_is_one and given == one[1:]):
        count = 1
    else:
        stacked = ["N", *(one[1:] if batch_is_one else one)]
        raise DataError(
            f"shape {list(given)} does not fit input {spec.name!r} {list(one)}",
            where=array.where,
            hint=f"expected [{', '.join(map(str, stacked))}], samples stacked on axis 0",
        )
    if count == 0:
        raise DataError("holds no samples", where=array.where)
    return count


def _check_dtype(
    spec: TensorLike,
    array: StoredArray | _InMemory,
    rules: Mapping[str, images.Normalization],
) -> images.Normalization | None:
    """The normalization to apply; `DataError` where the dtype does not fit without one."""
    wanted, given = _dtype(spec), array.dtype.newbyteorder("=")
    if given == np.uint8 and spec.name in rules:
        images.layout_of(spec.shape, f"--normalize {spec.name}")
        return rules[spec.name]
    opaque = given.kind == "V" and given.names is None and wanted.kind == "V"
    pixels = f", or --normalize {spec.name}=MEAN,STD" if given == np.uint8 else ""
    if given != wanted and not (opaque and given.itemsize == wanted.itemsize):
        raise DataError(
            f"dtype {given} does not fit input {spec.name!r} {spec.dtype}",
            where=array.where,
            hint=f"convert it on purpose: array.astype({spec.dtype!r})" + pixels,
        )
    return None


def _dtype(spec: TensorLike) -> np.dtype[Any]:
    try:
        return dtype_of(spec.dtype)
    except (AttributeError, TypeError) as error:
        raise DataError(
            f"{spec.dtype} inputs have no arrays", where=f"input {spec.name!r}"
        ) from error


def _non_finite(array: Array) -> str:
    if not is_float(array.dtype):
        return ""
    nan, inf = int(np.isnan(array).sum()), int(np.isinf(array).sum())
    return f"{nan} NaN and {inf} infinite of {array.size} values" if nan or inf else ""


def _find(by_name: Mapping[str, TensorLike], name: str, where: str) -> TensorLike:
    if name not in by_name:
        raise DataError(
            f"the model has no input {name!r}", where=where, hint="inputs: " + ", ".join(by_name)
        )
    return by_name[name]


def _split_name(text: str, by_name: Mapping[str, TensorLike]) -> tuple[str | None, str]:
    """("x", "photo.npy") of "x=photo.npy"; input names may themselves contain "="."""
    for name in sorted(by_name, key=len, reverse=True):
        if text.startswith(f"{name}="):
            return name, text[len(name) + 1 :]
    if "=" in text and not Path(text).exists():
        _find(by_name, text.partition("=")[0], text)
    return None, text


def _only(specs: Sequence[TensorLike], text: str) -> TensorLike:
    if len(specs) != 1:
        names = ", ".join(spec.name for spec in specs)
        raise DataError(
            "which input is this for?", where=text, hint=f"NAME={text}, one of: {names}"
        )
    return specs[0]


def _parse_normalize(
    text: str, by_name: Mapping[str, TensorLike]
) -> tuple[str, images.Normalization]:
    name, rest = _split_name(text, by_name)
    try:
        values = tuple(float(part) for part in rest.split(","))
    except ValueError:
        values = ()
    half = len(values) // 2
    if name is None or half == 0 or len(values) % 2 or 0 in values[half:]:
        raise UsageError(
            f"{text!r} is not NAME=MEAN,STD",
            where="--normalize",
            hint="in units of 8-bit pixels, such as x=127.5,127.5; per channel: means, then stds",
        )
    if not is_float(_dtype(by_name[name])):
        raise DataError("only float inputs can be normalized", where=f"--normalize {text}")
    channels = images.layout_of(by_name[name].shape, f"--normalize {text}").channels
    if half not in (1, channels):
        raise DataError(f"{half} means for {channels} channels", where=f"--normalize {text}")
    return name, images.Normalization(values[:half], values[half:])
