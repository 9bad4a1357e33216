"""What a cubin says of its kernels: an ELF file that NVIDIA's tools write, read here by ourselves.

Sections `.text.NAME` hold a kernel's instructions, `.nv.shared.NAME` takes a block's static shared
memory. The section `.nv.info` lists attributes, 4 bytes of head (format, attribute, size) and a
value: pairs of a symbol and, of attribute 0x2f, a thread's registers, of 0x11 its frame. What a
kernel spills lies in its frame.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from edgec.errors import LoweringError

_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_SYMTAB = 2
_FRAME_SIZE = 0x11
_REGISTERS = 0x2F
_VALUE_FORMAT = 4
_NEW_ABI = 8


@dataclass(frozen=True)
class KernelFacts:
    """Of one kernel: registers a thread, static shared memory a block, frame bytes a thread (what
    it spills, and arrays it could not keep in registers), bytes of instructions."""

    name: str
    registers: int
    shared_bytes: int
    frame_bytes: int
    code_bytes: int


def read_cubin(cubin: bytes) -> list[KernelFacts]:
    """The kernels of a cubin, by name.

    Raises:
        LoweringError: it is not the ELF file of a GPU.
    """
    if cubin[:5] != b"\x7fELF\x02" or struct.unpack_from("<H", cubin, 18)[0] != 190:
        raise LoweringError("NVRTC's output is not the ELF file of a GPU")
    (table,) = struct.unpack_from("<Q", cubin, 0x28)
    count, names_index = struct.unpack_from("<HH", cubin, 0x3C)
    sections = [_SECTION.unpack_from(cubin, table + i * _SECTION.size) for i in range(count)]
    names = [_text(cubin, sections[names_index][4] + section[0]) for section in sections]
    noted = _attributes(cubin, sections, names)
    shared = {
        name.removeprefix(".nv.shared."): section[5]
        for name, section in zip(names, sections, strict=True)
        if name.startswith(".nv.shared.")
    }
    found = [
        KernelFacts(
            name=kernel,
            registers=noted.get((_REGISTERS, kernel), 0),
            shared_bytes=shared.get(kernel, 0),
            frame_bytes=noted.get((_FRAME_SIZE, kernel), 0),
            code_bytes=section[5],
        )
        for name, section in zip(names, sections, strict=True)
        if (kernel := name.removeprefix(".text.")) != name
    ]
    return sorted(found, key=lambda facts: facts.name)


def architecture(cubin: bytes) -> int:
    """The compute capability that the code is for, 87 of sm_87.

    It stands in e_flags: in its low byte, or from CUDA 13 on in the byte above.
    """
    flags = int(struct.unpack_from("<I", cubin, 0x30)[0])
    return flags >> 8 & 0xFF if cubin[8] >= _NEW_ABI else flags & 0xFF


def _attributes(
    cubin: bytes, sections: list[tuple[int, ...]], names: list[str]
) -> dict[tuple[int, str], int]:
    """The attributes of `.nv.info` that are a number of a symbol, by attribute and symbol."""
    symbols = next((s for s in sections if s[1] == _SYMTAB), None)
    info = next((s for s, name in zip(sections, names, strict=True) if name == ".nv.info"), None)
    if symbols is None or info is None:
        return {}
    texts = sections[symbols[6]][4]
    known = [
        _text(cubin, texts + _SYMBOL.unpack_from(cubin, symbols[4] + i * _SYMBOL.size)[0])
        for i in range(symbols[5] // _SYMBOL.size)
    ]
    found: dict[tuple[int, str], int] = {}
    at, end = info[4], info[4] + info[5]
    while at + 4 <= end:
        form, attribute, size = struct.unpack_from("<BBH", cubin, at)
        at += 4
        if form == _VALUE_FORMAT:
            if size == 8:
                symbol, number = struct.unpack_from("<II", cubin, at)
                found[attribute, known[symbol]] = number
            at += size
    return found


def _text(data: bytes, at: int) -> str:
    return data[at : data.index(b"\0", at)].decode()
