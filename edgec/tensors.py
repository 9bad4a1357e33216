"""The nodes and tensors of a graph: onnx-graphsurgeon's classes, made safe to use.

The subclasses here compare by identity, can be hashed, and carry what ONNX lets a model carry.
graphsurgeon's own compare by name, drop metadata and doc strings, and unpack 4-bit constants that
were read. Passes may rely on these rules:

* a constant is a `Constant`, whether the file had an initializer or a Constant node;
* a missing optional input or output is a `Variable` named "";
* every tensor name is unique in the whole model, subgraphs included;
* dtypes are numpy dtypes (`ml_dtypes` for bfloat16, float8, int4, ...); shapes are tuples of int,
  or of str and None where a dimension is unknown, and None where even the rank is.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import TensorProto, helper, numpy_helper

from edgec.errors import ModelError
from edgec.limits import MAX_RANK

Shape = tuple[int | str | None, ...]
Metadata = dict[str, str]


class Variable(gs.Variable):  # type: ignore[misc]
    """A tensor known only when the model runs.

    `value_type` holds the ONNX type of what is not a plain tensor (sequence, optional, ...);
    `dtype` and `shape` are then None. `info` is the declaration of a graph input or output: its
    doc string, metadata and denotations are written back.
    """

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __init__(
        self, name: str, dtype: np.dtype[Any] | None = None, shape: Shape | None = None
    ) -> None:
        super().__init__(name, dtype, None if shape is None else tuple(shape))
        self.value_type: onnx.TypeProto | None = None
        self.info: onnx.ValueInfoProto | None = None


class Constant(gs.Constant):  # type: ignore[misc]
    """A tensor known now. `values` is a read-only array, decoded on first use.

    A constant that came from a file is written back exactly as it was until `values` is assigned.
    """

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __init__(self, name: str, values: np.ndarray[Any, Any] | TensorProto) -> None:
        super().__init__(name, np.empty(0))
        self.proto: TensorProto | None = None
        if isinstance(values, TensorProto):
            check_tensor(values, name)
            self.proto = values
            self._array: np.ndarray[Any, Any] | None = None
        else:
            self.values = values

    @property
    def values(self) -> np.ndarray[Any, Any]:
        if self._array is None:
            array = numpy_helper.to_array(self.proto)
            array.flags.writeable = False
            self._array = array
        return self._array

    @values.setter
    def values(self, values: np.ndarray[Any, Any]) -> None:
        array = np.asarray(values)
        if array.flags.writeable:
            array = array.copy()
            array.flags.writeable = False
        self._array = array
        self.proto = None

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.proto.dims) if self.proto is not None else self.values.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return numpy_dtype(self.proto.data_type) if self.proto is not None else self.values.dtype

    def twin(self) -> Constant:
        """A constant of the same name that shares the data."""
        return Constant(self.name, self.values if self.proto is None else self.proto)

    @property
    def nbytes(self) -> int:
        """Size in the file, in bytes: two 4-bit numbers are one."""
        return packed_bytes(onnx_dtype(self.dtype), math.prod(self.shape))

    def to_proto(self) -> TensorProto:
        """A new TensorProto named as this tensor."""
        proto = TensorProto()
        proto.CopyFrom(numpy_helper.from_array(self.values) if self.proto is None else self.proto)
        proto.name = self.name
        return proto


class Node(gs.Node):  # type: ignore[misc]
    """One operation. `owner` is the graph or subgraph whose `nodes` hold it."""

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __init__(
        self,
        op: str,
        name: str = "",
        attrs: Mapping[str, Any] | None = None,
        inputs: Iterable[gs.Tensor] = (),
        outputs: Iterable[gs.Tensor] = (),
        domain: str = "",
        *,
        doc_string: str = "",
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(op, name, dict(attrs or {}), list(inputs), list(outputs), domain)
        self.doc_string = doc_string
        self.metadata: Metadata = dict(metadata or {})
        self.owner: gs.Graph | None = None

    def __str__(self) -> str:
        return f"node '{self.name}' ({self.op})" if self.name else f"a {self.op} node"


class Names(set[str]):
    """Names that are taken."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        super().__init__(names)
        self._last: dict[str, int] = {}

    def unique(self, hint: str) -> str:
        """`hint`, or the first of `hint_1`, `hint_2`, ... that is not taken yet, and now is."""
        name, n = hint, self._last.get(hint, 0)
        while name in self:
            n += 1
            name = f"{hint}_{n}"
        self._last[hint] = n
        self.add(name)
        return name


