"""Model files and the tensor data kept beside them, read and written.

A model names the files of its data, and its author may be hostile. Only regular files below the
model's own folder are read, component by component and through no link; hard links are refused,
since another name of a secret is the secret. Offsets and lengths are checked against the file,
lengths against the tensor, and the sum against the files, before anything is read.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx
from google.protobuf.message import (  # type: ignore[import-untyped]
    DecodeError,
    EncodeError,
)
from onnx import TensorProto, numpy_helper

from edgec.errors import ModelError
from edgec.limits import graphs
from edgec.tensors import packed_bytes

EXTERNAL_BYTES = 1_500_000_000
"""Of tensors, above which a model is written with external data."""

_SLACK = 1 << 20
_LARGE_BYTES = 4096


def read_model(
    source: str | os.PathLike[str] | onnx.ModelProto,
) -> tuple[onnx.ModelProto, Path | None]:
    """The model and the folder of its external data (None when it came from memory).

    Raises ModelError when `source` cannot be read or is no protobuf of a model.
    """
    if isinstance(source, onnx.ModelProto):
        return source, None
    path = Path(source)
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ModelError(f"cannot be read: {reason}", where=str(path)) from error
    try:
        return parse_model(data), path.parent
    except ModelError as error:
        raise ModelError(error.what, where=str(path), hint=error.hint) from error


def parse_model(data: bytes) -> onnx.ModelProto:
    """The ModelProto in `data`; ModelError when there is none."""
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise ModelError(
            "not an ONNX model, or a truncated one", hint="expected a protobuf ModelProto"
        ) from error
    return model


def load_external(model: onnx.ModelProto, folder: Path | None) -> None:
    """Read all external tensors of `model` into their `raw_data`.

    `folder` holds the model file; None when the model came from memory, and nothing may be read.
    Raises ModelError for anything that is not plain data below `folder`.
    """
    tensors = [t for t in all_tensors(model) if t.data_location == TensorProto.EXTERNAL]
    if not tensors:
        return
    if folder is None:
        raise ModelError(
            f"tensor '{tensors[0].name}' lies in a file, but the model was given in memory",
            hint="pass the path of the model, or load its data first",
        )
    wanted = 0
    files: dict[str, int] = {}
    for tensor in tensors:
        where = f"tensor '{tensor.name}'"
        entries = {e.key: e.value for e in tensor.external_data}
        location = entries.get("location", "")
        offset = _number(entries.get("offset", "0"), "offset", where)
        if any(d < 0 for d in tensor.dims) or tensor.data_type == TensorProto.STRING:
            raise ModelError("external data needs known dims and no strings", where=where)
        length = packed_bytes(tensor.data_type, math.prod(tensor.dims))
        if "length" in entries and _number(entries["length"], "length", where) != length:
            raise ModelError(
                f"external length {entries['length'][:32]} is not the {length} bytes of the tensor",
                where=where,
            )
        descriptor = _open_below(folder, location, where)
        with os.fdopen(descriptor, "rb") as file:
            size = os.fstat(descriptor).st_size
            if offset + length > size:
                raise ModelError(
                    f"external data {offset}+{length} reaches beyond the {size} bytes of "
                    f"{location!r}",
                    where=where,
                )
            files[location] = size
            wanted += length
            if wanted > 2 * sum(files.values()) + _SLACK:
                raise ModelError("tensors share external data many times over", where=where)
            file.seek(offset)
            tensor.raw_data = file.read(length)
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")


def all_tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Every tensor of a model: initializers and attributes, in subgraphs and functions too."""
    yield from _of_graph(model.graph)
    for function in model.functions:
        yield from _of_nodes(function.node)


def _of_graph(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _of_nodes(graph.node)


def _of_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("g"):
                yield from _of_graph(attribute.g)
            for graph in attribute.graphs:
                yield from _of_graph(graph)


def _number(text: str, key: str, where: str) -> int:
    if len(text) > 19 or not (text.isascii() and text.isdigit()):
        raise ModelError(f"external {key} {text[:32]!r} is not a size in bytes", where=where)
    return int(text)


def _open_below(folder: Path, location: str, where: str) -> int:
    """A descriptor of the regular file `location` below `folder`; no link is followed."""

    def refuse(why: str) -> ModelError:
        return ModelError(
            f"external data {location[:80]!r} {why}",
            where=where,
            hint="external data must be plain files in the folder of the model",
        )

    parts = location.replace("\\", "/").split("/")
    parts = [part for part in parts if part != "."]
    if not parts or "\0" in location or location[:1] in ("", "/", "\\") or ":" in parts[0]:
        raise refuse("is not a relative path")
    if any(part in ("", "..") for part in parts):
        raise refuse("leaves the folder of the model")
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    current = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for i, part in enumerate(parts):
            last = i == len(parts) - 1
            step = flags if last else flags | os.O_DIRECTORY
            following = os.open(part, step, dir_fd=current)
            os.close(current)
            current = following
        state = os.fstat(current)
        if not stat.S_ISREG(state.st_mode):
            raise refuse("is not a regular file")
        if state.st_nlink > 1:
            raise refuse("has more than one name (a hard link)")
    except OSError as error:
        os.close(current)
        raise refuse(f"cannot be opened: {error.strerror}, or it is a link") from error
    except ModelError:
        os.close(current)
        raise
    return current


def save_model(model: onnx.ModelProto, path: Path, *, external: bool = False) -> None:
    """Write `model` to `path`, atomically; with `external`, or above `EXTERNAL_BYTES`, its large
    tensors go to `path`.data. `model` is changed then. Raises ModelError when it cannot be written.
    """
    if external or sum(map(_data_bytes, _initializers(model))) > EXTERNAL_BYTES:
        store_external(model, path.with_name(path.name + ".data"))
    try:
        data = model.SerializeToString(deterministic=True)
    except EncodeError as error:
        raise ModelError(f"the model cannot be serialized: {error}") from error
    write_file(path, [data])


def _initializers(model: onnx.ModelProto) -> Iterator[TensorProto]:
    for graph in graphs(model.graph):
        yield from graph.initializer


def _data_bytes(tensor: TensorProto) -> int:
    """Of the numbers of `tensor`; 0 of strings, which cannot be stored elsewhere."""
    if tensor.data_type == TensorProto.STRING:
        return 0
    return packed_bytes(tensor.data_type, math.prod(tensor.dims))


def store_external(model: onnx.ModelProto, path: Path) -> None:
    """Move the large initializers of `model` into the file `path`, in place; strings stay."""
    chunks: list[bytes] = []
    offset = 0
    for tensor in _initializers(model):
        if _data_bytes(tensor) < _LARGE_BYTES:
            continue
        if not tensor.HasField("raw_data"):
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
        data = tensor.raw_data
        padding = -offset % 64
        chunks += [bytes(padding), data]
        offset += padding
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", path.name), ("offset", offset), ("length", len(data))):
            tensor.external_data.add(key=key, value=str(value))
        offset += len(data)
    write_file(path, chunks)


def write_file(path: Path, chunks: Iterable[bytes]) -> None:
    """Write `path` whole or not at all. Raises ModelError when it cannot be written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.writelines(chunks)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise ModelError(f"cannot be written: {error.strerror}", where=str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)
