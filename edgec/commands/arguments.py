"""Values of options that are written NAME=VALUE."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import Any

from edgec.errors import UsageError
from edgec.options import Options

SHAPE, DIM = "INPUT=1x3x224x224", "NAME=SIZE"
"""How a user writes them."""


def shapes(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """`INPUT=1x3x224x224`, several times."""
    return {
        name: tuple(_size(part, "--shape", SHAPE, text) for part in value.split("x") if part)
        for text in texts
        for name, value in [_split(text, "--shape", SHAPE)]
    }


def dims(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """`NAME=SIZE` or `NAME=SIZE,SIZE`, several times."""
    return {
        name: tuple(_size(part, "--dim", DIM, text) for part in value.split(","))
        for text in texts
        for name, value in [_split(text, "--dim", DIM)]
    }


def single_dims(texts: Sequence[str]) -> dict[str, int]:
    """`NAME=SIZE`, several times."""
    found = {}
    for name, sizes in dims(texts).items():
        if len(sizes) > 1:
            raise UsageError(f"'{name}' has several sizes", where="--dim")
        found[name] = sizes[0]
    return found


def states(texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """`OUT=IN`, several times."""
    return tuple(_split(text, "--state", "OUT=IN") for text in texts)


def options(args: argparse.Namespace, **others: Any) -> Options:
    """What the commands that compile have in common, and `others`."""
    return Options(
        level=2 if args.level is None else args.level,
        shapes=shapes(args.shape),
        dims=dims(args.dim),
        states=states(args.state),
        passes=args.passes,
        disable=tuple(args.disable),
        stop_after=args.stop_after,
        cc=args.cc,
        ndk=args.ndk,
        cuda_path=args.cuda_path,
        trusted=args.trusted,
        jobs=args.jobs,
        **others,
    )


def seconds(text: str, option: str) -> float:
    """A time such as `90s`, `10m`, `1h30m`; a number alone is of seconds."""
    match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?", text)
    total = match and sum(
        float(number or 0) * unit
        for number, unit in zip(match.groups(), (3600, 60, 1), strict=True)
    )
    if not total:
        raise UsageError(f"'{text}' is no time", where=option, hint=f"write {option} 10m")
    return total


def _split(text: str, option: str, form: str) -> tuple[str, str]:
    name, equals, value = text.rpartition("=")
    if not equals or not name or not value:
        raise UsageError(f"cannot read '{text}'", where=option, hint=f"write {option} {form}")
    return name, value


def _size(text: str, option: str, form: str, whole: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        message = f"'{text}' in '{whole}' is no size"
        raise UsageError(message, where=option, hint=f"write {option} {form}")
    return int(text)
