"""Tables of targets: those of this folder, and a board of the user's own, checked line by line.

A table is a level (`aarch64.toml`), a board, which names the level or board it builds on, or an
alias of a board. What a board says replaces what it builds on, but for `features` and `cpu_flags`,
which come to those of it.
"""

from __future__ import annotations

import difflib
import functools
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from edgec.errors import TargetError

Table = Mapping[str, Any]

OWN_SUFFIX = ".toml"
"""A target named by a file that ends so is the user's own."""

ADDED = ("features", "cpu_flags")
"""What a board has besides what it builds on has of it."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_LIBC = re.compile(r"glibc \d+\.\d+|musl|bionic \d+")
_LIMIT_BYTES = 1 << 20


@functools.cache
def built_in() -> Mapping[str, Table]:
    """The tables of this folder, by the target's name."""
    tables: dict[str, Table] = {}
    for path in sorted(Path(__file__).parent.glob("*.toml")):
        tables |= tomllib.loads(path.read_text(encoding="utf-8"))
    return tables


def own(path: Path) -> tuple[str, Table]:
    """The name and the table of the user's board in the file at `path`.

    Raises:
        TargetError: it cannot be read, or says what no board says; the error names the line.
    """
    try:
        with open(path, "rb") as stream:
            data = stream.read(_LIMIT_BYTES + 1)
        text = data.decode()
        tables = tomllib.loads(text) if len(data) <= _LIMIT_BYTES else {}
    except OSError as error:
        raise TargetError(
            f"cannot be read: {error.strerror or error}",
            where=str(path),
            hint="`edgec targets` lists the targets edgec knows",
        ) from error
    except UnicodeDecodeError as error:
        raise TargetError("is not text in UTF-8", where=str(path)) from error
    except tomllib.TOMLDecodeError as error:
        raise _syntax_error(path, text, error) from error
    if len(data) > _LIMIT_BYTES:
        raise TargetError("is too long for a board", where=str(path))
    return _Checker(path, text).check(tables)


def place_of(path: Path, key: str) -> str:
    """Where `key` stands in the user's file at `path`: the file, and its line."""
    return _Checker(path, path.read_text(encoding="utf-8")).place(key)


def _syntax_error(path: Path, text: str, error: tomllib.TOMLDecodeError) -> TargetError:
    found = re.search(r"\(at line (\d+), column (\d+)\)", str(error))
    line = found[1] if found else str(text.count("\n") + 1)
    what = re.sub(r"\s*\(at .*\)", "", str(error))
    return TargetError(f"is not TOML: {what}", where=f"{path}:{line}", hint=_EXAMPLE)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value.isprintable() and bool(value)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 50


def _are(check: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, list) and all(map(check, value))


def _matches(pattern: str) -> Callable[[object], bool]:
    compiled = re.compile(pattern)
    return lambda value: isinstance(value, str) and compiled.fullmatch(value) is not None


_TEXT = (_is_text, "a text in quotes")
_COUNT = (_is_count, "a positive whole number")

_KEYS: Mapping[str, tuple[Callable[[object], bool], str]] = {
    "level": _TEXT,
    "summary": _TEXT,
    "mcpu": (_matches(r"[a-z0-9._-]+"), 'a processor as LLVM calls it, such as "cortex-a72"'),
    "features": (
        _are(_matches(r"[+-][a-z0-9._-]+")),
        'a list of LLVM\'s features with a sign, such as ["+dotprod"]',
    ),
    "cpu_flags": (
        _are(_matches(r"[a-z0-9_]+")),
        'a list of features as /proc/cpuinfo names them, such as ["asimddp"]',
    ),
    "fma_units": _COUNT,
    "l1_bytes": _COUNT,
    "l2_bytes": _COUNT,
    "l3_bytes": _COUNT,
    "channel_block": (lambda value: value in (4, 8, 16), "4, 8 or 16"),
    "libc": (
        lambda value: isinstance(value, str) and _LIBC.fullmatch(value) is not None,
        '"glibc 2.28", "musl", or "bionic 24" for Android',
    ),
    "cores": (
        lambda value: (
            isinstance(value, dict) and bool(value) and all(map(_is_count, value.values()))
        ),
        "cores by their number, fastest first, such as { cortex-a76 = 4, cortex-a55 = 4 }",
    ),
    "models": (_are(_is_text), "a list of texts, of which the device tree's model has one"),
    "ram_mib": (_are(_is_count), "a list of sizes in MiB, such as [4096, 8192]"),
    "qemu_cpu": (_matches(r"[A-Za-z0-9_.,=+-]*"), "a processor that QEMU emulates"),
    "gpu": _TEXT,
    "gpu_arch": (_matches(r"sm_\d+[a-z]?"), 'a compute capability such as "sm_87"'),
    "jetpack": (_matches(r"\d+(\.\d+)*"), 'a version in quotes, such as "6"'),
    "cuda": (_matches(r"\d+\.\d+"), 'a version in quotes, such as "12.6"'),
}
"""What a board may say, how it is checked, and what is wanted."""

_EXAMPLE = 'a board is written: [my-board] level = "aarch64" mcpu = "cortex-a72", a line each'


class _Checker:
    """A file of the user's, and complaints about its lines."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.lines = text.splitlines()

    def check(self, tables: Table) -> tuple[str, Table]:
        boards = {name: table for name, table in tables.items() if isinstance(table, dict)}
        for key in tables:
            if key not in boards:
                raise self.error(key, f"'{key}' stands outside of a table", _EXAMPLE)
        if len(boards) != 1:
            found = f"{len(boards)} tables" if boards else "no table"
            where = list(boards)[1] if boards else ""
            raise self.error(where, f"describes one board, but has {found}", _EXAMPLE, table=True)
        [(name, table)] = boards.items()
        if not _NAME.fullmatch(name):
            wanted = "names are of small letters, digits, '.', '_' and '-'"
            raise self.error(name, f"'{name}' cannot be a name", wanted, table=True)
        if name in built_in() or name == "host":
            hint = "choose another name: artifacts and records go by it"
            raise self.error(name, f"'{name}' is a target of edgec's own", hint, table=True)
        for key, value in table.items():
            if key not in _KEYS:
                raise self.error(key, f"a board has no '{key}'", nearest(key, _KEYS))
            accepts, wanted = _KEYS[key]
            if not accepts(value):
                raise self.error(key, f"'{key}' cannot be {value!r}", f"it is {wanted}")
        if "level" not in table:
            hint = 'say what it builds on: level = "aarch64"'
            raise self.error(name, "names no level", hint, table=True)
        level = table["level"].split("+")[0]
        if level not in built_in() or "alias" in built_in()[level]:
            hint = nearest(level, [n for n, t in built_in().items() if "alias" not in t])
            raise self.error("level", f"there is no level or board '{level}'", hint)
        return name, table

    def error(self, key: str, what: str, hint: str, *, table: bool = False) -> TargetError:
        """A complaint about the line of a key, or of a table's head."""
        return TargetError(what, where=self.place(key, table=table), hint=hint)

    def place(self, key: str, *, table: bool = False) -> str:
        """The file, and the line of a key, or of a table's head."""
        quoted = rf"""["']?{re.escape(key)}["']?"""
        pattern = re.compile(rf"\s*\[\s*{quoted}\s*\]" if table else rf"\s*{quoted}\s*=")
        hits = [number for number, line in enumerate(self.lines, 1) if pattern.match(line)]
        return f"{self.path}:{hits[0] if hits else 1}"


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint: the known names that are like `name`, or all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    return "did you mean " + " or ".join(near) + "?" if near else "known: " + ", ".join(names)
