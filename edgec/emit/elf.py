"""The two things a static library needs that no linker of ours does: hidden symbols, and an index.

Relocatable ELF64 little-endian files only, which is what edgec's targets have.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from edgec.errors import LoweringError

_SECTION = struct.Struct("<IIQQQQIIQQ")  # name type flags addr offset size link info align entsize
_SYMBOL = struct.Struct("<IBBHQQ")  # name info other shndx value size
_RELOCATION = struct.Struct("<QQq")  # offset (symbol << 32 | type) addend

_PROGBITS, _SYMTAB, _RELA, _REL, _GROUP, _SYMTAB_SHNDX = 1, 2, 4, 9, 17, 18
_LLVM_ADDRSIG = 0x6FFF4C03
_EXCLUDE = 0x80000000


def keep_global(relocatable: bytes, names: frozenset[str]) -> bytes:
    """Make every symbol local that the object defines, except `names`.

    Undefined symbols stay. Local symbols must come first in a symbol table, so the table is sorted
    again and every relocation renumbered.

    Raises:
        LoweringError: not a relocatable ELF64 file, or one with features that no kernel has.
    """
    data = bytearray(relocatable)
    if data[:6] != b"\x7fELF\x02\x01" or struct.unpack_from("<H", data, 16)[0] != 1:
        raise LoweringError("the linker's output is not a relocatable ELF64 file")
    (table,) = struct.unpack_from("<Q", data, 0x28)
    (count,) = struct.unpack_from("<H", data, 0x3C)
    sections = [_SECTION.unpack_from(data, table + i * _SECTION.size) for i in range(count)]
    tables = [i for i, section in enumerate(sections) if section[1] == _SYMTAB]
    if len(tables) != 1 or any(section[1] in (_REL, _SYMTAB_SHNDX) for section in sections):
        raise LoweringError("the linker's output has symbol tables of an unknown form")

    (symtab,) = tables
    _, _, _, _, start, size, strings, _, _, _ = sections[symtab]
    text = sections[strings][4]
    symbols = [_SYMBOL.unpack_from(data, start + at) for at in range(0, size, _SYMBOL.size)]
    for i, (name, info, other, section, value, length) in enumerate(symbols):
        label = bytes(data[text + name : data.index(0, text + name)]).decode(errors="replace")
        if section != 0 and label not in names:
            symbols[i] = (name, info & 15, other & ~3, section, value, length)
    order = sorted(range(len(symbols)), key=lambda i: symbols[i][1] >> 4 != 0)
    renumbered = {old: new for new, old in enumerate(order)}
    for new, old in enumerate(order):
        _SYMBOL.pack_into(data, start + new * _SYMBOL.size, *symbols[old])
    first_global = sum(symbol[1] >> 4 == 0 for symbol in symbols)
    struct.pack_into("<I", data, table + symtab * _SECTION.size + 44, first_global)

    for i, section in enumerate(sections):
        header = table + i * _SECTION.size
        _, kind, flags, _, offset, size, link, info, _, _ = section
        if kind == _RELA and link == symtab:
            for at in range(offset, offset + size, _RELOCATION.size):
                where, symbol, addend = _RELOCATION.unpack_from(data, at)
                symbol = renumbered[symbol >> 32] << 32 | symbol & 0xFFFFFFFF
                _RELOCATION.pack_into(data, at, where, symbol, addend)
        elif kind == _GROUP:
            struct.pack_into("<I", data, header + 44, renumbered[info])
        elif kind == _LLVM_ADDRSIG:  # lists symbols by number, as a hint that may be dropped
            struct.pack_into("<IQ", data, header + 4, _PROGBITS, flags | _EXCLUDE)
    return bytes(data)


def archive(member: str, content: bytes, symbols: Sequence[str]) -> bytes:
    """A static library of one object file, with the index that linkers look `symbols` up in."""
    if len(member) > 15:
        raise ValueError("the member's name is too long for the plain format")
    names = b"".join(name.encode() + b"\0" for name in symbols)
    names += b"\0" * (len(names) % 2)
    header = 8 + 60 + 4 + 4 * len(symbols) + len(names)
    index = struct.pack(f">{1 + len(symbols)}I", len(symbols), *[header] * len(symbols)) + names
    return (
        b"!<arch>\n"
        + _member_header("/", len(index))
        + index
        + _member_header(f"{member}/", len(content))
        + content
        + b"\n" * (len(content) % 2)
    )


def _member_header(name: str, size: int) -> bytes:
    return f"{name:<16}{0:<12}{0:<6}{0:<6}{0o644:<8o}{size:<10}`\n".encode()
