"""A kernel for a GPU between compilation and linking: its code, and the launches that run it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from edgec.emit.cuda_cubin import KernelFacts, read_cubin


@dataclass(frozen=True)
class Pointer:
    """An argument of a launch: parameter `param` of the kernel, or where that is None, the byte
    `offset` of its scratch memory."""

    param: int | None
    offset: int = 0


@dataclass(frozen=True)
class Launch:
    """A function of the kernel's source, its grid and block, and its arguments."""

    function: str
    grid: tuple[int, ...]
    block: tuple[int, ...]
    arguments: tuple[Pointer, ...]


@dataclass(frozen=True)
class CudaKernel:
    """CUDA C, the machine code and PTX compiled from it, the launches that run it, and the scratch
    memory in bytes they share."""

    source: str
    launches: tuple[Launch, ...]
    scratch_bytes: int
    cubin: bytes = b""
    ptx: bytes = b""

    def facts(self) -> list[KernelFacts]:
        """What the machine code says of its functions."""
        return read_cubin(self.cubin)


def pack(kernel: CudaKernel) -> bytes:
    """As bytes, for `unpack`."""
    header = asdict(kernel)
    blobs = [header.pop("source").encode(), header.pop("cubin"), header.pop("ptx")]
    text = json.dumps(header | {"sizes": [len(blob) for blob in blobs]}).encode()
    return b"".join([len(text).to_bytes(8, "little"), text, *blobs])


def unpack(data: bytes) -> CudaKernel:
    """The kernel that `pack` made `data` of."""
    at = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:at])
    blobs = []
    for size in header["sizes"]:
        blobs.append(data[at : at + size])
        at += size
    source, cubin, ptx = blobs
    launches = tuple(map(_launch, header["launches"]))
    return CudaKernel(source.decode(), launches, header["scratch_bytes"], cubin, ptx)


def _launch(facts: Mapping[str, Any]) -> Launch:
    arguments = tuple(Pointer(**pointer) for pointer in facts["arguments"])
    return Launch(facts["function"], tuple(facts["grid"]), tuple(facts["block"]), arguments)