@functools.cache
def numpy_dtype(code: int) -> np.dtype[Any]:
    """The numpy dtype of an ONNX element type code."""
    try:
        dtype: np.dtype[Any] = np.dtype(helper.tensor_dtype_to_np_dtype(code))
    except (KeyError, TypeError) as error:
        raise ModelError(f"unknown element type {code}") from error
    return dtype


@functools.cache
def onnx_dtype(dtype: np.dtype[Any]) -> int:
    """The ONNX element type code of a numpy dtype."""
    if np.dtype(dtype).kind in "OUST":
        return int(TensorProto.STRING)
    try:
        return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"ONNX has no element type for {dtype}") from error


_BITS = {
    **dict.fromkeys((TensorProto.INT4, TensorProto.UINT4, TensorProto.FLOAT4E2M1), 4),
    **dict.fromkeys((TensorProto.INT2, TensorProto.UINT2), 2),
}


def packed_bytes(code: int, elements: int) -> int:
    """Bytes that `elements` of an ONNX element type take in `raw_data`."""
    bits = _BITS.get(code) or 8 * numpy_dtype(code).itemsize
    return (elements * bits + 7) // 8


def check_tensor(tensor: TensorProto, name: str = "") -> None:
    """Raise ModelError unless the dims, element type and amount of data of `tensor` agree."""
    where = f"tensor '{name or tensor.name}'"
    if any(d < 0 for d in tensor.dims):
        raise ModelError(f"negative dimension in {list(tensor.dims)}", where=where)
    if len(tensor.dims) > MAX_RANK:
        raise ModelError(f"rank {len(tensor.dims)}; {MAX_RANK} is the most", where=where)
    if tensor.HasField("segment"):
        raise ModelError("a tensor in segments cannot be read", where=where)
    code = tensor.data_type
    elements = math.prod(tensor.dims)
    if code == TensorProto.STRING:
        found, expected = len(tensor.string_data), elements
    elif tensor.HasField("raw_data"):
        found, expected = len(tensor.raw_data), packed_bytes(code, elements)
    else:
        numpy_dtype(code)
        found, expected = _typed_elements(tensor), elements
        if code in _BITS:
            expected = packed_bytes(code, elements)
    if found != expected:
        unit = "bytes" if tensor.HasField("raw_data") else "elements"
        raise ModelError(
            f"dims {list(tensor.dims)} need {expected} {unit} of data, the file has {found}",
            where=where,
        )


def _typed_elements(tensor: TensorProto) -> int:
    field = helper.tensor_dtype_to_field(tensor.data_type)
    count = len(getattr(tensor, field))
    complex_numbers = tensor.data_type in (TensorProto.COMPLEX64, TensorProto.COMPLEX128)
    return count // 2 if complex_numbers else count


def metadata_of(proto: Any) -> Metadata:
    """`metadata_props` of any proto that has them."""
    return {entry.key: entry.value for entry in proto.metadata_props}


def add_metadata(proto: Any, metadata: Mapping[str, str]) -> None:
    """Append `metadata` to the `metadata_props` of `proto`."""
    for key, value in metadata.items():
        proto.metadata_props.add(key=key, value=value)


def set_type(tensor: Variable, value_type: onnx.TypeProto) -> None:
    """Take dtype and shape of `tensor` from an ONNX type."""
    kind = value_type.WhichOneof("value")
    if kind != "tensor_type":
        tensor.value_type = value_type if kind else None
        return
    if value_type.tensor_type.elem_type:
        tensor.dtype = numpy_dtype(value_type.tensor_type.elem_type)
    if value_type.tensor_type.HasField("shape"):
        tensor.shape = tuple(
            d.dim_value if d.HasField("dim_value") else d.dim_param or None
            for d in value_type.tensor_type.shape.dim
        )


def subgraphs(graph: gs.Graph) -> Iterator[gs.Graph]:
    """`graph` and every graph inside it, outermost first."""
    yield graph
    for node in graph.nodes:
        for value in node.attrs.values():
            if isinstance(value, gs.Graph):
                yield from subgraphs(value)


def is_static(tensor: gs.Tensor) -> bool:
    """Whether every dimension of `tensor` is a number."""
    return tensor.shape is not None and all(isinstance(d, int) for d in tensor.shape)


def inner_graphs(node: Node) -> Iterator[gs.Graph]:
    """The subgraphs of `node`, nested ones included."""
    for value in node.attrs.values():
        if isinstance(value, gs.Graph):
            yield from subgraphs(value)


def inner_nodes(node: Node) -> Iterator[Node]:
    """The nodes of all subgraphs of `node`."""
    for graph in inner_graphs(node):
        yield from graph.nodes
