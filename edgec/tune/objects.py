"""Reading relocatable ELF64 files as LLVM writes them for a kernel."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from edgec.errors import LoweringError

_SECTION = struct.Struct("<IIQQQQIIQQ")  # name type flags addr offset size link info align entsize
_SYMBOL = struct.Struct("<IBBHQQ")  # name info other shndx value size
_RELOCATION = struct.Struct("<QQq")  # offset (symbol << 32 | type) addend

_SYMTAB, _RELA, _NOBITS = 2, 4, 8
_WRITE, _ALLOC = 1, 2
_RESERVED = 0xFF00
_MACHINES = {62: "x86_64", 183: "aarch64"}


@dataclass(frozen=True)
class Section:
    """What a section brings into memory."""

    number: int
    writable: bool
    alignment: int
    data: bytes


@dataclass(frozen=True)
class Symbol:
    """Defined at `value` in section `section`, or elsewhere where that is 0."""

    name: str
    section: int
    value: int


@dataclass(frozen=True)
class Relocation:
    """At `offset` of section `section` goes what `kind` makes of a symbol and `addend`."""

    section: int
    offset: int
    kind: int
    symbol: int
    addend: int


@dataclass(frozen=True)
class Object:
    """The sections that are loaded, and all that refers to them; symbols by their number."""

    machine: str
    sections: tuple[Section, ...]
    symbols: tuple[Symbol, ...]
    relocations: tuple[Relocation, ...]

    @staticmethod
    def of(data: bytes) -> Object:
        """Read an object; LoweringError where it is none for x86-64 or AArch64.

        Unwind tables are left out.
        """
        try:
            return _read(data)
        except (struct.error, IndexError, ValueError) as error:
            raise LoweringError(f"the kernel's object is damaged: {error}") from error


def _read(data: bytes) -> Object:
    kind, machine = struct.unpack_from("<HH", data, 16)
    if data[:6] != b"\x7fELF\x02\x01" or kind != 1 or machine not in _MACHINES:
        raise LoweringError("the kernel's object is no relocatable file for x86-64 or AArch64")
    (table,) = struct.unpack_from("<Q", data, 0x28)
    count, names = struct.unpack_from("<HH", data, 0x3C)
    headers = [_SECTION.unpack_from(data, table + i * _SECTION.size) for i in range(count)]

    def text(strings: int, offset: int) -> str:
        start = headers[strings][4] + offset
        return data[start : data.index(0, start)].decode()

    sections = [
        Section(
            number,
            bool(flags & _WRITE),
            max(alignment, 1),
            bytes(size) if kind == _NOBITS else data[offset : offset + size],
        )
        for number, (name, kind, flags, _, offset, size, _, _, alignment, _) in enumerate(headers)
        if flags & _ALLOC and size and text(names, name) != ".eh_frame"
    ]
    loaded = {section.number for section in sections}
    symbols: list[Symbol] = []
    relocations: list[Relocation] = []
    for _, kind, _, _, offset, size, link, info, _, _ in headers:
        if kind == _SYMTAB:
            for at in range(offset, offset + size, _SYMBOL.size):
                name, _, _, section, value, _ = _SYMBOL.unpack_from(data, at)
                if section >= _RESERVED:
                    section = 0
                symbols.append(Symbol(text(link, name), section, value))
        elif kind == _RELA and info in loaded:
            for at in range(offset, offset + size, _RELOCATION.size):
                where, target, addend = _RELOCATION.unpack_from(data, at)
                relocations.append(
                    Relocation(info, where, target & 0xFFFFFFFF, target >> 32, addend)
                )
    return Object(_MACHINES[machine], tuple(sections), tuple(symbols), tuple(relocations))
