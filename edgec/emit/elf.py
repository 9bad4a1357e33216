"""The two things a static library needs that no linker of ours does: hidden symbols, and an index.

Relocatable little-endian ELF files of 64 or 32 bits, which is what edgec's targets have.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from edgec.errors import LoweringError

_PROGBITS, _SYMTAB, _RELA, _REL, _GROUP, _SYMTAB_SHNDX = 1, 2, 4, 9, 17, 18
_LLVM_ADDRSIG = 0x6FFF4C03
_EXCLUDE = 0x80000000


@dataclass(frozen=True)
class _Class:
    """How files of one class are laid out.

    `section` has name, type, flags, address, offset, size, link, info, alignment, entry size; a
    relocation's second word has the symbol's number from bit `symbol_bit` on.
    """

    table_at: tuple[int, str]
    count_at: int
    section: struct.Struct
    info_at: int
    symbol: struct.Struct
    symbol_fields: tuple[str, ...]
    relocations: dict[int, struct.Struct]
    symbol_bit: int


_CLASSES = {
    b"\x7fELF\x01\x01": _Class(
        table_at=(0x20, "<I"),
        count_at=0x30,
        section=struct.Struct("<IIIIIIIIII"),
        info_at=28,
        symbol=struct.Struct("<IIIBBH"),
        symbol_fields=("name", "value", "size", "info", "other", "section"),
        relocations={_RELA: struct.Struct("<IIi"), _REL: struct.Struct("<II")},
        symbol_bit=8,
    ),
    b"\x7fELF\x02\x01": _Class(
        table_at=(0x28, "<Q"),
        count_at=0x3C,
        section=struct.Struct("<IIQQQQIIQQ"),
        info_at=44,
        symbol=struct.Struct("<IBBHQQ"),
        symbol_fields=("name", "info", "other", "section", "value", "size"),
        relocations={_RELA: struct.Struct("<QQq"), _REL: struct.Struct("<QQ")},
        symbol_bit=32,
    ),
}


def keep_global(relocatable: bytes, names: frozenset[str]) -> bytes:
    """Make every symbol local that the object defines, except `names`.

    Undefined symbols stay. Local symbols must come first in a symbol table, so the table is sorted
    again and every relocation renumbered.

    Raises:
        LoweringError: not a relocatable ELF file, or one with features that no kernel has.
    """
    data = bytearray(relocatable)
    form = _CLASSES.get(bytes(data[:6]))
    if form is None or struct.unpack_from("<H", data, 16)[0] != 1:
        raise LoweringError("the linker's output is not a relocatable ELF file")
    at, word = form.table_at
    (table,) = struct.unpack_from(word, data, at)
    (count,) = struct.unpack_from("<H", data, form.count_at)
    headers = [table + i * form.section.size for i in range(count)]
    sections = [form.section.unpack_from(data, header) for header in headers]
    tables = [i for i, section in enumerate(sections) if section[1] == _SYMTAB]
    if len(tables) != 1 or any(section[1] == _SYMTAB_SHNDX for section in sections):
        raise LoweringError("the linker's output has symbol tables of an unknown form")

    (symtab,) = tables
    _, _, _, _, start, size, strings, *_ = sections[symtab]
    renumbered, first_global = _sort_symbols(data, form, (start, size), sections[strings][4], names)
    struct.pack_into("<I", data, headers[symtab] + form.info_at, first_global)

    for header, (_, kind, flags, _, offset, size, link, info, *_) in zip(
        headers, sections, strict=True
    ):
        if kind in form.relocations and link == symtab:
            entry = form.relocations[kind]
            below = (1 << form.symbol_bit) - 1
            for at in range(offset, offset + size, entry.size):
                where, symbol, *addend = entry.unpack_from(data, at)
                moved = renumbered[symbol >> form.symbol_bit] << form.symbol_bit | symbol & below
                entry.pack_into(data, at, where, moved, *addend)
        elif kind == _GROUP:
            struct.pack_into("<I", data, header + form.info_at, renumbered[info])
        elif kind == _LLVM_ADDRSIG:  # lists symbols by number, as a hint that may be dropped
            struct.pack_into("<II", data, header + 4, _PROGBITS, flags | _EXCLUDE)
    return bytes(data)


def _sort_symbols(
    data: bytearray, form: _Class, where: tuple[int, int], text: int, names: frozenset[str]
) -> tuple[dict[int, int], int]:
    """Make symbols local and put local ones first; their new numbers, and the first global one."""
    start, size = where
    symbols = []
    for at in range(start, start + size, form.symbol.size):
        symbol = dict(zip(form.symbol_fields, form.symbol.unpack_from(data, at), strict=True))
        name = text + symbol["name"]
        label = bytes(data[name : data.index(0, name)]).decode(errors="replace")
        if symbol["section"] != 0 and label not in names:
            symbol["info"] &= 15
            symbol["other"] &= ~3
        symbols.append(symbol)
    order = sorted(range(len(symbols)), key=lambda i: symbols[i]["info"] >> 4 != 0)
    for new, old in enumerate(order):
        form.symbol.pack_into(data, start + new * form.symbol.size, *symbols[old].values())
    local = sum(symbol["info"] >> 4 == 0 for symbol in symbols)
    return {old: new for new, old in enumerate(order)}, local


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
