"""What the header and the tables of an ELF file say, read with nothing but `struct`."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

EM_ARM, EM_X86_64, EM_AARCH64 = 40, 62, 183
HARD_FLOAT = 0x400
"""EF_ARM_ABI_FLOAT_HARD, in the header's flags."""


@dataclass(frozen=True)
class Elf:
    """`bits` is 32 or 64, `machine` and `flags` are the header's, `needed` the libraries that are
    loaded with it, `glibc` the newest version of a glibc symbol that it uses, `interpreter` what
    loads a program."""

    bits: int
    machine: int
    flags: int
    needed: tuple[str, ...]
    glibc: tuple[int, ...]
    interpreter: str


def read(data: bytes) -> Elf:
    assert data[:4] == b"\x7fELF"
    assert data[5] == 1, "little-endian"
    wide = data[4] == 2
    (machine,) = struct.unpack_from("<H", data, 18)
    (table,) = struct.unpack_from("<Q" if wide else "<I", data, 0x28 if wide else 0x20)
    (flags,) = struct.unpack_from("<I", data, 0x30 if wide else 0x24)
    (count,) = struct.unpack_from("<H", data, 0x3C if wide else 0x30)
    form = struct.Struct("<IIQQQQIIQQ" if wide else "<IIIIIIIIII")
    sections = [form.unpack_from(data, table + i * form.size) for i in range(count)]
    parts = {kind: data[at : at + size] for _, kind, _, _, at, size, *_ in sections}
    strings = {i: data[s[4] : s[4] + s[5]] for i, s in enumerate(sections)}
    pair = struct.Struct("<QQ" if wide else "<II")
    needed = [
        _text(strings[link], value)
        for _, kind, _, _, at, size, link, *_ in sections
        if kind == 6  # SHT_DYNAMIC
        for tag, value in pair.iter_unpack(data[at : at + size])
        if tag == 1  # DT_NEEDED
    ]
    versions = [
        tuple(map(int, found.split(b".")))
        for found in re.findall(rb"GLIBC_(\d+(?:\.\d+)+)", parts.get(3, b"") + data)
    ]
    interpreter = re.search(rb"/lib\S*/ld-[\w.-]+\.so\.\d", data)
    return Elf(
        bits=64 if wide else 32,
        machine=machine,
        flags=flags,
        needed=tuple(needed),
        glibc=max(versions, default=()),
        interpreter=interpreter[0].decode() if interpreter else "",
    )


def _text(strings: bytes, at: int) -> str:
    return strings[at : strings.index(0, at)].decode()
