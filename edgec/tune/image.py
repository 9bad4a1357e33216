"""Kernels as images: linked to run at any address, by the few relocations that kernels have.

An image is text, which is read and executed, and behind it data, which is written. What it needs of
its loader are fixups: words to which the loader adds where it put the image, or the address of one
of its own functions.

Relocations are computed as the psABIs say (System V ABI, AMD64 supplement, 4.4; ELF for the Arm
64-bit Architecture, 5.7).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edgec.errors import LoweringError
from edgec.tune.objects import Object, Relocation, Section

_PAGE = {"x86_64": 4096, "aarch64": 65536}
_WORD, _STUB = 8, 16
"""Bytes of a slot, and of a stub."""

_CALLS = {"x86_64": (4,), "aarch64": (282, 283)}
_THROUGH_SLOTS = {"x86_64": (9, 41, 42), "aarch64": (311, 312)}
_ARM_PAGES = (275, 276, 311)
_ARM_LOW = {277: 0, 278: 0, 284: 1, 285: 2, 286: 3, 299: 4, 312: 3}
"""Relocations of the low 12 bits of an address, and how many of them the instruction leaves
out."""
_WORDS = {"x86_64": 1, "aarch64": 257}
_RELATIVE = {"x86_64": (2, 4, 9, 41, 42), "aarch64": (261,)}


@dataclass(frozen=True)
class Image:
    """`text_bytes` of `data` are text; `entry` is where the kernel begins.

    `fixups` are (import, offset): import 0 is the image's own address, and import n the n-th
    function of the loader's.
    """

    data: bytes
    text_bytes: int
    entry: int
    fixups: tuple[tuple[int, int], ...]


def link(relocatable: bytes, symbol: str, imports: Mapping[str, int]) -> Image:
    """The image of an ELF64 object whose function `symbol` is called.

    `imports` has the numbers, from 1, of the loader's functions. A weak variable of the object that
    has the name of one becomes its address.

    Raises:
        LoweringError: a symbol that nobody defines, or a relocation that kernels do not have.
    """
    linker = _Linker(Object.of(relocatable), imports)
    return Image(bytes(linker.image), linker.text_bytes, linker.entry(symbol), tuple(linker.fixups))


class _Linker:
    """Text is sections and stubs, data other sections and slots.

    A slot is a word with the address of a symbol; a stub jumps to where a slot says.
    """

    def __init__(self, source: Object, imports: Mapping[str, int]) -> None:
        self.source = source
        self.imports = imports
        self.fixups: list[tuple[int, int]] = []
        self.place: dict[int, int] = {}
        machine = source.machine
        calls, through = _CALLS[machine], _THROUGH_SLOTS[machine]
        used = [(r.kind, r.symbol) for r in source.relocations]
        far = {s: 0 for kind, s in used if kind in calls and not source.symbols[s].section}
        slotted = far | {s: 0 for kind, s in used if kind in through}

        end = self._put([s for s in source.sections if not s.writable], 0)
        self.stubs = _row(far, end, _STUB)
        self.text_bytes = _up(_up(end, _STUB) + _STUB * len(far), _PAGE[machine])
        end = self._put([s for s in source.sections if s.writable], self.text_bytes)
        self.slots = _row(slotted, end, _WORD)
        self.image = bytearray(_up(end, _WORD) + _WORD * len(slotted))

        for section in source.sections:
            at = self.place[section.number]
            self.image[at : at + len(section.data)] = section.data
        for number, slot in self.slots.items():
            self._address_at(slot, number, 0)
        for number, stub in self.stubs.items():
            self.image[stub : stub + _STUB] = self._stub(stub, self.slots[number])
        for relocation in source.relocations:
            self._relocate(relocation)
        for number, symbol in enumerate(source.symbols):
            if symbol.section and symbol.name in imports:
                self.fixups.append((imports[symbol.name], self._address(number)))

    def entry(self, name: str) -> int:
        """Where the function called `name` begins."""
        for number, symbol in enumerate(self.source.symbols):
            if symbol.name == name and symbol.section:
                return self._address(number)
        raise LoweringError(f"the kernel's object does not define '{name}'")

    def _put(self, sections: Iterable[Section], end: int) -> int:
        for section in sections:
            self.place[section.number] = _up(end, section.alignment)
            end = self.place[section.number] + len(section.data)
        return end

    def _address(self, number: int) -> int:
        symbol = self.source.symbols[number]
        if symbol.section not in self.place:
            raise LoweringError(f"nobody defines '{symbol.name}', which the kernel refers to")
        return self.place[symbol.section] + symbol.value

    def _address_at(self, offset: int, number: int, addend: int) -> None:
        """Make a word of the image the address of a symbol."""
        symbol = self.source.symbols[number]
        imported = 0 if symbol.section else self.imports.get(symbol.name, 0)
        value = addend if imported else self._address(number) + addend
        struct.pack_into("<Q", self.image, offset, value % (1 << 64))
        self.fixups.append((imported, offset))

    def _stub(self, stub: int, slot: int) -> bytes:
        if self.source.machine == "x86_64":  # jmp *slot(%rip)
            return struct.pack("<HiHQ", 0x25FF, slot - stub - 6, 0, 0)
        load = 0xF9400210 | (slot & 0xFFF) // _WORD << 10  # ldr x16, [x16, #low]
        page = _with_page(0x90000010, slot, stub)  # adrp x16, slot
        return struct.pack("<IIII", page, load, 0xD61F0200, 0)  # br x16

    def _relocate(self, relocation: Relocation) -> None:
        machine, kind, number = self.source.machine, relocation.kind, relocation.symbol
        at = self.place[relocation.section] + relocation.offset
        if kind == _WORDS[machine]:
            self._address_at(at, number, relocation.addend)
            return
        if kind in _THROUGH_SLOTS[machine]:
            target = self.slots[number] + relocation.addend
        elif number in self.stubs and kind in _CALLS[machine]:
            target = self.stubs[number] + relocation.addend
        else:
            target = self._address(number) + relocation.addend
        if kind in _RELATIVE[machine]:
            struct.pack_into("<i", self.image, at, target - at)
            return
        (code,) = struct.unpack_from("<I", self.image, at)
        if machine == "aarch64" and kind in _CALLS[machine]:
            code |= (target - at) // 4 & 0x3FFFFFF
        elif machine == "aarch64" and kind in _ARM_PAGES:
            code = _with_page(code, target, at)
        elif machine == "aarch64" and kind in _ARM_LOW:
            code |= (target & 0xFFF) >> _ARM_LOW[kind] << 10
        else:
            raise LoweringError(f"the kernel has a relocation of type {kind}, which is unknown")
        struct.pack_into("<I", self.image, at, code)


def _with_page(code: int, target: int, at: int) -> int:
    """An `adrp` at `at` with the distance to the page of `target`, both counted in 4 KiB."""
    pages = (target >> 12) - (at >> 12)
    return code | (pages & 3) << 29 | (pages >> 2 & 0x7FFFF) << 5


def _row(symbols: Iterable[int], start: int, size: int) -> dict[int, int]:
    """Places of one thing of `size` bytes for each symbol, from `start` on."""
    return {symbol: _up(start, size) + i * size for i, symbol in enumerate(symbols)}


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
